"""What this design could have detected, and how many seeds a smaller difference would need."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

from clipdrift.analysis.pairs import MatchedRuns, matched_pairs
from clipdrift.analysis.ranks import Floats
from clipdrift.analysis.signals import column, outcome_columns

ALPHA = 0.05
POWER = 0.8
POINTS = (1, 2, 5)
MAX_SEEDS = 10_000


class Design(NamedTuple):
    """Paired differences at some learning rates: seeds per rate, and their SD within rates."""

    seeds_per_rate: tuple[int, ...]
    sd: float

    @property
    def df(self) -> int:
        return sum(self.seeds_per_rate) - len(self.seeds_per_rate)

    @property
    def standard_error(self) -> float:
        """Of the mean over rates of the mean difference at each rate."""
        inverse = sum(1 / n for n in self.seeds_per_rate)
        return self.sd * float(np.sqrt(inverse)) / len(self.seeds_per_rate)


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    alpha: float = ALPHA,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Smallest detectable difference and seeds needed, from the seed variance of matched pairs.

    A pair is two matched runs at the same backbone, target, learning rate and seed. Scope "per_lr"
    is the two-sided paired t test at one rate. Scope "pooled" is the test of the mean difference
    over the grid with the rates as they are and the seeds as the replicates: variance pooled
    within rates on sum(n_l - 1) degrees of freedom, so that a difference which changes with the
    rate does not pass for noise. Power is exact, from the noncentral t; it takes the observed SD
    for the true one, which few seeds estimate roughly.

    Args:
        frame: one row per finished run.
        metrics: default test accuracy, retention and every `drift.*`.
        alpha: two-sided level.
        varied: factors whose fingerprints may differ between matched runs.
        compare_with: methods of which every pair holds one; default every pair.

    Returns:
        One dict per backbone, target, metric, pair of methods and rate, and pooled: `backbone,
        target, metric, method_a, method_b, scope, lr, n_pairs, n_rates, sd_diff, alpha, power,
        detectable_diff, detectable_pp, seeds_for_1pp, seeds_for_2pp, seeds_for_5pp, t_floor,
        wilcoxon_floor, reason`. `sd_diff` and `detectable_diff` in the metric's unit,
        `detectable_pp` in percentage points (null for metrics that have none). Seeds are per rate.
        `t_floor` is null: the t test has no smallest p; an exact two-sided Wilcoxon cannot go
        below 2^(1-n) with n pairs.

    Reference: Cohen (1988), section 2.2; Johnson, Kotz & Balakrishnan (1995), chapter 31.
    """
    drifts = sorted(name for name in map(str, frame.columns) if name.startswith("drift."))
    default = [name for name in ("test_accuracy",) if name in frame]
    wanted = [*default, *outcome_columns(frame), *drifts] if metrics is None else metrics
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        key = {"backbone": pairs.backbone, "target": pairs.target}
        methods = {"method_a": pairs.method_a, "method_b": pairs.method_b}
        by_rate = _differences(pairs, wanted)
        for i, metric in enumerate(wanted):
            pair = {**key, "metric": metric, **methods}
            out += [{**pair, **row} for row in _pair(by_rate, i, metric, alpha)]
    return out


def _differences(pairs: MatchedRuns, metrics: list[str]) -> dict[float, Floats]:
    """Learning rate -> differences a - b of matched runs, (n_pairs, n_metrics)."""
    values = np.column_stack([column(pairs.runs, name) for name in metrics])
    gaps = values[pairs.first] - values[pairs.second]
    return {rate: gaps[pairs.lr == rate] for rate in sorted(set(pairs.lr.tolist()))}


def _pair(
    by_rate: dict[float, Floats], metric_index: int, metric: str, alpha: float
) -> Iterator[dict[str, Any]]:
    defined = {}
    for rate, gaps in by_rate.items():
        values = gaps[:, metric_index]
        defined[rate] = values[np.isfinite(values)]
        yield _row("per_lr", rate, metric, [defined[rate]], alpha)
    yield _row("pooled", None, metric, list(defined.values()), alpha)


def _row(
    scope: str, rate: float | None, metric: str, gaps: list[Floats], alpha: float
) -> dict[str, Any]:
    gaps = [values for values in gaps if values.size]
    n_pairs = sum(values.size for values in gaps)
    row = {
        "scope": scope,
        "lr": rate,
        "n_pairs": n_pairs,
        "n_rates": len(gaps),
        "sd_diff": None,
        "alpha": alpha,
        "power": POWER,
        "detectable_diff": None,
        "detectable_pp": None,
        **{f"seeds_for_{points}pp": None for points in POINTS},
        "t_floor": None,
        "wilcoxon_floor": min(1.0, 2.0 ** (1 - n_pairs)) if n_pairs else None,
        "reason": None,
    }
    df = n_pairs - len(gaps)
    if df < 1:
        reason = "one pair per learning rate: no seed variance" if n_pairs else "no matched pairs"
        return {**row, "reason": reason}
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in gaps)
    sd = float(np.sqrt(squares / df))
    largest = max(float(np.abs(values).max()) for values in gaps)
    if sd <= 1e-12 * largest:
        return {**row, "sd_diff": 0.0, "reason": "the differences do not vary between seeds"}
    design = Design(tuple(values.size for values in gaps), sd)
    detectable = detectable_difference(design, alpha)
    point = point_size(metric)
    if point is None:
        return {**row, "sd_diff": sd, "detectable_diff": detectable}
    seeds = {
        f"seeds_for_{points}pp": seeds_needed(points * point, sd, len(gaps), alpha)
        for points in POINTS
    }
    beyond = any(found is None for found in seeds.values())
    return {
        **row,
        "sd_diff": sd,
        "detectable_diff": detectable,
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


def detectable_difference(design: Design, alpha: float = ALPHA) -> float:
    """Smallest true difference found with 80 % power, in the unit of the SD."""
    return needed_noncentrality(design.df, alpha) * design.standard_error


def seeds_needed(difference: float, sd: float, n_rates: int, alpha: float = ALPHA) -> int | None:
    """Fewest seeds per learning rate that detect a difference with 80 % power.

    Args:
        difference: to be found, above 0, in the unit of `sd`.
        sd: of the paired differences within a learning rate, above 0.
        n_rates: learning rates over which the difference is averaged.

    Returns:
        2 or more; None if it is above `MAX_SEEDS`.

    >>> seeds_needed(1.0, 1.0, n_rates=1)
    10
    """

    def enough(seeds: int) -> bool:
        return detectable_difference(Design((seeds,) * n_rates, sd), alpha) <= difference

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
    "Design",
    "detectable_difference",
    "needed_noncentrality",
    "point_size",
    "power_of_t",
    "rows",
    "seeds_needed",
]
