"""What is true of made-up studies of photographs, from their means over all seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from clipdrift.analysis.questions.mixed import design_of
from clipdrift.analysis.questions.standings import OWN_BEST
from clipdrift.analysis.statistics.curves import Curve
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves
from simulated import KEPT, METHODS, TEST, VAL

Row = Mapping[str, Any]


class Truth:
    """Of one claim: on these images, or on all there are. means: one row per cell."""

    def __init__(self, means: pd.DataFrame) -> None:
        self.means = means
        keys = ["target", "method", "learning_rate"]
        self.cell = {name: means.set_index(keys)[name].to_dict() for name in (VAL, TEST, KEPT)}

    @cached_property
    def _curves(self) -> dict[tuple[str, str, str], tuple[MethodCurves, Curve]]:
        out = {}
        for target, part in self.means.groupby("target"):
            methods = MethodCurves(part, [TEST, KEPT])
            for view in VIEWS:
                for name in METHODS:
                    out[str(target), view.name, name] = methods, methods.curve(view, name)
        return out

    def of(self, row: Row, method: str, lr: float) -> float:
        return float(self.cell[row["metric"]][row["target"], method, lr])

    def mean(self, row: Row) -> float:
        return self.of(row, row["method"], row["learning_rate"])

    def difference(self, row: Row) -> float:
        """Of a paired row: at its rate, or over the rates that it is about."""
        rates = row.get("learning_rates") or [row["learning_rate"]]
        gaps = [
            self.of(row, row["method_a"], lr) - self.of(row, row["method_b"], lr) for lr in rates
        ]
        return float(np.mean(gaps))

    def on_curve(self, row: Row, method: str) -> float:
        view = next(view for view in VIEWS if view.name == row["view"])
        methods, curve = self._curves[row["target"], view.name, method]
        place = float(np.log10(row["at"])) if view.in_log10 else row["at"]
        return float(curve.at(place)[methods.columns.index(row["metric"]), 0])

    def on_curves(self, row: Row) -> float:
        if row["at"] is None:
            return np.nan
        return self.on_curve(row, row["method_a"]) - self.on_curve(row, row["method_b"])

    def ranks(self, rows: list[dict[str, Any]], rates: list[float]) -> list[float]:
        """True ranks of the methods of one view and metric, where they were held equal."""
        if rows[0]["view"] == OWN_BEST:
            values = [self.mean(row) for row in rows]
        elif rows[0]["at"] is None:
            values = [np.mean([self.of(row, row["method"], lr) for lr in rates]) for row in rows]
        else:
            values = [self.on_curve(row, row["method"]) for row in rows]
        if np.isnan(values).any():
            return [np.nan] * len(rows)
        return rankdata(-np.round(values, 12), method="min").tolist()

    @cached_property
    def terms(self) -> dict[tuple[str, str, str], float]:
        """Target, metric and term -> coefficient of `mixed`, by least squares on the means."""
        out = {}
        for target, part in self.means.groupby("target"):
            own = part.assign(target="one", log10_learning_rate=np.log10(part["learning_rate"]))
            design = design_of(own)
            for metric in (TEST, KEPT):
                found = np.linalg.lstsq(design.matrix, own[metric].to_numpy(), rcond=None)[0]
                pairs = zip(design.terms, found.tolist(), strict=True)
                out.update({(str(target), metric, term): value for term, value in pairs})
        return out


__all__ = ["Row", "Truth"]
