"""Does a signal say more about retention than learning rate and method already do?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from clipdrift.analysis.ranks import Floats, correlation_p, pearson
from clipdrift.analysis.signals import LOG_LR, column, matched_runs, pairs_of_interest, parts

CONTROLS = "log10_learning_rate, method"
# Residuals this small beside the ranks themselves are rounding: nothing is left to correlate.
EXPLAINED = 1e-9


class Partial(NamedTuple):
    """A partial correlation, its residual degrees of freedom, or why there is none."""

    n: int
    rho: float | None
    p: float | None
    df: int
    reason: str | None


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Partial Spearman correlation of every signal with retention, given LR and method.

    Outcome, signal and log10 learning rate are replaced by their average ranks over the runs in
    which outcome and signal are defined; the ranks of outcome and signal are regressed on an
    intercept, the ranks of the learning rate and one dummy per further method; the correlation of
    the two residuals is the partial correlation. It is linear in ranks: a dependence on the
    learning rate that is not remains.

    Args:
        frame: one row per finished run.

    Returns:
        One dict per backbone, target, outcome, signal and moment, and once over all targets
        (`target` null): `backbone, target, signal, when, outcome, controls, n, partial_rho, p, df,
        reason`. `p` from t = rho sqrt(df / (1 - rho^2)), df = n - 2 - number of controls; it takes
        runs as independent. Over all targets the target itself is not controlled.

    Reference: Conover (1999), Practical Nonparametric Statistics, section 5.4.
    """
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        scopes: list[tuple[str | None, pd.DataFrame]] = [(None, runs)]
        scopes += [(target, part) for (target,), part in parts(runs, "target")]
        for target, part in scopes:
            out += [{"backbone": backbone, "target": target, **row} for row in _scope(part)]
    return out


def _scope(runs: pd.DataFrame) -> list[dict[str, Any]]:
    pairs = [(s, o) for s, o in pairs_of_interest(runs) if s.name != LOG_LR]
    values = {name: column(runs, name) for s, o in pairs for name in (s.column, o)}
    rates, methods = column(runs, LOG_LR), runs["method"].to_numpy()
    out = []
    for signal, outcome in pairs:
        x, y = values[signal.column], values[outcome]
        used = np.isfinite(x) & np.isfinite(y)
        controls = _controls(rates[used], methods[used])
        partial = partial_spearman(x[used], y[used], controls)
        out.append(
            {
                "signal": signal.name,
                "when": signal.when,
                "outcome": outcome,
                "controls": CONTROLS,
                "n": partial.n,
                "partial_rho": partial.rho,
                "p": partial.p,
                "df": partial.df,
                "reason": partial.reason,
            }
        )
    return out


def _controls(rates: Floats, methods: Any) -> Floats:
    """Ranks of the learning rate and dummies of all methods but the first, shape (n, k)."""
    dummies = [methods == name for name in sorted(set(methods))[1:]]
    return np.column_stack([rankdata(rates), *dummies]).astype(np.float64)


def partial_spearman(x: Floats, y: Floats, controls: Floats) -> Partial:
    """Correlation of the residuals of the ranks of x and y after regression on the controls.

    Args:
        x, y: shape (n,), finite.
        controls: shape (n, k), entered as they are; an intercept is added.

    >>> controls = np.array([[0.0], [0], [0], [1], [1], [1]])
    >>> x = np.array([1.0, 2, 3, 4, 5, 6])
    >>> round(partial_spearman(x, np.array([2.0, 3, 1, 5, 6, 4]), controls).rho, 9)
    -0.5
    """
    n = int(x.size)
    design = np.column_stack([np.ones(n), controls])
    rank = int(np.linalg.matrix_rank(design)) if n else 0
    df = n - 2 - max(0, rank - 1)
    if df < 1:
        return Partial(n, None, None, df, f"{n} runs do not outnumber the controls")
    ranks = np.column_stack([rankdata(x), rankdata(y)])
    total = ((ranks - ranks.mean(axis=0)) ** 2).sum(axis=0)
    basis = np.linalg.svd(design, full_matrices=False)[0][:, :rank]
    residuals = ranks - basis @ (basis.T @ ranks)
    for name, left, whole in zip(
        ("signal", "outcome"), (residuals**2).sum(axis=0), total, strict=True
    ):
        if whole == 0:
            return Partial(n, None, None, df, f"{name} does not vary")
        if left <= EXPLAINED * whole:
            return Partial(n, None, None, df, f"{name} is determined by the controls")
    rho = pearson(residuals[:, 0], residuals[:, 1])
    return Partial(n, rho, correlation_p(rho, df), df, None)


__all__ = ["CONTROLS", "Partial", "partial_spearman", "rows"]
