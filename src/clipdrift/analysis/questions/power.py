"""What this design could have detected, and how many seeds a smaller difference would need."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

from clipdrift.analysis.rows import OfPair, Over, Reason, Said, sure
from clipdrift.analysis.statistics.columns import outcome_columns
from clipdrift.analysis.statistics.differences import GRID_MEAN, PER_LR, Differences, Gaps
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import matched_pairs

ALPHA = 0.05
POWER = 0.8
POINTS = (1, 2, 5)
MAX_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Power(OfPair):
    """The smallest difference the design detects and the seeds other differences need.

    Two-sided at 5 %, found in 80 % of studies that draw seeds, and images where these are known.

    n_pairs: matched pairs of runs
    sd_diff: over seeds, ddof 1
    shared_se: what of the error of the mean difference comes from images, at any number of seeds
    detectable_diff: smallest true difference found in 80 % of studies
    seeds_for_1pp: seeds that find 1 percentage point
    seeds_for_2pp: as before
    seeds_for_5pp: as before
    wilcoxon_floor: 2 * 0.5^n_seeds: the least p an exact two-sided signed-rank test can reach
    """

    table: ClassVar = "power"

    learning_rate: Over
    n_pairs: Annotated[int, Said("count")]
    n_seeds: Annotated[int, Said("count", "Seeds", "the sample")]
    sd_diff: Annotated[float | None, sure("SD of diff.", "size")] = None
    shared_se: Annotated[float | None, sure("From images", "size")] = None
    detectable_diff: Annotated[float | None, sure("Detectable", "size")] = None
    seeds_for_1pp: Annotated[int | None, sure("Seeds for 1 pp", "count")] = None
    seeds_for_2pp: Annotated[int | None, sure("for 2 pp", "count")] = None
    seeds_for_5pp: Annotated[int | None, sure("for 5 pp", "count")] = None
    wilcoxon_floor: Annotated[float | None, sure("p floor", "p")] = None
    reason: Reason = None


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    images: Images | None = None,
) -> list[Power]:
    """Smallest detectable difference and seeds needed, from the seed variance of matched pairs.

    The tests of `paired`: of scope "per_lr" at one rate, of "grid_mean" of each seed's mean
    difference over the grid (`Differences`). Over seeds alone power is exact, from the noncentral
    t; with images the detectable difference is the root of the squares of what each sample alone
    detects, and is found in 80 to 82 % of studies. The observed errors are taken for the true ones,
    which few seeds estimate roughly. More seeds do not make up for few images.

    Args:
        metrics: default test accuracy, retention and every `drift.*`.

    Returns:
        One row per backbone, target, metric, pair of methods and scope.

    Reference: Cohen (1988), section 2.2; Johnson, Kotz & Balakrishnan (1995), chapter 31.
    """
    drifts = sorted(name for name in map(str, frame.columns) if name.startswith("drift."))
    default = [name for name in ("test_accuracy",) if name in frame]
    wanted = [*default, *outcome_columns(frame), *drifts] if metrics is None else metrics
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        differences = Differences(pairs, {}, images)
        for metric in wanted:
            for gaps in differences.of(metric):
                if gaps.scope in (PER_LR, GRID_MEAN):
                    n = gaps.n_seeds
                    row = Power(
                        **pairs.names,
                        **gaps.fields,
                        metric=metric,
                        wilcoxon_floor=2.0 ** (1 - n) if n > 1 else None,
                    )
                    out.append(_detectable(row, gaps))
    return out


def _detectable(row: Power, gaps: Gaps) -> Power:
    if gaps.untestable:
        return replace(row, sd_diff=0.0 if row.n_seeds > 1 else None, reason=gaps.untestable)
    sd = float(gaps.values.std(ddof=1))
    error = gaps.error
    shared = (error.shared_se, error.n_images)
    detectable = detectable_difference(row.n_seeds, sd, *shared)
    known = error.shared_se if gaps.images else None
    row = replace(row, sd_diff=sd, shared_se=known, detectable_diff=detectable)
    point = point_size(row.metric)
    if point is None:
        return row
    one, two, five = (seeds_needed(points * point, sd, *shared) for points in POINTS)
    beyond = None
    if None in (one, two, five):
        beyond = f"more than {MAX_SEEDS} seeds needed"
        if from_images(*shared) > POINTS[0] * point:
            beyond = f"no number of seeds makes up for {error.n_images} images"
    return replace(row, seeds_for_1pp=one, seeds_for_2pp=two, seeds_for_5pp=five, reason=beyond)


def point_size(metric: str) -> float | None:
    """What one percentage point is in the metric's unit; None if it has no points.

    >>> point_size("test_accuracy"), point_size("transfer.cifar100.retention_pct")
    (0.01, 1.0)
    """
    if metric.endswith(("accuracy", "mean_recall")):
        return 0.01
    return 1.0 if metric.endswith(("_pct", "_pp")) else None


def power_of_t(noncentrality: float, df: int) -> float:
    """P(|T| > t_{1 - alpha/2, df}) for T noncentral t: power of the two-sided t test.

    >>> round(power_of_t(0.0, 4), 12)
    0.05
    """
    critical = stdtrit(df, 1 - ALPHA / 2)
    tails = nctdtr(df, noncentrality, [critical, -critical])
    # scipy returns NaN for some probabilities below 1e-15; they are nothing beside the power.
    below_upper, below_lower = np.nan_to_num(tails, nan=0.0)
    return float(1 - below_upper + below_lower)


@lru_cache(maxsize=4096)
def needed_noncentrality(df: int) -> float:
    """The noncentrality (difference / standard error) at which the power is reached.

    With many degrees of freedom it tends to z_{1 - alpha/2} + z_power = 2.80.

    >>> round(needed_noncentrality(10_000), 2)
    2.8
    """
    return float(brentq(lambda nc: power_of_t(nc, df) - POWER, 0.0, 200.0, xtol=1e-12))


def from_images(shared_se: float, n_images: int) -> float:
    """What images alone hide, whatever the number of seeds."""
    return needed_noncentrality(n_images - 1) * shared_se if shared_se else 0.0


def detectable_difference(
    n_seeds: int, sd: float, shared_se: float = 0.0, n_images: int = 2
) -> float:
    """Smallest true difference found with 80 % power, in the unit of the SD of differences.

    Args:
        sd: of the paired differences over seeds.
        shared_se: what of the mean's error comes from the images, as `crossed` gives it.
    """
    seeds = needed_noncentrality(n_seeds - 1) * sd / float(n_seeds**0.5)
    return float(np.hypot(seeds, from_images(shared_se, n_images)))


def seeds_needed(
    difference: float, sd: float, shared_se: float = 0.0, n_images: int = 2
) -> int | None:
    """Fewest seeds that detect a difference with 80 % power.

    Args:
        difference: to be found, above 0, in the unit of `sd`.
        sd: of the paired differences over seeds, above 0.
        shared_se, n_images: as in `detectable_difference`.

    Returns:
        2 or more; None if it is above `MAX_SEEDS`.

    >>> seeds_needed(1.0, 1.0)
    10
    """

    def enough(seeds: int) -> bool:
        return detectable_difference(seeds, sd, shared_se, n_images) <= difference

    if not enough(MAX_SEEDS):
        return None
    low, high = 1, 2
    while not enough(high):
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
