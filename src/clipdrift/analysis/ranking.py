"""Methods ranked by what they keep and reach, by each way of holding them equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from clipdrift.analysis.curves import Curve
from clipdrift.analysis.intervals import percentile_cis
from clipdrift.analysis.matched_views import EQUAL_LR, MIN_SEEDS, N_RESAMPLES
from clipdrift.analysis.method_curves import VIEWS, MethodCurves, View
from clipdrift.analysis.ranks import Floats
from clipdrift.analysis.signals import LOG_LR, VAL_ACCURACY, matched_runs, outcome_columns, parts

OWN_BEST = "own_best_rate"
TEST_ACCURACY = "test_accuracy"
# Two methods are compared whole by the paired tests and the matched views.
MIN_METHODS = 3


class Standing(NamedTuple):
    """What each method comes to in a view: (n_methods, n_metrics, n_draws), NaN where nothing."""

    view: str
    at: float | None
    values: Floats
    reasons: dict[str, str]


def rows(
    frame: pd.DataFrame,
    *,
    underfit_fraction: float,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Three or more matched methods of a backbone and target, ranked in four views.

    `equal_learning_rate`: the mean over the rates that all methods share of their cell means.
    `own_best_rate`: the cell with the method's best mean validation accuracy (the lower rate of
    equal ones), chosen anew in each resample. `equal_val_accuracy`: the method's curve
    (`matched_views.rows`) at `underfit_fraction` of the best cell's validation accuracy.
    `equal_weight_drift`: the curve where the weights have moved as far as those of the median
    method at its own best rate. Nothing is extrapolated: a method whose curve does not reach the
    place has no rank, and a reason.

    Ranked are test accuracy (not at equal validation accuracy, where it is what is held equal) and
    retention on each transfer dataset. Rank 1 is the highest value; equal values share the better
    rank.

    Args:
        frame: one row per finished run.
        underfit_fraction: share of the target's best accuracy under which a cell underfits.
        n_resamples, seed: of the bootstrap over seeds, the same draws for all methods.
        level: coverage.

    Returns:
        One dict per backbone, target, view, metric and method: `backbone, target, view, at, metric,
        method, value, ci_low, ci_high, rank, rank_low, rank_high, n_ranked, lr,
        n_seeds, n_resamples, seed, reason`. `lr` is where the method gets there
        (interpolated in the curve views, null at equal rates). Intervals of value and rank over
        the resamples in which the method has a value.
    """
    out = []
    for key, metrics, methods in _targets(frame, n_resamples, seed):
        for standing in _standings(methods, metrics, underfit_fraction):
            for row in _ranked(standing, metrics, methods, level):
                out.append({**key, **row})
    return out


def agreement(ranking: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far every two views rank the same methods alike.

    Args:
        ranking: what `rows` returned.

    Returns:
        One dict per backbone, target, metric and pair of views: `backbone, target, metric, view_a,
        view_b, n_methods (ranked in both), kendall_tau (tau-b), p, best_a, best_b, reason`.
    """
    table: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for row in ranking:
        views = table.setdefault((row["backbone"], row["target"], row["metric"]), {})
        views.setdefault(row["view"], {})
        if row["rank"] is not None:
            views[row["view"]][row["method"]] = row["value"]
    return [
        {
            "backbone": backbone,
            "target": target,
            "metric": metric,
            "view_a": a,
            "view_b": b,
            **_alike(views[a], views[b]),
        }
        for (backbone, target, metric), views in table.items()
        for a, b in combinations(views, 2)
    ]


def _alike(a: dict[str, float], b: dict[str, float]) -> dict[str, Any]:
    both = sorted(set(a) & set(b))
    found: dict[str, Any] = {
        "n_methods": len(both),
        "kendall_tau": None,
        "p": None,
        "best_a": max(both, key=a.__getitem__, default=None),
        "best_b": max(both, key=b.__getitem__, default=None),
        "reason": None,
    }
    if len(both) < MIN_METHODS:
        return {**found, "reason": f"{len(both)} methods have a rank in both views"}
    result = kendalltau([a[name] for name in both], [b[name] for name in both])
    if not np.isfinite(result.statistic):
        return {**found, "reason": "all methods have one value in a view"}
    return {**found, "kendall_tau": float(result.statistic), "p": float(result.pvalue)}


def _targets(
    frame: pd.DataFrame, n_resamples: int, seed: int
) -> Iterator[tuple[dict[str, str], list[str], MethodCurves]]:
    runs = matched_runs(frame)
    for (backbone, target), part in parts(runs, "backbone", "target"):
        metrics = [TEST_ACCURACY] if TEST_ACCURACY in part else []
        metrics += outcome_columns(part)
        methods = MethodCurves(part, [*metrics, LOG_LR], n_resamples, seed)
        if len(methods.values) >= MIN_METHODS:
            yield {"backbone": backbone, "target": target}, metrics, methods


def _standings(
    methods: MethodCurves, metrics: list[str], underfit_fraction: float
) -> Iterator[Standing]:
    wanted = [methods.columns.index(name) for name in [*metrics, LOG_LR]]
    yield _at_equal_rates(methods, wanted)
    best = _at_best_rates(methods)
    if best is None:
        return
    yield Standing(OWN_BEST, None, np.stack([own[wanted] for own in best]), {})
    for view in VIEWS:
        if view.metric in methods.columns:
            held = np.array([own[methods.columns.index(view.metric), 0] for own in best])
            if np.isfinite(held).any():
                yield _along_curves(view, methods, wanted, held, underfit_fraction)


def _at_equal_rates(methods: MethodCurves, wanted: list[int]) -> Standing:
    means = methods.cell_means
    shared = set.intersection(*(set(rates) for rates in methods.rates.values()))
    places = {
        name: [i for i, rate in enumerate(rates) if rate in shared]
        for name, rates in methods.rates.items()
    }
    if not shared:
        nothing = np.full((len(means), len(wanted), methods.counts.shape[1]), np.nan)
        reasons = dict.fromkeys(means, "the methods share no learning rate")
        return Standing(EQUAL_LR, None, nothing, reasons)
    values = [means[name][places[name]].mean(axis=0)[wanted] for name in means]
    return Standing(EQUAL_LR, None, np.stack(values), {})


def _at_best_rates(methods: MethodCurves) -> list[Floats] | None:
    """Each method's columns where validation accuracy is best, (n_columns, n_draws)."""
    if VAL_ACCURACY not in methods.columns:
        return None
    at = methods.columns.index(VAL_ACCURACY)
    found = []
    for own in methods.cell_means.values():
        # NaN never wins; the first of equal rates is the lowest.
        best = np.where(np.isfinite(own[:, at]), own[:, at], -np.inf).argmax(axis=0)
        found.append(np.take_along_axis(own, best[None, None, :], axis=0)[0])
    return found


def _along_curves(
    view: View, methods: MethodCurves, wanted: list[int], held: Floats, underfit_fraction: float
) -> Standing:
    if view.in_log10:
        at = float(np.nanmedian(held))
        place = float(np.log10(at))
    else:
        at = place = underfit_fraction * float(np.nanmax(held))
    curves: dict[str, Curve] = {name: methods.curve(view, name) for name in methods.values}
    values = np.stack([curve.at(place)[wanted] for curve in curves.values()])
    reasons = {name: _why_not_there(curve, place) for name, curve in curves.items()}
    return Standing(view.name, at, values, reasons)


def _why_not_there(curve: Curve, place: float) -> str:
    span = curve.span(0)
    if span is None:
        return "its curve has fewer than two distinct values"
    if span[1] < place:
        return "its curve ends below: it nowhere reaches what is held equal"
    return "its curve begins above: it is beyond what is held equal at its lowest rate"


def _ranked(
    standing: Standing, metrics: list[str], methods: MethodCurves, level: float
) -> Iterator[dict[str, Any]]:
    """Rows of every metric that the view does not hold equal, methods in order of their rank."""
    rates = standing.values[:, -1]
    for i, metric in enumerate(metrics):
        if metric == TEST_ACCURACY and standing.view == VIEWS[0].name:
            continue
        values = standing.values[:, i]
        ranks = rankdata(-values, method="min", axis=0, nan_policy="omit")
        spread = percentile_cis(values[:, methods.inverse], level)
        moved = percentile_cis(ranks[:, methods.inverse], level)
        names = list(methods.values)
        for m in sorted(range(len(names)), key=lambda m: (np.isnan(ranks[m, 0]), ranks[m, 0])):
            row = _row(standing, metric, names[m], methods)
            row["n_ranked"] = int(np.isfinite(values[:, 0]).sum())
            if not np.isfinite(values[m, 0]):
                why = standing.reasons.get(names[m], "undefined in a cell")
                yield {**row, "reason": why}
                continue
            row |= {"value": float(values[m, 0]), "rank": int(ranks[m, 0])}
            if standing.view != EQUAL_LR:
                row["lr"] = float(10 ** rates[m, 0])
            if len(methods.seeds) < MIN_SEEDS:
                yield {**row, "reason": "one seed: no interval"}
                continue
            low, high = moved[m]
            row |= {"ci_low": spread[m].low, "ci_high": spread[m].high}
            yield {**row, "rank_low": low, "rank_high": high}


def _row(standing: Standing, metric: str, method: str, methods: MethodCurves) -> dict[str, Any]:
    empty = ["value", "ci_low", "ci_high", "rank", "rank_low", "rank_high", "n_ranked"]
    return {
        "view": standing.view,
        "at": standing.at,
        "metric": metric,
        "method": method,
        **dict.fromkeys([*empty, "lr"]),
        "n_seeds": len(methods.seeds),
        "n_resamples": methods.n_resamples,
        "seed": methods.seed,
        "reason": None,
    }


__all__ = ["OWN_BEST", "agreement", "rows"]
