"""How much of a method's difference in retention goes along with its difference in drift."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.rows import MethodA, OfTarget, Outcome, Reason, Said, key, sure
from clipdrift.analysis.statistics.cell_means import number
from clipdrift.analysis.statistics.columns import (
    LOG_LR,
    column,
    matched_runs,
    outcome_columns,
    parts,
)
from clipdrift.analysis.statistics.intervals import ROUNDING, delete_one, jackknife
from clipdrift.analysis.statistics.pairs import method_pairs
from clipdrift.analysis.statistics.ranks import Floats

# A residual sum of squares this small beside the total is rounding: the variable is explained.
EXPLAINED = 1e-10


@dataclass(frozen=True, kw_only=True)
class Mediation(OfTarget):
    """How much of a difference in retention goes along with a difference in drift.

    A description, not a cause: reads as mediation only if, given log10 learning rate, nothing
    unmeasured moves both drift and retention, drift precedes retention, effects are linear and the
    method does not change the slope of retention on drift. Intervals draw seeds; the images are
    these.

    mediator: what the difference goes along with
    n: runs with a value
    n_seeds: seeds: the sample
    total: method_b less method_a at equal learning rate
    indirect: the part of total along the mediator
    indirect_ci_low: t over seeds, one left out at a time
    direct: total less indirect
    direct_ci_low: 95 % interval of direct
    vanishing_rho: error correlation at which the indirect effect vanishes
    """

    table: ClassVar = "mediation"

    outcome: Outcome
    mediator: Annotated[str, key("Drift", "metric")]
    method_a: MethodA
    method_b: str
    n: Annotated[int, Said("count")]
    n_seeds: Annotated[int, Said("count")]
    total: Annotated[float | None, Said("difference", "Total")] = None
    indirect: Annotated[float | None, Said("difference", "Along drift")] = None
    indirect_ci_low: Annotated[float | None, sure("95 % CI", "difference", "indirect_ci_high")] = (
        None
    )
    indirect_ci_high: float | None = None
    direct: Annotated[float | None, Said("difference", "Remaining")] = None
    direct_ci_low: Annotated[float | None, Said("difference")] = None
    direct_ci_high: float | None = None
    vanishing_rho: Annotated[float | None, Said(head="Vanishes at")] = None
    reason: Reason = None


def rows(
    frame: pd.DataFrame,
    *,
    compare_with: Collection[str] | None = None,
) -> list[Mediation]:
    """Product-of-coefficients mediation method -> drift -> retention, per backbone and target.

    With M = 1 for `method_b` and 0 for `method_a`, over the runs at learning rates both have:
    drift = . + a M + . log10 lr, retention = . + c' M + b drift + . log10 lr, and
    retention = . + c M + . log10 lr. Indirect = a b, direct = c', total = c = a b + c' (exact for
    least squares). Intervals by leaving out one seed at a time, all its runs together, with t on
    one degree of freedom less than there are seeds; images are not drawn.

    Sensitivity: let rho be the correlation between the errors of the first two models, 0 if nothing
    unmeasured moves both. The indirect effect vanishes at rho = the correlation of drift and
    retention given M and log10 lr (`vanishing_rho`); near 0 it is fragile.

    Returns:
        One row per backbone, target, pair of methods, mediator (`drift.*`) and outcome, effects in
        percentage points of retention.

    Reference: Imai, Keele & Yamamoto (2010), Statistical Science 25(1), theorem 4, with the
        learning rate as covariate and without interaction.
    """
    out: list[Mediation] = []
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        drifts = sorted(name for name in runs.columns if name.startswith("drift."))
        for a, b in method_pairs(set(runs["method"]), compare_with):
            shared = _at_shared_rates(runs, a, b)
            names = {"backbone": backbone, "target": target, "method_a": a, "method_b": b}
            out += [
                _mediated(shared, names, outcome, drift)
                for outcome in outcome_columns(runs)
                for drift in drifts
            ]
    return out


def _at_shared_rates(runs: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    rates = [set(runs.loc[runs["method"] == name, "learning_rate"]) for name in (a, b)]
    kept = runs["method"].isin([a, b]) & runs["learning_rate"].isin(rates[0] & rates[1])
    return runs[kept].reset_index(drop=True)


def _mediated(runs: pd.DataFrame, names: dict[str, Any], outcome: str, mediator: str) -> Mediation:
    values = np.column_stack([column(runs, mediator), column(runs, outcome)])
    used = np.isfinite(values).all(axis=1)
    values, rates = values[used], column(runs, LOG_LR)[used]
    treated = (runs["method"] == names["method_b"]).to_numpy(dtype=np.float64)[used]
    seeds, codes = np.unique(runs["seed"].to_numpy()[used], return_inverse=True)
    varying = [rates - rates.mean()] if len(set(rates)) > 1 else []
    design = np.column_stack([np.ones(len(values)), treated, *varying])
    row = Mediation(**names, outcome=outcome, mediator=mediator, n=len(values), n_seeds=len(seeds))
    n, k = design.shape
    if n < k + 2 or np.linalg.matrix_rank(design) < k:
        return replace(row, reason=f"{n} runs of the two methods do not determine the model")
    draws = [paths(design[kept], values[kept]) for kept in (delete_one(len(seeds))[codes] > 0).T]
    total, indirect, direct, rho = np.array(draws).T
    if not np.isfinite(indirect[0]):
        explained = "mediator or outcome is determined by method and learning rate"
        return replace(row, total=number(total[0]), reason=explained)
    least = min(len(set(codes[treated == arm])) for arm in (0, 1))
    along, beside = (jackknife(one, least, abs(total[0])) for one in (indirect, direct))
    (low, high), (direct_low, direct_high) = along.interval(), beside.interval()
    return replace(
        row,
        total=float(total[0]),
        indirect=along.value,
        indirect_ci_low=low,
        indirect_ci_high=high,
        direct=beside.value,
        direct_ci_low=direct_low,
        direct_ci_high=direct_high,
        vanishing_rho=float(rho[0]),
        reason=along.reason or beside.reason,
    )


def paths(design: Floats, values: Floats) -> tuple[float, float, float, float]:
    """Total, indirect and direct effect, and the rho at which the indirect one vanishes.

    With e_D, e_Y the residuals of mediator and outcome on the design, b = <e_D, e_Y> / <e_D, e_D>
    (Frisch-Waugh), direct = total - a b, and vanishing rho = corr(e_D, e_Y).

    Args:
        design: (n, k); column 0 the intercept, column 1 the method.
        values: mediator and outcome, (n, 2).

    Returns:
        NaN where the runs do not determine the model, and but for the total where method and
        learning rate explain the mediator or the outcome.
    """
    slopes, _, rank, _ = np.linalg.lstsq(design, values)
    if rank < design.shape[1]:
        return (np.nan,) * 4
    a, total = slopes[1]
    left = values - design @ slopes
    (dd, dy), (_, yy) = left.T @ left / len(left)
    least = EXPLAINED * values.var(axis=0) + (ROUNDING * np.abs(values).max(axis=0)) ** 2
    if dd <= least[0] or yy <= least[1]:
        return total, np.nan, np.nan, np.nan
    indirect = a * dy / dd
    return total, indirect, total - indirect, min(1.0, max(-1.0, dy / np.sqrt(dd * yy)))
