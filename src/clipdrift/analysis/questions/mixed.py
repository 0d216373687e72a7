"""Does the learning rate act differently on the methods? A model of the whole grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from clipdrift.analysis.rows import Metric, OfBackbone, Reason, Said, key, sure
from clipdrift.analysis.statistics.columns import (
    LOG_LR,
    Floats,
    column,
    matched_runs,
    outcome_columns,
    parts,
)
from clipdrift.analysis.statistics.intervals import LEVEL

SIGNALS = (
    "test_accuracy",
    "drift.cls_entropy_pct",
    "drift.cka_mean",
    "drift.weight_drift_rel",
    "drift.embedding_drift",
)
"""Modelled where the records have them, beside retention on every transfer dataset."""
RANDOM: Literal["random_coefficients"] = "random_coefficients"
ROBUST: Literal["ols_cr2"] = "ols_cr2"
UNBALANCED = "seeds differ in the runs they have"
EXPLAINED = 1e-20
# Seeds that agree on a term differ by rounding of the metric only.
ROUNDING = 1e-12
# Leverage of 1: this seed alone determines some term.
ALONE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mixed(OfBackbone):
    """metric ~ method x log10 lr x target, every term random over seeds, t on seeds.

    The interaction that a study asks for is `method[b]:log10_lr`. p and intervals draw seeds; the
    images are these.

    term: of the model; null where it cannot be fitted
    estimate: per factor 10 of learning rate where lr is in the term
    se: standard error
    ci_low: of the estimate
    df: degrees of freedom of t; at most seeds less one
    p: two-sided
    model: random_coefficients: every term may differ by seed; ols_cr2: least squares with CR2
        errors over seeds, where seeds differ in the runs they have
    model_reason: why it is ols_cr2
    n: runs with a value
    n_seeds: seeds: the sample
    """

    table: ClassVar = "mixed"

    metric: Metric
    term: Annotated[str | None, key("Term")] = None
    estimate: Annotated[float | None, Said("difference", "Estimate")] = None
    se: Annotated[float | None, sure("SE", "size")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "difference", upto="ci_high")] = None
    ci_high: float | None = None
    df: Annotated[float | None, sure("df", "two")] = None
    p: Annotated[float | None, sure("p", "p")] = None
    model: Annotated[Literal["random_coefficients", "ols_cr2"] | None, Said("name", "Model")] = None
    model_reason: Annotated[str | None, Said("remark", "Why this model")] = None
    n: Annotated[int, Said("count")]
    n_seeds: Annotated[int, Said("count")]
    reason: Reason = None


class Design(NamedTuple):
    """Fixed effects (n, k) and their names."""

    matrix: Floats
    terms: list[str]


class Fit(NamedTuple):
    """Coefficients and their standard errors (k, m) of m metrics, degrees of freedom (k,)."""

    estimate: Floats
    se: Floats
    df: Floats
    balanced: bool


def rows(frame: pd.DataFrame, *, metrics: list[str] | None = None) -> list[Mixed]:
    """metric ~ method x log10 lr x target, every term random over seeds, per backbone.

    Methods are coded against the first in the alphabet; targets sum to zero, so terms without a
    target are means over targets; log10 lr is centred, so `method[...]` is the difference at the
    middle of the grid. `method[b]:log10_lr` is by how much more the metric changes for b per
    factor of ten in learning rate: the interaction the design is made for.

    Seeds are the sample, the images are these: y_g = X_g (beta + b_g) + e_g, where b_g, of any
    covariance, lets every term differ between seeds. Where each seed g has the same runs, the
    estimate is the mean of the seeds' own least squares, its error their SD / sqrt(G), and t on G -
    1 degrees of freedom is exact under normality ("random_coefficients"). Otherwise least squares
    over all runs, with CR2 errors over seeds and Satterthwaite degrees of freedom ("ols_cr2"), of
    which the first is the special case. A random intercept alone would count each rate of a seed as
    a replicate of how the methods differ.

    Args:
        metrics: default retention on every transfer dataset and `SIGNALS`.

    Returns:
        One row per backbone, metric and term, estimates in the metric's unit; one with nulls and a
        reason where the model cannot be fitted.

    Reference: Laird & Ware (1982), Biometrics 38(4), for the model; Bell & McCaffrey (2002), Survey
    Methodology 28(2), and Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36(4), for CR2.
    """
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        chosen = [name for name in SIGNALS if name in runs]
        wanted = [*outcome_columns(runs), *chosen] if metrics is None else metrics
        found = _backbone(backbone, runs, wanted)
        out += [row for name in wanted for row in found[name]]
    return out


def _backbone(backbone: str, runs: pd.DataFrame, metrics: list[str]) -> dict[str, list[Mixed]]:
    """Rows by metric; metrics defined in the same runs share their design."""
    values = {name: column(runs, name) for name in metrics}
    together: dict[bytes, list[str]] = {}
    for name, y in values.items():
        together.setdefault(np.isfinite(y).tobytes(), []).append(name)
    out: dict[str, list[Mixed]] = {}
    for names in together.values():
        used = np.isfinite(values[names[0]])
        part = runs[used].reset_index(drop=True)
        y = np.column_stack([values[name][used] for name in names])
        heads = [
            Mixed(backbone=backbone, metric=name, n=len(part), n_seeds=int(part["seed"].nunique()))
            for name in names
        ]
        out |= zip(names, _together(heads, part, y), strict=True)
    return out


def _together(heads: list[Mixed], runs: pd.DataFrame, y: Floats) -> Iterator[list[Mixed]]:
    """Rows of each column of y, (n, m), all of them defined in all runs."""
    design = design_of(runs) if len(y) else None
    why = "no value in these records" if design is None else _unfit(design, heads[0].n_seeds)
    if why is not None or design is None:
        yield from ([replace(head, reason=why)] for head in heads)
        return
    found = fit(design.matrix, y, runs["seed"].to_numpy())
    left = y - design.matrix @ found.estimate
    for i, (head, own) in enumerate(zip(heads, y.T, strict=True)):
        reason = _unvarying(own, left[:, i])
        if reason:
            yield [replace(head, reason=reason)]
            continue
        fuzz = ROUNDING * float(np.abs(own).max())
        yield [
            _row(replace(head, term=term), found, j, i, fuzz) for j, term in enumerate(design.terms)
        ]


def design_of(runs: pd.DataFrame) -> Design:
    """Fixed effects of method x log10 lr x target; factors with one level are left out."""
    methods, targets = sorted(set(runs["method"])), sorted(set(runs["target"]))
    method, target = runs["method"].to_numpy(), runs["target"].to_numpy()
    rate = column(runs, LOG_LR)
    one = np.ones(len(runs))
    by_method = [("", one)]
    by_method += [(f"method[{name}]", (method == name).astype(float)) for name in methods[1:]]
    by_rate = [("", one)]
    if len(set(rate.tolist())) > 1:
        by_rate.append(("log10_lr", rate - (rate.min() + rate.max()) / 2))
    last = (target == targets[-1]).astype(float)
    by_target = [("", one)]
    by_target += [(f"target[{name}]", (target == name) - last) for name in targets[:-1]]
    columns, terms = [], []
    for part in product(by_method, by_rate, by_target):
        columns.append(part[0][1] * part[1][1] * part[2][1])
        terms.append(":".join(name for name, _ in part if name) or "intercept")
    return Design(np.column_stack(columns), terms)


def _unfit(design: Design, n_seeds: int) -> str | None:
    """Why no metric can be fitted, or None."""
    n, k = design.matrix.shape
    if n_seeds < 2:
        return "one seed: nothing to tell differences from noise"
    if n <= k:
        return f"{n} runs for {k} terms"
    if np.linalg.matrix_rank(design.matrix) < k:
        return "the grid has gaps: some terms cannot be separated"
    return None


def _unvarying(y: Floats, left: Floats) -> str | None:
    """Why there is nothing to test in a metric, or None; `left` are its residuals."""
    if y.min() == y.max():
        return "the metric does not vary"
    if float(left @ left) <= EXPLAINED * len(y) * float(y.var()):
        return "method, learning rate and target determine the metric: no noise to test against"
    return None


def fit(x: Floats, y: Floats, seeds: NDArray[Any]) -> Fit:
    """Least squares of each column of y, with CR2 errors over seeds.

    With H_gg = X_g M X_g', M = (X'X)^-1, e the residuals and A_g = (I - H_gg)^(-1/2):
    Var(beta) = M sum_g (X_g' A_g e_g)(X_g' A_g e_g)' M. The degrees of freedom of a coefficient
    are (sum_g l_g)^2 / sum_g l_g^2, l the eigenvalues of its G x G Gram matrix
    p_g' p_h, p_g = (I - H)_g' A_g X_g M c, taken as if errors were independent.

    Args:
        x: full-rank fixed effects (n, k).
        y: responses (n, m).
        seeds: group of each run (n,).
    """
    groups = np.unique(seeds, return_inverse=True)[1]
    root = np.linalg.inv(np.linalg.cholesky(x.T @ x))  # M = root' root
    inverse = root.T @ root
    estimate = inverse @ (x.T @ y)
    left = y - x @ estimate
    n_groups, k = int(groups.max()) + 1, x.shape[1]
    squares, alone, shared = np.zeros_like(estimate), np.zeros((n_groups, k)), []
    products = []
    for g in range(n_groups):
        own = x[groups == g]
        weights = _adjusted(own @ root.T) @ root
        squares += (weights.T @ left[groups == g]) ** 2
        alone[g] = (weights**2).sum(axis=0)
        shared.append(root @ (own.T @ weights))
        products.append(own.T @ own)
    balanced = all(np.allclose(p, products[0], rtol=0, atol=1e-9) for p in products)
    df = np.full(k, n_groups - 1.0) if balanced else _satterthwaite(alone, np.array(shared))
    return Fit(estimate, np.sqrt(squares), df, balanced)


def _adjusted(own: Floats) -> Floats:
    """(I - Z Z')^(-1/2) Z of a seed's rows Z = X_g M^(1/2); what it alone tells is left out."""
    u, d, v = np.linalg.svd(own, full_matrices=False)
    room = 1 - d**2
    scale = np.where(room > ALONE, d / np.sqrt(np.maximum(room, ALONE)), 0.0)
    return np.asarray((u * scale) @ v)


def _satterthwaite(alone: Floats, shared: Floats) -> Floats:
    """Degrees of freedom from |w_g|^2, (G, k), and R X_g' w_g, (G, k, k); 0 where undefined."""
    out = np.zeros(alone.shape[1])
    for c in range(alone.shape[1]):
        gram = np.diag(alone[:, c]) - shared[:, :, c] @ shared[:, :, c].T
        squares = float((gram**2).sum())
        out[c] = float(np.trace(gram)) ** 2 / squares if squares > 0 else 0.0
    return out


def _row(head: Mixed, found: Fit, term: int, metric: int, fuzz: float) -> Mixed:
    estimate, se = float(found.estimate[term, metric]), float(found.se[term, metric])
    df = float(found.df[term])
    row = replace(
        head,
        estimate=estimate,
        df=df,
        model=RANDOM if found.balanced else ROBUST,
        model_reason=None if found.balanced else UNBALANCED,
    )
    if not se > fuzz or not df > 0:
        return replace(row, reason="seeds agree on this term: no error to test against")
    half = se * float(stdtrit(df, (1 + LEVEL) / 2))
    return replace(
        row,
        se=se,
        p=float(2 * stdtr(df, -abs(estimate / se))),
        ci_low=estimate - half,
        ci_high=estimate + half,
    )
