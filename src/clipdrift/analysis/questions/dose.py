"""Does a metric rise or fall with the learning rate? Rank correlation per target and method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order, metric_columns
from clipdrift.analysis.rows import Count, Method, Metric, OfTarget, Reason, Said, sure
from clipdrift.analysis.statistics.columns import parts
from clipdrift.analysis.statistics.differences import Mask
from clipdrift.analysis.statistics.intervals import t_test
from clipdrift.analysis.statistics.method_curves import tensor
from clipdrift.analysis.statistics.ranks import MIN_POINTS, Floats, within_seeds


@dataclass(frozen=True, kw_only=True)
class DoseResponse(OfTarget):
    """Spearman correlation of every metric with learning rate within a seed, its mean over seeds.

    p and interval are Student's t over seeds, of these images.

    n_learning_rates: rates with a value
    n_seeds: seeds in which rho is defined
    spearman_rho: mean over seeds of rho within a seed, -1 to 1
    ci_low: t interval over seeds
    p: t test over seeds
    """

    table: ClassVar = "dose_response"

    role: str
    method: Method
    metric: Metric
    n: Count
    n_learning_rates: Annotated[int, Said("count", "Rates")]
    n_seeds: Annotated[int, Said("count", "Seeds")]
    spearman_rho: Annotated[float | None, Said("two", "ρ")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "two", upto="ci_high")] = None
    ci_high: float | None = None
    p: Annotated[float | None, sure("p", "p")] = None
    reason: Reason = None


def rows(frame: pd.DataFrame) -> list[DoseResponse]:
    """Spearman correlation of every metric with learning rate within a seed, its mean over seeds.

    rho of a seed is over its runs at three rates or more; p and interval are Student's t over the
    seeds, of these images: they are not drawn. Where rho is the same in every seed, 1 or -1 nearly
    always, there is neither.

    Returns:
        One row per backbone, target, method and metric.

    Reference: Spearman (1904), American Journal of Psychology 15(1); Student (1908).
    """
    out = []
    for (backbone, target, role, method), part in parts(
        in_order(frame), "backbone", "target", "role", "method"
    ):
        metrics = metric_columns(part)
        rates, seeds = (sorted(set(part[name])) for name in ("learning_rate", "seed"))
        values = tensor(part, rates, seeds, metrics)
        rhos = within_seeds(np.log10(rates), values)
        for i, metric in enumerate(metrics):
            there, used = np.isfinite(values[:, :, i]), rhos[np.isfinite(rhos[:, i]), i]
            row = DoseResponse(
                backbone=backbone,
                target=target,
                role=role,
                method=method,
                metric=metric,
                n=int(there.sum()),
                n_learning_rates=int(there.any(axis=1).sum()),
                n_seeds=int(used.size),
            )
            out.append(_tested(row, there, used))
    return out


def _tested(row: DoseResponse, there: Mask, used: Floats) -> DoseResponse:
    """there (n_rates, n_seeds) of one metric, used: rho of the seeds that have one."""
    if not used.size:
        most = int(there.sum(axis=0).max(initial=0))
        few = f"{most} learning rates in a seed, at least {MIN_POINTS} needed"
        reason = few if most < MIN_POINTS else "metric does not vary within a seed"
        return replace(row, reason=reason)
    test = t_test(used)
    low, high = test.interval()
    if low is not None and high is not None:
        low, high = max(low, -1.0), min(high, 1.0)
    return replace(
        row, spearman_rho=test.value, p=test.p, ci_low=low, ci_high=high, reason=test.reason
    )
