"""Cells of a run frame: the runs of each, and mean, SD and interval of every metric over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipdrift.analysis.statistics.columns import Floats, column
from clipdrift.analysis.statistics.intervals import LEVEL, ROUNDING
from clipdrift.analysis.usable import CELL_KEY
from clipdrift.records import RunRecord

Positions = NDArray[np.intp]


class CellKey(NamedTuple):
    """Backbone x target x method x learning rate; a method has one role."""

    backbone: str
    target: str
    role: str
    method: str
    learning_rate: float

    @classmethod
    def of(cls, record: RunRecord) -> CellKey:
        """The cell of a run."""
        return cls(record.backbone, record.target, record.role, record.method, record.learning_rate)


class Summary(NamedTuple):
    """Per metric, shape (n_metrics,): count, mean, SD (ddof 1), t interval; NaN if undefined.

    Values that do not vary have an SD of exactly 0, and no interval: it would have no width.
    """

    n: NDArray[np.intp]
    mean: Floats
    sd: Floats
    ci_low: Floats
    ci_high: Floats


def cells(runs: pd.DataFrame) -> dict[CellKey, Positions]:
    """Cell -> positions of its runs, in sorted order of the cells."""
    groups: Mapping[Any, Any] = runs.groupby(CELL_KEY, sort=True).indices
    return {
        CellKey(str(backbone), str(target), str(role), str(method), float(lr)): np.asarray(
            groups[backbone, target, role, method, lr], dtype=np.intp
        )
        for backbone, target, role, method, lr in sorted(groups)
    }


def matrix(runs: pd.DataFrame, metrics: list[str]) -> Floats:
    """Metrics as float64 (n_runs, n_metrics); undefined is NaN."""
    if not metrics:
        return np.empty((len(runs), 0))
    return np.column_stack([column(runs, name) for name in metrics])


def summarise(values: Floats) -> Summary:
    """Mean, SD and t interval of every column over its finite values.

    Args:
        values: (n_runs, n_metrics).

    >>> found = summarise(np.array([[1.0, 2.0], [3.0, np.nan]]))
    >>> found.n.tolist(), found.mean.tolist(), float(found.sd[0]) ** 2
    ([2, 1], [2.0, 2.0], 2.0000000000000004)
    """
    defined = np.isfinite(values)
    n = defined.sum(axis=0)
    filled = np.where(defined, values, 0.0)
    mean = np.where(n > 0, filled.sum(axis=0) / np.maximum(n, 1), np.nan)
    first = np.where(n > 0, np.take_along_axis(values, defined.argmax(axis=0)[None], 0)[0], np.nan)
    same = (np.where(defined, values, first) == first).all(axis=0) & (n > 0)
    mean = np.where(same, first, mean)
    squares = np.where(defined, values - mean, 0.0) ** 2
    sd = np.where(n > 1, np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1)), np.nan)
    sd = np.where(sd <= ROUNDING * np.abs(filled).max(axis=0, initial=0.0), 0.0, sd)
    half = stdtrit(np.maximum(n - 1, 1), (1 + LEVEL) / 2) * sd / np.sqrt(np.maximum(n, 1))
    half = np.where(sd > 0, half, np.nan)
    return Summary(n, mean, sd, mean - half, mean + half)


def by_rate(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Per learning rate: n, mean, SD (ddof 1) of a metric and the run ids."""
    grouped = runs.groupby("learning_rate", sort=True)
    out = grouped[name].agg(["count", "mean", "std"])
    out["ids"] = grouped["run_id"].agg(list)
    return out.reset_index()


def number(value: float) -> float | None:
    """A float for JSON: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def why_incomplete(n: int, n_runs: int, sd: float) -> str | None:
    """Why a cell's mean, SD or interval is null, or stands on fewer runs than the cell has."""
    texts = []
    if n == 0:
        return f"undefined in all {n_runs} runs" if n_runs > 1 else "undefined in the only run"
    if n < n_runs:
        texts.append(f"undefined in {n_runs - n} of {n_runs} runs")
    if n == 1:
        texts.append("one value: no SD and no interval")
    if sd == 0:
        texts.append("the values do not vary: no interval")
    return "; ".join(texts) or None
