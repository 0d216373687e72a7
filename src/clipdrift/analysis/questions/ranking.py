"""Methods ranked by what they keep and reach, by each way of holding them equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from clipdrift.analysis.questions.standings import (
    EQUAL_LR,
    MIN_METHODS,
    TEST_ACCURACY,
    Standing,
    standings,
)
from clipdrift.analysis.rows import Drawn, Method, Metric, OfTarget, Reason, Said
from clipdrift.analysis.statistics.columns import LOG_LR, matched_runs, outcome_columns, parts
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.curve_images import CurveImages, ImageSet, with_images
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import LEVEL, jackknife
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves
from clipdrift.analysis.statistics.ranks import Floats

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
        for standing in standings(methods, known, metrics, underfit_fraction):
            out += _ranked(place, standing, metrics, methods)
    return out


def _targets(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], list[str], MethodCurves]]:
    runs = matched_runs(frame)
    for (backbone, target), part in parts(runs, "backbone", "target"):
        metrics = [TEST_ACCURACY] if TEST_ACCURACY in part else []
        metrics += outcome_columns(part)
        methods = MethodCurves(part, [*metrics, LOG_LR])
        if len(methods.values) >= MIN_METHODS:
            yield (backbone, target), metrics, methods


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
