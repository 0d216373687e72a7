"""How much of a method's difference in retention goes along with its difference in drift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple

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
from clipdrift.analysis.statistics.intervals import delete_one, jackknife
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


class Effects(NamedTuple):
    """Effects of method_b against method_a: (n_mediators, n_draws), or (n_draws,) of one of them.

    `path_a` has the mediator's unit, `path_b` the outcome's per mediator, the others the outcome's.
    """

    path_a: Floats
    path_b: Floats
    direct: Floats
    total: Floats
    vanishing_rho: Floats

    @property
    def indirect(self) -> Floats:
        return self.path_a * self.path_b


def rows(
    frame: pd.DataFrame,
    *,
    compare_with: Collection[str] | None = None,
    level: float = 0.95,
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

    Args:
        frame: one row per finished run.
        compare_with: methods of which every pair holds one; default every pair.
        level: coverage.

    Returns:
        One row per backbone, target, pair of methods, mediator (`drift.*`) and outcome, effects in
        percentage points of retention.

    Reference: Imai, Keele & Yamamoto (2010), Statistical Science 25(1), theorem 4, with the
        learning rate as covariate and without interaction.
    """
    out: list[Mediation] = []
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        for a, b in method_pairs(set(runs["method"]), compare_with):
            out += _pair((backbone, target, a, b), _shared_rates(runs, a, b), level)
    return out


def _shared_rates(runs: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    rates = [set(runs.loc[runs["method"] == name, "learning_rate"]) for name in (a, b)]
    kept = runs["method"].isin([a, b]) & runs["learning_rate"].isin(rates[0] & rates[1])
    return runs[kept].reset_index(drop=True)


def _pair(
    place: tuple[str, str, str, str], runs: pd.DataFrame, level: float
) -> Iterator[Mediation]:
    for outcome in outcome_columns(runs):
        found = {}
        for mask, mediators in _same_runs(runs, outcome):
            model = _Model(runs[mask], place, mediators, outcome)
            found.update(model.describe(level))
        for mediator in sorted(found):
            yield found[mediator]


def _same_runs(runs: pd.DataFrame, outcome: str) -> Iterator[tuple[Any, list[str]]]:
    """Mediators that are defined, with the outcome, on exactly the same runs."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for mediator in sorted(name for name in runs.columns if name.startswith("drift.")):
        used = np.isfinite(column(runs, mediator)) & np.isfinite(column(runs, outcome))
        groups[used.tobytes()].append(mediator)
    for mask, mediators in groups.items():
        yield np.frombuffer(mask, dtype=bool), mediators


class _Model:
    """The linear models of one outcome and the mediators defined on the same runs."""

    def __init__(
        self,
        runs: pd.DataFrame,
        place: tuple[str, str, str, str],
        mediators: list[str],
        outcome: str,
    ) -> None:
        self.mediators, self.outcome, self.place = mediators, outcome, place
        names, self.codes = np.unique(runs["seed"].to_numpy(), return_inverse=True)
        self.n_seeds = len(names)
        rates = column(runs, LOG_LR)
        treated = (runs["method"] == place[3]).to_numpy(dtype=np.float64)
        self.least_seeds = min(len(set(self.codes[treated == arm])) for arm in (0, 1))
        columns = [np.ones(len(runs)), treated]
        if len(set(rates)) > 1:
            columns.append(rates - rates.mean())
        self.design: Floats = np.column_stack(columns).astype(np.float64)
        self.mediator_values = np.column_stack([column(runs, name) for name in mediators])
        self.outcome_values = column(runs, outcome)

    def describe(self, level: float) -> dict[str, Mediation]:
        n, k = self.design.shape
        heads = {name: self._head(name, n) for name in self.mediators}
        if n < k + 2 or np.linalg.matrix_rank(self.design) < k:
            reason = f"{n} runs of the two methods do not determine the model"
            return {name: replace(head, reason=reason) for name, head in heads.items()}
        weights = delete_one(self.n_seeds)[self.codes]
        every = effects(self.design, self.mediator_values, self.outcome_values, weights)
        return {
            name: _result(head, Effects(*(v[i] for v in every)), self.least_seeds, level)
            for i, (name, head) in enumerate(heads.items())
        }

    def _head(self, mediator: str, n: int) -> Mediation:
        backbone, target, a, b = self.place
        return Mediation(
            backbone=backbone,
            target=target,
            outcome=self.outcome,
            mediator=mediator,
            method_a=a,
            method_b=b,
            n=n,
            n_seeds=self.n_seeds,
        )


def _result(head: Mediation, found: Effects, least_seeds: int, level: float) -> Mediation:
    """The row of one mediator: effects (n_draws,), of all seeds and without each of them."""
    total, indirect = float(found.total[0]), float(found.indirect[0])
    if not np.isfinite(indirect):
        explained = "mediator or outcome is determined by method and learning rate"
        return replace(head, total=number(total), reason=explained)
    along = jackknife(found.indirect, least_seeds, abs(total))
    beside = jackknife(found.direct, least_seeds, abs(total))
    ends, others = along.interval(level), beside.interval(level)
    return replace(
        head,
        total=total,
        indirect=indirect,
        indirect_ci_low=ends.low,
        indirect_ci_high=ends.high,
        direct=float(found.direct[0]),
        direct_ci_low=others.low,
        direct_ci_high=others.high,
        vanishing_rho=float(found.vanishing_rho[0]),
        reason=along.reason or beside.reason,
    )


def effects(design: Floats, mediators: Floats, outcome: Floats, weights: Floats) -> Effects:
    """Least-squares paths of every mediator for every set of weights.

    With e_D, e_Y the residuals of mediator and outcome on the design, b = <e_D, e_Y> / <e_D, e_D>
    (Frisch-Waugh), direct = total - a b, and vanishing rho = corr(e_D, e_Y).

    Args:
        design: (n, k); column 0 the intercept, column 1 the method.
        mediators: (n, n_mediators).
        outcome: (n,).
        weights: multiplicities of the runs, (n, n_draws).

    Returns:
        Effects; NaN where a draw does not determine the model or a residual is zero.
    """
    # Centring and scaling on the plain sample change the coefficient of the method by the scale
    # only, and keep the cross products well conditioned whatever the units.
    d, d_scale = _standardised(mediators)
    y, y_scale = _standardised(outcome[:, None])
    k = design.shape[1]
    gram = _weighted_products(design, design, weights)
    determined = np.linalg.matrix_rank(gram, hermitian=True) == k
    safe = np.where(determined[:, None, None], gram, np.eye(k))
    xd, xy = (_weighted_products(design, values, weights) for values in (d, y))
    on_d, on_y = np.linalg.solve(safe, xd), np.linalg.solve(safe, xy)
    dd = _residual(weights.T @ d**2, (xd * on_d).sum(axis=1), determined)
    yy = _residual(weights.T @ y**2, (xy * on_y).sum(axis=1), determined)
    dy = weights.T @ (d * y) - (xd * on_y).sum(axis=1)
    a = on_d[:, 1] * d_scale
    total = np.where(determined[:, None], on_y[:, 1] * y_scale, np.nan) + np.zeros_like(a)
    b = np.where(np.isfinite(yy), dy / dd, np.nan) * y_scale / d_scale
    rho = np.clip(dy / np.sqrt(dd * yy), -1.0, 1.0)
    return Effects(*(values.T for values in (a, b, total - a * b, total, rho)))


def _standardised(values: Floats) -> tuple[Floats, Floats]:
    scale = values.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(values).max(axis=0), scale, 1.0)
    return (values - values.mean(axis=0)) / scale, scale


def _weighted_products(left: Floats, right: Floats, weights: Floats) -> Floats:
    """sum_i w_i left_ip right_iq per draw: (n, p), (n, q), (n, n_draws) -> (n_draws, p, q)."""
    products = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
    return (weights.T @ products).reshape(-1, left.shape[1], right.shape[1])


def _residual(squares: Floats, explained: Floats, determined: Any) -> Floats:
    """Residual sum of squares per draw and variable, NaN where nothing is left but rounding."""
    left = squares - explained
    return np.where(determined[:, None] & (left > EXPLAINED * np.maximum(squares, 1)), left, np.nan)
