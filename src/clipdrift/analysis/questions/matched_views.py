"""Two methods held against each other at equal validation accuracy and equal weight movement."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.rows import Drawn, MethodA, Metric, OfTarget, Reason, Said, key, sure
from clipdrift.analysis.statistics.columns import (
    LOG_LR,
    VAL_ACCURACY,
    matched_runs,
    outcome_columns,
    parts,
)
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.curve_images import CurveImages, ImageSet, with_images
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
    """Accuracies, retention, what is lost and gone, learning rate, every drift signal."""
    names = sorted(map(str, frame.columns))
    accuracies = [name for name in ("test_accuracy", VAL_ACCURACY) if name in frame]
    lost = [name for name in names if name.endswith((".lost_pp", ".gone_pp"))]
    drifts = [name for name in names if name.startswith("drift.")]
    return [*accuracies, *outcome_columns(frame), *lost, LOG_LR, *drifts]


@dataclass(frozen=True, kw_only=True)
class MatchedView(OfTarget):
    """Two methods at equal validation accuracy and equal weight movement.

    At equal learning rate: `paired`, per_lr.

    view: equal_val_accuracy or equal_weight_drift
    at: what is held equal, in its unit: fraction, relative weight movement
    value_a: of method_a there
    value_b: of method_b there
    diff: value_a - value_b
    image_se: error of diff from drawing images
    ci_low: t over seeds, one left out at a time, and images where they are known
    n_seeds: seeds: the sample
    """

    table: ClassVar = "matched_views"

    view: Annotated[str, key("Held equal", "view")]
    at: Annotated[float | None, key("At", "held")] = None
    metric: Metric
    method_a: MethodA
    method_b: str
    value_a: Annotated[float | None, Said("value", "First")] = None
    value_b: Annotated[float | None, Said("value", "Second")] = None
    diff: Annotated[float | None, Said("difference", "Diff.")] = None
    image_se: Annotated[float | None, Said("size")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "difference", upto="ci_high")] = None
    ci_high: float | None = None
    interval_over: Drawn = None
    n_seeds: Annotated[int, Said("count")]
    reason: Reason = None


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    compare_with: Collection[str] | None = None,
    images: Images | None = None,
) -> list[MatchedView]:
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
        metrics: columns to compare; default `default_metrics`. `log10_learning_rate` is the rate
            at which a method gets there.

    Returns:
        One row per backbone, target, view, pair, place and metric.

    Reference: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2), for PCHIP; Tukey (1958),
        Annals of Mathematical Statistics 29(2), for the interval.
    """
    runs = matched_runs(frame)
    wanted = default_metrics(runs) if metrics is None else metrics
    out: list[MatchedView] = []
    for (backbone, target), part in parts(runs, "backbone", "target"):
        methods = MethodCurves(part, wanted)
        known = CurveImages(methods, images or Images())
        comparison = _Comparison(backbone, target, methods, known, wanted)
        out += comparison.rows(method_pairs(methods.values, compare_with))
    return out


@dataclass(frozen=True)
class _Comparison:
    """Pairs of the methods of one target, held against each other in both views."""

    backbone: str
    target: str
    methods: MethodCurves
    images: CurveImages
    metrics: list[str]

    def rows(self, pairs: list[Pair]) -> Iterator[MatchedView]:
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
    ) -> Iterator[MatchedView]:
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

    def _nothing(self, view: str, pair: Pair, reason: str) -> Iterator[MatchedView]:
        for metric in self.metrics:
            yield replace(self._row(view, metric, pair), reason=reason)

    def _compare(
        self, view: View, place: float, pair: Pair, curves: dict[str, Curve]
    ) -> Iterator[MatchedView]:
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
            row = replace(self._row(view.name, metric, pair), at=at)
            yield self._difference(row, first[i], second[i], n, drawn.get(metric, []))

    def _difference(
        self, row: MatchedView, first: Floats, second: Floats, n: int, drawn: list[ImageSet]
    ) -> MatchedView:
        a, b = float(first[0]), float(second[0])
        if not np.isfinite(a - b):
            return replace(row, reason="undefined in a cell of one of the methods")
        test = jackknife(first - second, n, scale=max(abs(a), abs(b)))
        low, high = with_images(test.interval(), drawn)
        errors = [one.error.image_se for one in drawn]
        return replace(
            row,
            value_a=a,
            value_b=b,
            diff=a - b,
            image_se=float(np.hypot.reduce(errors)) if drawn else None,
            ci_low=low,
            ci_high=high,
            interval_over=None if low is None else SEEDS_AND_IMAGES if drawn else SEEDS,
            reason=test.reason,
        )

    def _row(self, view: str, metric: str, pair: Pair) -> MatchedView:
        return MatchedView(
            backbone=self.backbone,
            target=self.target,
            view=view,
            metric=metric,
            method_a=pair[0],
            method_b=pair[1],
            n_seeds=len(self.methods.seeds),
        )
