"""How much of a method's difference in retention goes along with its difference in drift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.statistics.columns import (
    LOG_LR,
    column,
    matched_runs,
    outcome_columns,
    parts,
)
from clipdrift.analysis.statistics.crossed import SEEDS
from clipdrift.analysis.statistics.intervals import delete_one, jackknife
from clipdrift.analysis.statistics.pairs import method_pairs
from clipdrift.analysis.statistics.ranks import Floats

ASSUMPTIONS = (
    "A description, not a cause: reads as mediation only if, given log10 learning rate, nothing "
    "unmeasured moves both drift and retention, drift precedes retention, effects are linear and "
    "the method does not change the slope of retention on drift."
)
# A residual sum of squares this small beside the total is rounding: the variable is explained.
EXPLAINED = 1e-10


_EMPTY: dict[str, Any] = dict.fromkeys(
    [
        "path_a",
        "path_b",
        "indirect",
        "indirect_ci_low",
        "indirect_ci_high",
        "direct",
        "direct_ci_low",
        "direct_ci_high",
        "interval_over",
        "total",
        "proportion_mediated",
        "vanishing_rho",
    ]
)


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
) -> list[dict[str, Any]]:
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
        One dict per backbone, target, pair of methods, mediator (`drift.*`) and outcome: `backbone,
        target, method_a, method_b, mediator, outcome, n, n_seeds, path_a, path_b, indirect,
        indirect_ci_low, indirect_ci_high, direct, direct_ci_low, direct_ci_high, interval_over,
        total, proportion_mediated, vanishing_rho, assumptions, reason`. Effects on retention in
        percentage points. `proportion_mediated` is null where direct and indirect effect have
        opposite signs: there it is no proportion.

    Reference: Imai, Keele & Yamamoto (2010), Statistical Science 25(1), theorem 4, with the
        learning rate as covariate and without interaction.
    """
    out = []
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        for a, b in method_pairs(set(runs["method"]), compare_with):
            key = {"backbone": backbone, "target": target, "method_a": a, "method_b": b}
            pair = _shared_rates(runs, a, b)
            out += [{**key, **row} for row in _pair(pair, b, level)]
    return out


def _shared_rates(runs: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    rates = [set(runs.loc[runs["method"] == name, "learning_rate"]) for name in (a, b)]
    kept = runs["method"].isin([a, b]) & runs["learning_rate"].isin(rates[0] & rates[1])
    return runs[kept].reset_index(drop=True)


def _pair(runs: pd.DataFrame, method_b: str, level: float) -> list[dict[str, Any]]:
    out = []
    for outcome in outcome_columns(runs):
        found = {}
        for mask, mediators in _same_runs(runs, outcome):
            model = _Model(runs[mask], method_b, mediators, outcome)
            found.update(model.describe(level))
        for mediator in sorted(found):
            row = {"mediator": mediator, "outcome": outcome, **found[mediator]}
            out.append({**row, "assumptions": ASSUMPTIONS})
    return out


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
        self, runs: pd.DataFrame, method_b: str, mediators: list[str], outcome: str
    ) -> None:
        self.mediators = mediators
        names, self.codes = np.unique(runs["seed"].to_numpy(), return_inverse=True)
        self.n_seeds = len(names)
        rates = column(runs, LOG_LR)
        treated = (runs["method"] == method_b).to_numpy(dtype=np.float64)
        self.least_seeds = min(len(set(self.codes[treated == arm])) for arm in (0, 1))
        columns = [np.ones(len(runs)), treated]
        if len(set(rates)) > 1:
            columns.append(rates - rates.mean())
        self.design: Floats = np.column_stack(columns).astype(np.float64)
        self.mediator_values = np.column_stack([column(runs, name) for name in mediators])
        self.outcome_values = column(runs, outcome)

    def describe(self, level: float) -> dict[str, dict[str, Any]]:
        n, k = self.design.shape
        head = {"n": n, "n_seeds": self.n_seeds}
        if n < k + 2 or np.linalg.matrix_rank(self.design) < k:
            reason = f"{n} runs of the two methods do not determine the model"
            return {name: {**head, **_EMPTY, "reason": reason} for name in self.mediators}
        weights = delete_one(self.n_seeds)[self.codes]
        every = effects(self.design, self.mediator_values, self.outcome_values, weights)
        return {
            name: {**head, **_result(Effects(*(v[i] for v in every)), self.least_seeds, level)}
            for i, name in enumerate(self.mediators)
        }


def _result(found: Effects, least_seeds: int, level: float) -> dict[str, Any]:
    """The row of one mediator: effects (n_draws,), of all seeds and without each of them."""
    point = {name: float(values[0]) for name, values in found._asdict().items()}
    total, indirect = point["total"], float(found.indirect[0])
    if not np.isfinite(indirect):
        explained = "mediator or outcome is determined by method and learning rate"
        return {**_EMPTY, "total": _number(total), "reason": explained}
    along = jackknife(found.indirect, least_seeds, abs(total))
    beside = jackknife(found.direct, least_seeds, abs(total))
    same_sign = indirect * point["direct"] >= 0 and total != 0
    return {
        **_EMPTY,  # in its order
        **point,
        "indirect": indirect,
        **dict(zip(("indirect_ci_low", "indirect_ci_high"), along.interval(level), strict=True)),
        **dict(zip(("direct_ci_low", "direct_ci_high"), beside.interval(level), strict=True)),
        "interval_over": None if along.se is None and beside.se is None else SEEDS,
        "proportion_mediated": indirect / total if same_sign else None,
        "reason": along.reason or beside.reason,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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


__all__ = ["ASSUMPTIONS", "Effects", "effects", "rows"]
