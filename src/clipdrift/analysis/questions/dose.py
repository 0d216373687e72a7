"""Does a metric rise or fall with the learning rate? Rank correlation per target and method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order, metric_columns
from clipdrift.analysis.statistics.columns import parts
from clipdrift.analysis.statistics.crossed import SEEDS
from clipdrift.analysis.statistics.intervals import t_test
from clipdrift.analysis.statistics.method_curves import tensor
from clipdrift.analysis.statistics.ranks import MIN_POINTS, Floats, within_seeds


def rows(frame: pd.DataFrame, *, level: float = 0.95) -> list[dict[str, Any]]:
    """Spearman correlation of every metric with learning rate within a seed, its mean over seeds.

    rho of a seed is over its runs at three rates or more; p and interval are Student's t over the
    seeds, of these images: they are not drawn. Where rho is the same in every seed, 1 or -1 nearly
    always, there is neither.

    Args:
        frame: one row per finished run.
        level: coverage.

    Returns:
        One dict per backbone, target, method and metric: `backbone, target, role, method, metric,
        n, n_lrs, n_seeds (with a rho), spearman_rho, p, ci_low, ci_high, interval_over, reason`.

    Reference: Spearman (1904), American Journal of Psychology 15(1); Student (1908).
    """
    out = []
    for key, part in parts(in_order(frame), "backbone", "target", "role", "method"):
        head = dict(zip(("backbone", "target", "role", "method"), key, strict=True))
        metrics = metric_columns(part)
        rates, seeds = (sorted(set(part[name])) for name in ("learning_rate", "seed"))
        values = tensor(part, rates, seeds, metrics)
        rhos = within_seeds(np.log10(rates), values)
        for i, metric in enumerate(metrics):
            found = _row(values[:, :, i], rhos[:, i], level)
            out.append({**head, "metric": metric, **found})
    return out


def _row(values: Floats, rhos: Floats, level: float) -> dict[str, Any]:
    """values (n_rates, n_seeds) of one metric, rhos (n_seeds,)."""
    there = np.isfinite(values)
    used = rhos[np.isfinite(rhos)]
    row: dict[str, Any] = {
        "n": int(there.sum()),
        "n_lrs": int(there.any(axis=1).sum()),
        "n_seeds": int(used.size),
        **dict.fromkeys(["spearman_rho", "p", "ci_low", "ci_high", "interval_over", "reason"]),
    }
    if not used.size:
        most = int(there.sum(axis=0).max(initial=0))
        few = f"{most} learning rates in a seed, at least {MIN_POINTS} needed"
        reason = few if most < MIN_POINTS else "metric does not vary within a seed"
        return {**row, "reason": reason}
    test = t_test(used)
    low, high = test.interval(level)
    if low is not None and high is not None:
        low, high = max(low, -1.0), min(high, 1.0)
        row["interval_over"] = SEEDS
    tests = {"spearman_rho": test.value, "p": test.p, "ci_low": low, "ci_high": high}
    return {**row, **tests, "reason": test.reason}


__all__ = ["rows"]
