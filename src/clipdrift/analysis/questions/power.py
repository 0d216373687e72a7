"""What this design could have detected, and how many seeds a smaller difference would need."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

from clipdrift.analysis.statistics.columns import outcome_columns
from clipdrift.analysis.statistics.differences import GRID_MEAN, PER_LR, Differences, Gaps
from clipdrift.analysis.statistics.pairs import matched_pairs

ALPHA = 0.05
POWER = 0.8
POINTS = (1, 2, 5)
MAX_SEEDS = 10_000


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    alpha: float = ALPHA,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Smallest detectable difference and seeds needed, from the seed variance of matched pairs.

    The two-sided paired t test over seeds: of scope "per_lr" at one rate, of "grid_mean" of each
    seed's mean difference over the grid (`Differences`). Power is exact, from the noncentral t; it
    takes the observed SD for the true one, which few seeds estimate roughly.

    Args:
        frame: one row per finished run.
        metrics: default test accuracy, retention and every `drift.*`.
        alpha: two-sided level.
        varied: factors whose fingerprints may differ between matched runs.
        compare_with: methods of which every pair holds one; default every pair.

    Returns:
        One dict per backbone, target, metric, pair of methods and scope: `backbone, target,
        metric, method_a, method_b, scope, lr, n_pairs, n_seeds, n_rates, sd_diff, alpha, power,
        detectable_diff, detectable_pp, seeds_for_1pp, seeds_for_2pp, seeds_for_5pp, t_floor,
        wilcoxon_floor, reason`. `sd_diff` and `detectable_diff` in the metric's unit,
        `detectable_pp` in percentage points (null for metrics that have none). `t_floor` is null:
        the t test has no smallest p; an exact two-sided Wilcoxon cannot go below 2^(1-n) with n
        seeds.

    Reference: Cohen (1988), section 2.2; Johnson, Kotz & Balakrishnan (1995), chapter 31.
    """
    drifts = sorted(name for name in map(str, frame.columns) if name.startswith("drift."))
    default = [name for name in ("test_accuracy",) if name in frame]
    wanted = [*default, *outcome_columns(frame), *drifts] if metrics is None else metrics
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        key = {"backbone": pairs.backbone, "target": pairs.target}
        methods = {"method_a": pairs.method_a, "method_b": pairs.method_b}
        differences = Differences(pairs, {})
        for metric in wanted:
            for gaps in differences.of(metric):
                if gaps.scope in (PER_LR, GRID_MEAN):
                    out.append({**key, "metric": metric, **methods, **_row(gaps, metric, alpha)})
    return out


def _row(gaps: Gaps, metric: str, alpha: float) -> dict[str, Any]:
    n = gaps.n_seeds
    row = {
        "scope": gaps.scope,
        "lr": gaps.lr,
        "n_pairs": gaps.n_pairs,
        "n_seeds": n,
        "n_rates": len(gaps.lrs),
        "sd_diff": None,
        "alpha": alpha,
        "power": POWER,
        "detectable_diff": None,
        "detectable_pp": None,
        **{f"seeds_for_{points}pp": None for points in POINTS},
        "t_floor": None,
        "wilcoxon_floor": 2.0 ** (1 - n) if n > 1 else None,
        "reason": gaps.untestable,
    }
    if gaps.untestable:
        return {**row, "sd_diff": 0.0 if n > 1 else None}
    sd = float(gaps.values.std(ddof=1))
    detectable = detectable_difference(n, sd, alpha)
    row |= {"sd_diff": sd, "detectable_diff": detectable}
    point = point_size(metric)
    if point is None:
        return row
    seeds = {f"seeds_for_{points}pp": seeds_needed(points * point, sd, alpha) for points in POINTS}
    beyond = any(found is None for found in seeds.values())
    return {
        **row,
        "detectable_pp": detectable / point,
        **seeds,
        "reason": f"more than {MAX_SEEDS} seeds needed" if beyond else None,
    }


def point_size(metric: str) -> float | None:
    """What one percentage point is in the metric's unit; None if it has no points.

    >>> point_size("test_accuracy"), point_size("transfer.cifar100.retention_pct")
    (0.01, 1.0)
    """
    if metric.endswith("accuracy"):
        return 0.01
    return 1.0 if metric.endswith(("_pct", "_pp")) else None


def power_of_t(noncentrality: float, df: int, alpha: float = ALPHA) -> float:
    """P(|T| > t_{1 - alpha/2, df}) for T noncentral t: power of the two-sided t test.

    >>> round(power_of_t(0.0, 4), 12)
    0.05
    """
    critical = stdtrit(df, 1 - alpha / 2)
    tails = nctdtr(df, noncentrality, [critical, -critical])
    # scipy returns NaN for some probabilities below 1e-15; they are nothing beside the power.
    below_upper, below_lower = np.nan_to_num(tails, nan=0.0)
    return float(1 - below_upper + below_lower)


@lru_cache(maxsize=4096)
def needed_noncentrality(df: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The noncentrality (difference / standard error) at which the power is reached.

    With many degrees of freedom it tends to z_{1 - alpha/2} + z_power = 2.80.

    >>> round(needed_noncentrality(10_000), 2)
    2.8
    """
    return float(brentq(lambda nc: power_of_t(nc, df, alpha) - power, 0.0, 200.0, xtol=1e-12))


def detectable_difference(n_seeds: int, sd: float, alpha: float = ALPHA) -> float:
    """Smallest true difference found with 80 % power, in the unit of the SD of differences."""
    return needed_noncentrality(n_seeds - 1, alpha) * sd / float(n_seeds**0.5)


def seeds_needed(difference: float, sd: float, alpha: float = ALPHA) -> int | None:
    """Fewest seeds that detect a difference with 80 % power.

    Args:
        difference: to be found, above 0, in the unit of `sd`.
        sd: of the paired differences over seeds, above 0.

    Returns:
        2 or more; None if it is above `MAX_SEEDS`.

    >>> seeds_needed(1.0, 1.0)
    10
    """

    def enough(seeds: int) -> bool:
        return detectable_difference(seeds, sd, alpha) <= difference

    if not enough(MAX_SEEDS):
        return None
    low, high = 1, 2
    while not enough(high):
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


__all__ = [
    "ALPHA",
    "POINTS",
    "POWER",
    "detectable_difference",
    "needed_noncentrality",
    "point_size",
    "power_of_t",
    "rows",
    "seeds_needed",
]
