"""Two methods held against each other at equal LR, equal validation accuracy, equal movement."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.curves import Curve
from clipdrift.analysis.intervals import Interval, percentile_cis
from clipdrift.analysis.method_curves import VIEWS, MethodCurves, View
from clipdrift.analysis.pairs import method_pairs
from clipdrift.analysis.ranks import Floats
from clipdrift.analysis.signals import LOG_LR, VAL_ACCURACY, matched_runs, outcome_columns, parts

N_RESAMPLES = 2_000
N_PLACES = 5
MIN_SEEDS = 2


Pair = tuple[str, str]
EQUAL_LR = "equal_learning_rate"


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
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every pair of matched methods in the three views, per backbone and target.

    Equal learning rate: cell means over the seeds both methods have, at each rate both have.
    Equal validation accuracy and equal weight movement: each method's curve of cell means over its
    learning rates, with the quantity held equal as abscissa (log10 of weight movement), made
    rising (`knot_blocks`) and interpolated by PCHIP; read at five places evenly spread over the
    overlap of the two curves. Where they do not overlap there is one row per metric with nulls
    and the reason. Nothing is extrapolated.

    Intervals are of value_a - value_b, from seeds drawn with replacement, the same draw for both
    methods, curves rebuilt in each.

    Args:
        frame: one row per finished run.
        metrics: columns to compare; default `default_metrics`. `log10_learning_rate` in the curve
            views is the rate at which a method gets there.
        compare_with: methods of which every pair holds one; default every pair.
        n_resamples, seed: of the bootstrap.
        level: coverage.

    Returns:
        One dict per backbone, target, view, pair, place and metric: `backbone, target, view, at,
        metric, method_a, method_b, value_a, value_b, diff, ci_low, ci_high, share_defined,
        n_seeds, n_resamples, seed, reason`. `at` in the unit of what is held equal: learning rate,
        fraction, relative weight movement. `share_defined` is the share of resamples in which both
        curves reach the place; below 1 (at the ends of the overlap) the interval speaks of those
        resamples only.

    Reference: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2), for PCHIP.
    """
    runs = matched_runs(frame)
    wanted = default_metrics(runs) if metrics is None else metrics
    out = []
    for (backbone, target), part in parts(runs, "backbone", "target"):
        methods = MethodCurves(part, wanted, n_resamples, seed)
        key = {"backbone": backbone, "target": target}
        pairs = method_pairs(methods.values, compare_with)
        out += [{**key, **row} for row in _Comparison(methods, wanted, level).rows(pairs)]
    return out


class _Comparison:
    """Pairs of the methods of one target, held against each other in the three views."""

    def __init__(self, methods: MethodCurves, metrics: list[str], level: float) -> None:
        self.methods, self.metrics, self.level = methods, metrics, level

    def rows(self, pairs: list[Pair]) -> Iterator[dict[str, Any]]:
        curves = {
            view.name: {name: self.methods.curve(view, name) for name in self.methods.values}
            for view in VIEWS
            if view.metric in self.methods.columns
        }
        for pair in pairs:
            yield from self._equal_rate(pair)
            for view in VIEWS:
                if view.name in curves:
                    yield from self._equal_on_curve(view, pair, curves[view.name])
                else:
                    reason = f"no {view.metric} in these records"
                    yield from self._nothing(view.name, pair, reason)

    def _equal_rate(self, pair: Pair) -> Iterator[dict[str, Any]]:
        rates = self.methods.rates
        shared = [rate for rate in rates[pair[0]] if rate in rates[pair[1]]]
        if not shared:
            yield from self._nothing(EQUAL_LR, pair, "no learning rate in common")
            return
        values = [
            self.methods.values[name][[rates[name].index(rate) for rate in shared]] for name in pair
        ]
        both = np.isfinite(values[0]) & np.isfinite(values[1])
        first, second = (self.methods.means(np.where(both, part, np.nan)) for part in values)
        for i, rate in enumerate(shared):
            yield from self._compare(EQUAL_LR, rate, LOG_LR, pair, first[i], second[i])

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
        for place in np.unique(np.linspace(low, high, N_PLACES)).tolist():
            at = 10**place if view.in_log10 else place
            first, second = (curves[name].at(place) for name in pair)
            yield from self._compare(view.name, at, view.metric, pair, first, second)

    def _nothing(self, view: str, pair: Pair, reason: str) -> Iterator[dict[str, Any]]:
        for metric in self.metrics:
            yield self._row(view, None, metric, pair, {"reason": reason})

    def _compare(
        self, view: str, at: float, held: str, pair: Pair, first: Floats, second: Floats
    ) -> Iterator[dict[str, Any]]:
        """Rows of all metrics at one place: values (n_metrics, n_draws) of both methods."""
        metrics = [metric for metric in self.metrics if metric != held]
        index = [self.methods.columns.index(metric) for metric in metrics]
        gaps = (first - second)[index][:, self.methods.inverse]
        intervals = percentile_cis(gaps, self.level)
        shares = np.isfinite(gaps).mean(axis=1)
        for metric, i, interval, share in zip(metrics, index, intervals, shares, strict=True):
            a, b = float(first[i, 0]), float(second[i, 0])
            found: dict[str, Any] = {"value_a": a, "value_b": b, "diff": a - b}
            if np.isfinite(a - b):
                found |= self._band(interval, share)
            else:
                found = {"reason": "undefined in a cell of one of the methods"}
            yield self._row(view, at, metric, pair, found)

    def _band(self, interval: Interval, share: float) -> dict[str, Any]:
        if len(self.methods.seeds) < MIN_SEEDS:
            return {"reason": "one seed: no interval"}
        found = {"share_defined": float(share)}
        if interval.low is None:
            return {**found, "reason": "defined in a minority of resamples: no interval"}
        return {**found, "ci_low": interval.low, "ci_high": interval.high}

    def _row(
        self, view: str, at: float | None, metric: str, pair: Pair, found: dict[str, Any]
    ) -> dict[str, Any]:
        empty = dict.fromkeys(["value_a", "value_b", "diff", "ci_low", "ci_high", "share_defined"])
        return {
            "view": view,
            "at": at,
            "metric": metric,
            "method_a": pair[0],
            "method_b": pair[1],
            **empty,
            "n_seeds": len(self.methods.seeds),
            "n_resamples": self.methods.n_resamples,
            "seed": self.methods.seed,
            "reason": None,
            **found,
        }


__all__ = ["EQUAL_LR", "MIN_SEEDS", "N_PLACES", "N_RESAMPLES", "default_metrics", "rows"]
