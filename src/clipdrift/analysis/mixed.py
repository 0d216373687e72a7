"""Does the learning rate act differently on the methods? A model of the whole grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from clipdrift.analysis.seed_variance import Likelihood
from clipdrift.analysis.signals import (
    LOG_LR,
    Floats,
    column,
    matched_runs,
    outcome_columns,
    parts,
)

SIGNALS = (
    "test_accuracy",
    "drift.cls_entropy_pct",
    "drift.cka_mean",
    "drift.weight_drift_rel",
    "drift.embedding_drift",
)
"""Modelled where the records have them, beside retention on every transfer dataset."""
MIXED, ROBUST = "mixedlm", "ols_cluster"
# statsmodels must end where the line search did; its own stopping rule allows this much.
SAME_RATIO = 0.05
EXPLAINED = 1e-20


class Design(NamedTuple):
    """Fixed effects (n, k), their names, and which of them are method x log10 lr interactions."""

    matrix: Floats
    terms: list[str]
    interaction: list[bool]


class Fit(NamedTuple):
    """Coefficients in units of the scaled response, their errors, and the model they are from."""

    model: str
    estimate: Floats
    se: Floats
    df: float
    seed_variance: float | None
    remark: str | None


def rows(
    frame: pd.DataFrame, *, metrics: list[str] | None = None, level: float = 0.95
) -> list[dict[str, Any]]:
    """metric ~ method x log10 lr x target + (1 | seed), by REML, per backbone.

    Methods are coded against the first in the alphabet; targets sum to zero, so terms without a
    target are means over targets; log10 lr is centred, so `method[...]` is the difference at the
    middle of the grid. `method[b]:log10_lr` is by how much more the metric changes for b per
    factor of ten in learning rate: the interaction the design is made for.

    The mixed model is used where it converges with a seed variance above zero and finite errors.
    Otherwise least squares with errors robust to correlation within seeds (t with n_seeds - 1
    degrees of freedom), and `model_reason` says why. With 3 to 5 seeds both are rough.

    Args:
        frame: one row per finished run.
        metrics: default retention on every transfer dataset and `SIGNALS`.
        level: coverage.

    Returns:
        One dict per backbone, metric and term: `backbone, metric, term, interaction (bool: method
        x log10 lr), estimate, se, statistic, df (null: normal), p, ci_low, ci_high, model
        ("mixedlm", "ols_cluster"), model_reason, seed_sd, n, n_seeds, reason`. Estimates in the
        metric's unit, per factor of ten for terms with log10_lr. One row with nulls and a reason
        where the model cannot be fitted.

    Reference: Laird & Ware (1982), Biometrics 38(4); Liang & Zeger (1986), Biometrika 73(1).
    """
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        chosen = [name for name in SIGNALS if name in runs]
        wanted = [*outcome_columns(runs), *chosen] if metrics is None else metrics
        for metric in wanted:
            key = {"backbone": backbone, "metric": metric}
            out += [{**key, **row} for row in _metric(runs, metric, level)]
    return out


def _metric(runs: pd.DataFrame, metric: str, level: float) -> Iterator[dict[str, Any]]:
    y = column(runs, metric)
    used = runs[np.isfinite(y)].reset_index(drop=True)
    y = y[np.isfinite(y)]
    seeds = used["seed"].to_numpy()
    sizes = {"n": len(y), "n_seeds": len(set(seeds.tolist()))}
    fitted: Fit | str = "no value in these records"
    design = Design(np.empty((0, 0)), [], [])
    if len(y):
        design = design_of(used)
        fitted = _unfit(design, y, sizes["n_seeds"]) or fit(design.matrix, y, seeds)
    if isinstance(fitted, str):
        yield {**_EMPTY, **sizes, "reason": fitted}
        return
    for i, term in enumerate(design.terms):
        names = {"term": term, "interaction": design.interaction[i]}
        yield {**_EMPTY, **names, **_row(fitted, i, level), **sizes}


_EMPTY: dict[str, Any] = {
    "term": None,
    "interaction": None,
    **dict.fromkeys(["estimate", "se", "statistic", "df", "p", "ci_low", "ci_high"]),
    **dict.fromkeys(["model", "model_reason", "seed_sd", "n", "n_seeds", "reason"]),
}


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
    columns, terms, interaction = [], [], []
    for part in product(by_method, by_rate, by_target):
        columns.append(part[0][1] * part[1][1] * part[2][1])
        terms.append(":".join(name for name, _ in part if name) or "intercept")
        interaction.append(bool(part[0][0] and part[1][0] and not part[2][0]))
    return Design(np.column_stack(columns), terms, interaction)


def _unfit(design: Design, y: Floats, n_seeds: int) -> str | None:
    """Why the model cannot be fitted, or None."""
    n, k = design.matrix.shape
    if n_seeds < 2:
        return "one seed: nothing to tell differences from noise"
    if n <= k:
        return f"{n} runs for {k} terms"
    if np.linalg.matrix_rank(design.matrix) < k:
        return "the grid has gaps: some terms cannot be told apart"
    if y.min() == y.max():
        return "the metric does not vary"
    return None


def fit(x: Floats, y: Floats, seeds: Any) -> Fit | str:
    """Mixed model with a random intercept per seed, or the fallback; a text if neither is defined.

    Args:
        x: full-rank fixed effects (n, k).
        y: response (n,), varying.
        seeds: group of each run (n,).
    """
    # Optimisers stop early on responses of 1e-3; the scale is undone in the result.
    scale = float(y.std())
    scaled = (y - y.mean()) / scale
    residual = scaled - x @ np.linalg.lstsq(x, scaled, rcond=None)[0]
    if float(residual @ residual) <= EXPLAINED * len(y):
        return "method, learning rate and target determine the metric: no noise to test against"
    found = _mixed(x, scaled, seeds)
    if isinstance(found, str):
        found = _robust(x, scaled, seeds)._replace(remark=found)
    shift = np.zeros(x.shape[1])
    shift[0] = y.mean()
    variance = found.seed_variance
    return found._replace(
        estimate=found.estimate * scale + shift,
        se=found.se * scale,
        seed_variance=None if variance is None else variance * scale**2,
    )


def _mixed(x: Floats, y: Floats, seeds: Any) -> Fit | str:
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

    likelihood = Likelihood(x, y, seeds)
    ratio = likelihood.best_ratio()
    if ratio == 0:
        return "no variance between seeds beyond that within them"
    start = MixedLMParams.from_components(
        fe_params=likelihood.coefficients(ratio), cov_re=np.array([[ratio]])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = MixedLM(y, x, groups=seeds).fit(reml=True, method="bfgs", start_params=start)
            se = np.asarray(model.bse_fe, dtype=np.float64)
        except (np.linalg.LinAlgError, ValueError) as error:
            return f"mixed model failed: {error}"
    variance = float(np.asarray(model.cov_re)[0, 0])
    if not model.converged or not np.isclose(variance / float(model.scale), ratio, rtol=SAME_RATIO):
        return "mixed model did not converge"
    if not np.isfinite(se).all() or not (se > 0).all():
        return "mixed model without finite errors"
    estimate = np.asarray(model.fe_params, dtype=np.float64)
    return Fit(MIXED, estimate, se, float("inf"), variance, None)


def _robust(x: Floats, y: Floats, seeds: Any) -> Fit:
    from statsmodels.regression.linear_model import OLS

    groups = np.unique(seeds, return_inverse=True)[1]
    with warnings.catch_warnings():
        # Fewer seeds than terms: joint tests would be impossible; each coefficient's is not.
        warnings.simplefilter("ignore")
        model = OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        se = np.asarray(model.bse, dtype=np.float64)
    estimate = np.asarray(model.params, dtype=np.float64)
    return Fit(ROBUST, estimate, se, float(groups.max()), None, None)


def _row(fitted: Fit, i: int, level: float) -> dict[str, Any]:
    estimate, se = float(fitted.estimate[i]), float(fitted.se[i])
    normal = not np.isfinite(fitted.df)
    row = {
        "estimate": estimate,
        "model": fitted.model,
        "model_reason": fitted.remark,
        "seed_sd": None if fitted.seed_variance is None else fitted.seed_variance**0.5,
        "df": None if normal else fitted.df,
    }
    if not se > 0:
        return {**row, "reason": "seeds agree on this term: no error to test against"}
    z = estimate / se
    p = 2 * ndtr(-abs(z)) if normal else 2 * stdtr(fitted.df, -abs(z))
    half = se * (ndtri((1 + level) / 2) if normal else stdtrit(fitted.df, (1 + level) / 2))
    tests = {"se": se, "statistic": z, "p": float(p)}
    return {**row, **tests, "ci_low": estimate - float(half), "ci_high": estimate + float(half)}


__all__ = ["MIXED", "ROBUST", "SIGNALS", "Design", "Fit", "design_of", "fit", "rows"]
