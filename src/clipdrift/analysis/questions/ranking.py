"""Methods ranked by what they keep and reach, by each way of holding them equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from clipdrift.analysis.rows import Drawn, Method, Metric, OfTarget, Reason, Said, key, sure
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
from clipdrift.analysis.statistics.intervals import LEVEL, jackknife
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves, View
from clipdrift.analysis.statistics.ranks import Floats

EQUAL_LR, OWN_BEST = "equal_learning_rate", "own_best_rate"
TEST_ACCURACY = "test_accuracy"
# Two methods are compared whole by the paired tests and the matched views.
MIN_METHODS = 3
MIN_SEEDS = 2


@dataclass(frozen=True, kw_only=True)
class Ranked(OfTarget):
    """Three or more matched methods, ranked.

    At equal learning rate, at their own best rate, at equal validation accuracy and at equal weight
    movement.

    view: equal_learning_rate, own_best_rate, equal_val_accuracy or equal_weight_drift
    at: what is held equal in the two curve views, in its unit
    value: where the method gets to
    rank: 1 is the highest value
    rank_low: first and last rank that paired t tests against each other method leave open; at least
        95 % of studies
    interval_over: what these tests draw
    n_ranked: methods with a rank
    learning_rate: where the method gets there; null at equal rates
    n_seeds: seeds: the sample
    """

    table: ClassVar = "ranking"

    view: Annotated[str, Said("view")]
    at: Annotated[float | None, Said("held")]
    metric: Metric
    method: Method
    value: Annotated[float | None, Said("value")] = None
    rank: Annotated[int | None, Said("count")] = None
    rank_low: Annotated[int | None, Said("count", upto="rank_high")] = None
    rank_high: int | None = None
    interval_over: Drawn = None
    n_ranked: Annotated[int, Said("count")]
    learning_rate: Annotated[float | None, Said("rate")] = None
    n_seeds: Annotated[int, Said("count")]
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class RankingAgreement(OfTarget):
    """How far two ways of ranking order the same methods alike.

    view_a: as `view` of `ranking`
    view_b: as `view` of `ranking`
    n_methods: ranked in both views
    kendall_tau: Kendall's tau-b: 1 the same order, 0 none, -1 reversed
    p: of no relation between the two orders
    best_a: highest of these methods in view_a
    best_b: highest of these methods in view_b
    """

    table: ClassVar = "ranking_agreement"

    metric: Metric
    view_a: Annotated[str, key("View", "view")]
    view_b: Annotated[str, key("Other view", "view")]
    n_methods: Annotated[int, Said("count", "Methods")]
    kendall_tau: Annotated[float | None, Said("two", "τ")] = None
    p: Annotated[float | None, sure("p", "p")] = None
    best_a: Annotated[str | None, Said("name", "First in view")]
    best_b: Annotated[str | None, Said("name", "First in other view")]
    reason: Reason = None


class Standing(NamedTuple):
    """What each method comes to in a view: (n_methods, n_metrics, n_draws), NaN where nothing.

    seeds (n_methods, n_metrics): behind the least covered of the cells that it is made of. images:
    by metric, those behind the difference of two methods that have a value. rates: where each
    method gets there, NaN where that is no rate.
    """

    view: str
    at: float | None
    values: Floats
    seeds: NDArray[np.intp]
    images: Callable[[tuple[str, str], list[str]], dict[str, list[ImageSet]]]
    rates: list[float]
    reasons: dict[str, str]


def rows(
    frame: pd.DataFrame,
    *,
    underfit_fraction: float,
    images: Images | None = None,
) -> list[Ranked]:
    """Three or more matched methods of a backbone and target, ranked in four views.

    `equal_learning_rate`: the mean over the rates that all methods share of their cell means.
    `own_best_rate`: the cell with the method's best mean validation accuracy (the lower rate of
    equal ones). `equal_val_accuracy`: the method's curve (`matched_views.rows`) at
    `underfit_fraction` of the best cell's validation accuracy. `equal_weight_drift`: the curve
    where the weights have moved as far as those of the median method at its own best rate. Nothing
    is extrapolated: a method whose curve does not reach the place has no rank, and a reason.

    Ranked are test accuracy (not at equal validation accuracy, where it is what is held equal) and
    retention on each transfer dataset. Rank 1 is the highest value; equal values share the better
    rank.

    How sure: each two methods are compared by a paired t test over seeds (by leaving out one at a
    time, in both methods) at level 1 - 0.05 / (n_ranked - 1). Where single images are known, what
    drawing images adds widens it (`curve_images`); `interval_over` says so. From `rank_low` = 1 +
    methods surely above to `rank_high` = n_ranked - methods surely below are the ranks left open:
    they hold the true one in at least 95 % of studies, in most of them in more (Bonferroni).

    Returns:
        One row per backbone, target, view, metric and method.

    Reference: Mogstad, Romano, Shaikh & Wilhelm (2024), Review of Economic Studies 91(1), for
        ranks from simultaneous pairwise intervals.
    """
    out: list[Ranked] = []
    for place, metrics, methods in _targets(frame):
        known = CurveImages(methods, images or Images())
        for standing in _standings(methods, known, metrics, underfit_fraction):
            out += _ranked(place, standing, metrics, methods)
    return out


def agreement(ranking: list[Ranked]) -> list[RankingAgreement]:
    """How far every two views rank the same methods alike.

    Args:
        ranking: what `rows` returned.

    Returns:
        One row per backbone, target, metric and pair of views.
    """
    table: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for row in ranking:
        views = table.setdefault((row.backbone, row.target, row.metric), {})
        views.setdefault(row.view, {})
        if row.rank is not None and row.value is not None:
            views[row.view][row.method] = row.value
    return [
        _alike(*place, view_a, view_b, views)
        for place, views in table.items()
        for view_a, view_b in combinations(views, 2)
    ]


def _alike(
    backbone: str,
    target: str,
    metric: str,
    view_a: str,
    view_b: str,
    views: dict[str, dict[str, float]],
) -> RankingAgreement:
    a, b = views[view_a], views[view_b]
    both = sorted(set(a) & set(b))
    found = RankingAgreement(
        backbone=backbone,
        target=target,
        metric=metric,
        view_a=view_a,
        view_b=view_b,
        n_methods=len(both),
        best_a=max(both, key=a.__getitem__, default=None),
        best_b=max(both, key=b.__getitem__, default=None),
    )
    if len(both) < MIN_METHODS:
        return replace(found, reason=f"{len(both)} methods have a rank in both views")
    result = kendalltau([a[name] for name in both], [b[name] for name in both])
    if not np.isfinite(result.statistic):
        return replace(found, reason="all methods have one value in a view")
    return replace(found, kendall_tau=float(result.statistic), p=float(result.pvalue))


def _targets(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], list[str], MethodCurves]]:
    runs = matched_runs(frame)
    for (backbone, target), part in parts(runs, "backbone", "target"):
        metrics = [TEST_ACCURACY] if TEST_ACCURACY in part else []
        metrics += outcome_columns(part)
        methods = MethodCurves(part, [*metrics, LOG_LR])
        if len(methods.values) >= MIN_METHODS:
            yield (backbone, target), metrics, methods


def _standings(
    methods: MethodCurves, images: CurveImages, metrics: list[str], underfit_fraction: float
) -> Iterator[Standing]:
    wanted = [methods.columns.index(name) for name in [*metrics, LOG_LR]]
    least = {name: methods.least_seeds(name) for name in methods.values}
    seeds = np.stack([least[name][wanted] for name in methods.values])
    yield _at_equal_rates(methods, images, wanted, seeds)
    best = _best_rates(methods)
    if best is None:
        return
    own = [methods.cell_means[name][at] for name, at in best.items()]
    there = [np.isfinite(methods.values[name][at]).sum(axis=0) for name, at in best.items()]
    values, counts = (np.stack([one[wanted] for one in found]) for found in (own, there))
    one = {name: np.eye(len(methods.rates[name]))[at] for name, at in best.items()}
    rates = [methods.rates[name][at] for name, at in best.items()]
    yield Standing(OWN_BEST, None, values, counts, partial(images.of_cells, one), rates, {})
    for view in VIEWS:
        if view.metric in methods.columns:
            column = methods.columns.index(view.metric)
            held = np.array([values[column, 0] for values in own])
            behind = np.array([least[name][column] for name in methods.values])
            if np.isfinite(held).any():
                fewest = np.minimum(seeds, behind[:, None])
                place = _place(view, held, underfit_fraction)
                yield _along_curves(view, place, methods, images, wanted, fewest)


def _at_equal_rates(
    methods: MethodCurves, images: CurveImages, wanted: list[int], seeds: NDArray[np.intp]
) -> Standing:
    means = methods.cell_means
    shared = set.intersection(*(set(rates) for rates in methods.rates.values()))
    unknown = [np.nan] * len(means)
    share = {
        name: np.array([rate in shared for rate in rates]) / max(1, len(shared))
        for name, rates in methods.rates.items()
    }
    known = partial(images.of_cells, share)
    if not shared:
        nothing = np.full((len(means), len(wanted), methods.counts.shape[1]), np.nan)
        reasons = dict.fromkeys(means, "the methods share no learning rate")
        return Standing(EQUAL_LR, None, nothing, seeds, known, unknown, reasons)
    values = [means[name][share[name] > 0].mean(axis=0)[wanted] for name in means]
    return Standing(EQUAL_LR, None, np.stack(values), seeds, known, unknown, {})


def _best_rates(methods: MethodCurves) -> dict[str, int] | None:
    """Method -> index of its rate with the best mean validation accuracy."""
    if VAL_ACCURACY not in methods.columns:
        return None
    at = methods.columns.index(VAL_ACCURACY)
    # NaN never wins; the first of equal rates is the lowest.
    means = {name: own[:, at, 0] for name, own in methods.cell_means.items()}
    return {
        name: int(np.where(np.isfinite(own), own, -np.inf).argmax()) for name, own in means.items()
    }


def _place(view: View, held: Floats, underfit_fraction: float) -> float:
    """What is held equal in a view, in its unit: held are the methods' at their own best rates."""
    if view.in_log10:
        return float(np.nanmedian(held))
    return underfit_fraction * float(np.nanmax(held))


def _along_curves(
    view: View,
    at: float,
    methods: MethodCurves,
    images: CurveImages,
    wanted: list[int],
    seeds: NDArray[np.intp],
) -> Standing:
    place = float(np.log10(at)) if view.in_log10 else at
    curves: dict[str, Curve] = {name: methods.curve(view, name) for name in methods.values}
    values = np.stack([curve.at(place)[wanted] for curve in curves.values()])
    reasons = {name: _why_not_there(curve, place) for name, curve in curves.items()}
    known = partial(images.behind, view, place)
    rates = (10 ** values[:, -1, 0]).tolist()
    return Standing(view.name, at, values, seeds, known, rates, reasons)


def _why_not_there(curve: Curve, place: float) -> str:
    span = curve.span(0)
    if span is None:
        return "its curve has fewer than two distinct values"
    if span[1] < place:
        return "its curve ends below: it nowhere reaches what is held equal"
    return "its curve begins above: it is beyond what is held equal at its lowest rate"


def _ranked(
    place: tuple[str, str],
    standing: Standing,
    metrics: list[str],
    methods: MethodCurves,
) -> Iterator[Ranked]:
    """Rows of every metric that the view does not hold equal, methods in order of their rank."""
    names = list(methods.values)
    wanted = [m for m in metrics if m != TEST_ACCURACY or standing.view != VIEWS[0].name]
    known = cache(lambda a, b: standing.images((names[a], names[b]), wanted))
    for metric in wanted:
        i = metrics.index(metric)
        values = standing.values[:, i]
        ranks = rankdata(-values[:, 0], method="min", nan_policy="omit")
        drawn = {pair: known(*pair).get(metric, []) for pair in _both_there(values)}
        ends = _ranks_left_open(values, standing.seeds[:, i], drawn)
        over: Drawn = SEEDS_AND_IMAGES if drawn and all(drawn.values()) else SEEDS
        for m in sorted(range(len(names)), key=lambda m: (np.isnan(ranks[m]), ranks[m])):
            row = Ranked(
                backbone=place[0],
                target=place[1],
                view=standing.view,
                at=standing.at,
                metric=metric,
                method=names[m],
                n_ranked=int(np.isfinite(values[:, 0]).sum()),
                n_seeds=len(methods.seeds),
            )
            if not np.isfinite(values[m, 0]):
                yield replace(row, reason=standing.reasons.get(names[m], "undefined in a cell"))
                continue
            rate = None if standing.view == EQUAL_LR else standing.rates[m]
            row = replace(row, value=float(values[m, 0]), rank=int(ranks[m]), learning_rate=rate)
            if len(methods.seeds) < MIN_SEEDS:
                yield replace(row, reason="one seed: nothing says how sure the rank is")
            else:
                low, high = ends[m]
                yield replace(row, rank_low=low, rank_high=high, interval_over=over)


def _both_there(values: Floats) -> Iterator[tuple[int, int]]:
    """Pairs of methods that have a value."""
    return combinations(np.flatnonzero(np.isfinite(values[:, 0])).tolist(), 2)


def _ranks_left_open(
    values: Floats,
    seeds: NDArray[np.intp],
    drawn: dict[tuple[int, int], list[ImageSet]],
) -> list[tuple[int, int]]:
    """First and last rank of each method: values (n_methods, n_draws), seeds (n_methods,)."""
    n_ranked = int(np.isfinite(values[:, 0]).sum())
    each = 1 - (1 - LEVEL) / max(1, n_ranked - 1)
    above, below = np.zeros(len(values), dtype=int), np.zeros(len(values), dtype=int)
    for (a, b), images in drawn.items():
        scale = float(np.abs(values[[a, b], 0]).max())
        test = jackknife(values[a] - values[b], int(min(seeds[a], seeds[b])), scale)
        low, high = with_images(test.interval(each), images, each)
        if low is not None and high is not None and not low <= 0 <= high:
            first, second = (a, b) if low > 0 else (b, a)
            below[first] += 1
            above[second] += 1
    return [(1 + int(up), n_ranked - int(down)) for up, down in zip(above, below, strict=True)]
