"""Two methods held against each other at equal validation accuracy and equal weight movement."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.statistics.columns import (
    LOG_LR,
    VAL_ACCURACY,
    matched_runs,
    outcome_columns,
    parts,
)
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.curve_images import CurveImages, Drawn, with_images
from clipdrift.analysis.statistics.curves import Curve
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import jackknife
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves, View
from clipdrift.analysis.statistics.pairs import method_pairs
from clipdrift.analysis.statistics.ranks import Floats

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Parts of the overlap of two curves. Where it ends is itself read from few seeds: without one of
them a curve often does not reach there."""
Pair = tuple[str, str]


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracies, retention, learning rate and every drift signal of the frame."""
    accuracies = [name for name in ("test_accuracy", VAL_ACCURACY) if name in frame]
    drifts = sorted(name for name in frame.columns if name.startswith("drift."))
    return [*accuracies, *outcome_columns(frame), LOG_LR, *drifts]


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    compare_with: Collection[str] | None = None,
    images: Images | None = None,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every pair of matched methods in both views, per backbone and target.

    Each method's curve of cell means over its learning rates, with the quantity held equal as
    abscissa (log10 of weight movement), made rising (`knot_blocks`) and interpolated by PCHIP;
    read at five places inside the overlap of the two curves. Where they do not overlap there is one
    row per metric with nulls and the reason. Nothing is extrapolated. At equal learning rate and
    seed the same runs are compared by `paired`.

    Intervals are of value_a - value_b at the place: t with the error found by leaving out one seed
    at a time, in both methods, and building the curves anew. Where single images are known, what
    drawing images adds to it widens them (`curve_images`); `interval_over` says so.

    Args:
        frame: one row per finished run.
        metrics: columns to compare; default `default_metrics`. `log10_learning_rate` is the rate
            at which a method gets there.
        compare_with: methods of which every pair holds one; default every pair.
        images: which images each of these runs was right on.
        level: coverage.

    Returns:
        One dict per backbone, target, view, pair, place and metric: `backbone, target, view, at,
        metric, method_a, method_b, value_a, value_b, diff, image_se, ci_low, ci_high,
        interval_over, n_seeds, reason`. `at` in the unit of what is held equal: fraction, relative
        weight movement. `image_se` is the error of `diff` from drawing images.

    Reference: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2), for PCHIP; Tukey (1958),
        Annals of Mathematical Statistics 29(2), for the interval.
    """
    runs = matched_runs(frame)
    wanted = default_metrics(runs) if metrics is None else metrics
    out = []
    for (backbone, target), part in parts(runs, "backbone", "target"):
        methods = MethodCurves(part, wanted)
        known = CurveImages(methods, images or Images())
        key = {"backbone": backbone, "target": target}
        pairs = method_pairs(methods.values, compare_with)
        out += [{**key, **row} for row in _Comparison(methods, known, wanted, level).rows(pairs)]
    return out


class _Comparison:
    """Pairs of the methods of one target, held against each other in both views."""

    def __init__(
        self, methods: MethodCurves, images: CurveImages, metrics: list[str], level: float
    ) -> None:
        self.methods, self.images, self.metrics, self.level = methods, images, metrics, level

    def rows(self, pairs: list[Pair]) -> Iterator[dict[str, Any]]:
        curves = {
            view.name: {name: self.methods.curve(view, name) for name in self.methods.values}
            for view in VIEWS
            if view.metric in self.methods.columns
        }
        for pair in pairs:
            for view in VIEWS:
                if view.name in curves:
                    yield from self._equal_on_curve(view, pair, curves[view.name])
                else:
                    reason = f"no {view.metric} in these records"
                    yield from self._nothing(view.name, pair, reason)

    def _equal_on_curve(
        self, view: View, pair: Pair, curves: dict[str, Curve]
    ) -> Iterator[dict[str, Any]]:
        spans = []
        for name in pair:
            found = curves[name].span(0)
            if found is None:
                reason = f"the curve of {name} has fewer than two distinct values"
                yield from self._nothing(view.name, pair, reason)
                return
            spans.append(found)
        low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
        if low > high:
            yield from self._nothing(view.name, pair, "the curves do not overlap")
            return
        for place in dict.fromkeys(low + part * (high - low) for part in PLACES):
            yield from self._compare(view, place, pair, curves)

    def _nothing(self, view: str, pair: Pair, reason: str) -> Iterator[dict[str, Any]]:
        for metric in self.metrics:
            yield self._row(view, None, metric, pair, {"reason": reason})

    def _compare(
        self, view: View, place: float, pair: Pair, curves: dict[str, Curve]
    ) -> Iterator[dict[str, Any]]:
        """Rows of all metrics at one place."""
        at = 10**place if view.in_log10 else place
        columns = self.methods.columns
        first, second = (curves[name].at(place) for name in pair)
        seeds = np.minimum(*(self.methods.least_seeds(name) for name in pair))
        held = seeds[columns.index(view.metric)]
        metrics = [metric for metric in self.metrics if metric != view.metric]
        drawn = self.images.behind(view, place, pair, metrics)
        for metric in metrics:
            i = columns.index(metric)
            n = int(min(held, seeds[i]))
            found = self._difference(first[i], second[i], n, drawn.get(metric, []))
            yield self._row(view.name, at, metric, pair, found)

    def _difference(
        self, first: Floats, second: Floats, n: int, drawn: list[Drawn]
    ) -> dict[str, Any]:
        a, b = float(first[0]), float(second[0])
        if not np.isfinite(a - b):
            return {"reason": "undefined in a cell of one of the methods"}
        test = jackknife(first - second, n, scale=max(abs(a), abs(b)))
        low, high = with_images(test.interval(self.level), drawn, self.level)
        over = SEEDS_AND_IMAGES if drawn else SEEDS
        return {
            "value_a": a,
            "value_b": b,
            "diff": a - b,
            "image_se": float(np.hypot.reduce([d.error.image_se for d in drawn]))
            if drawn
            else None,
            "ci_low": low,
            "ci_high": high,
            "interval_over": None if low is None else over,
            "reason": test.reason,
        }

    def _row(
        self, view: str, at: float | None, metric: str, pair: Pair, found: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "view": view,
            "at": at,
            "metric": metric,
            "method_a": pair[0],
            "method_b": pair[1],
            **dict.fromkeys(["value_a", "value_b", "diff", "image_se"]),
            **dict.fromkeys(["ci_low", "ci_high", "interval_over"]),
            "n_seeds": len(self.methods.seeds),
            "reason": None,
            **found,
        }


__all__ = ["PLACES", "default_metrics", "rows"]
