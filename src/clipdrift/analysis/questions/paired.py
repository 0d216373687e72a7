"""Do two methods differ? Paired tests on matched runs, per learning rate and over the grid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln

from clipdrift.analysis.questions.families import QUESTIONS, add_holm
from clipdrift.analysis.statistics.differences import ALL_PAIRS, Differences, Gaps
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import matched_pairs
from clipdrift.analysis.statistics.wilcoxon import signed_rank

NO_REPLICATES = "learning rates are no replicates: no interval, see grid_mean"


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    questions: Collection[str] = QUESTIONS,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Paired comparison of every two matched methods.

    With d = method_a - method_b of n seeds: Student's paired t test and interval, on n - 1 degrees
    of freedom, Cohen's dz = mean(d) / SD(d), Hedges' gz = J(n - 1) dz with the exact
    J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)), and Wilcoxon's signed-rank test.

    Where it is known which images each run was right on, images are drawn as well as seeds: of each
    image both methods' answers, so their difference, which is averaged over the rates. The interval
    is that of `crossed`, `p_t` the level at which it ends at 0, and t = mean(d) / sqrt(seed_se^2 +
    shared_se^2). `interval_over` says what is drawn. dz, gz and Wilcoxon's test are over seeds.

    Scope "per_lr": a seed's difference at one rate. "grid_mean": its mean over the rates that all
    seeds used have; the grid is fixed, so seeds alone are the sample. "both_fit": the same over
    the rates at which both methods fit (`fits`). "all_pairs" has every rate and seed for a
    replicate, which rates are not: it has no interval, and no p where there is one seed.

    Args:
        frame: one row per finished run; `matched_pairs` says which are paired.
        metrics: default `default_metrics`.
        varied: factors whose fingerprints may differ between matched runs.
        compare_with: methods of which every pair holds one; default every pair.
        questions: whose tests are corrected, of `QUESTIONS`; see `add_holm`.
        images: which images each of these runs was right on.
        underfit_fraction: share of the best cell's accuracy from which on a cell fits.
        level: coverage.

    Returns:
        One dict per backbone, target, pair of methods, metric and scope: `backbone, target,
        metric, method_a, method_b, scope, lr (null over rates), lrs, n_pairs, n_seeds, n_dropped,
        dropped_reason, mean_diff, sd_diff, n_images, image_se, interval_over, ci_low, ci_high,
        cohen_dz, hedges_gz, t, p_t, p_wilcoxon, wilcoxon_method, wilcoxon_floor, p_holm, family,
        run_ids, reason`. `image_se` is the error of `mean_diff` from drawing images.
        `wilcoxon_floor` = 2 * 0.5^n, the least p an exact two-sided test of n values can reach.

    Reference: Student (1908); Wilcoxon (1945); Holm (1979); Hedges (1981); Lakens (2013) for dz.
    """
    wanted = default_metrics(frame) if metrics is None else metrics
    flags = fits(frame, underfit_fraction)
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        key = {"backbone": pairs.backbone, "target": pairs.target}
        methods = {"method_a": pairs.method_a, "method_b": pairs.method_b}
        differences = Differences(pairs, flags, images)
        for metric in wanted:
            for gaps in differences.of(metric):
                out.append({**key, "metric": metric, **methods, **_test(gaps, level)})
    add_holm(out, frame, questions)
    return out


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracies, each transfer dataset's accuracy and retention, and every final drift."""
    names = list(map(str, frame.columns))
    accuracies = [name for name in ("test_accuracy", "val_accuracy") if name in names]
    transfer = [
        name
        for name in names
        if name.startswith("transfer.") and name.endswith((".accuracy", ".retention_pct"))
    ]
    return [*accuracies, *sorted(transfer), *sorted(n for n in names if n.startswith("drift."))]


def _test(gaps: Gaps, level: float) -> dict[str, Any]:
    d, n = gaps.values, int(gaps.values.size)
    pooled = gaps.scope == ALL_PAIRS
    row: dict[str, Any] = {
        "scope": gaps.scope,
        "lr": gaps.lr,
        "lrs": gaps.lrs,
        "n_pairs": gaps.n_pairs,
        "n_seeds": gaps.n_seeds,
        "n_dropped": gaps.n_dropped,
        "dropped_reason": gaps.dropped_reason,
        "mean_diff": float(d.mean()) if n else None,
        "sd_diff": None,
        **gaps.over_images(),
        **dict.fromkeys(["ci_low", "ci_high", "cohen_dz", "hedges_gz", "t", "p_t"]),
        **dict.fromkeys(["p_wilcoxon", "wilcoxon_method", "wilcoxon_floor", "p_holm", "family"]),
        "run_ids": gaps.run_ids,
        "reason": gaps.untestable,
    }
    if gaps.n_seeds < 2:
        return row
    rank_test = signed_rank(d, gaps.rounding)
    row |= {"p_wilcoxon": rank_test.p, "wilcoxon_method": rank_test.method}
    row["wilcoxon_floor"] = 2 * 0.5**n
    if gaps.untestable:
        return {**row, "sd_diff": 0.0}
    sd = float(d.std(ddof=1))
    error, mean = gaps.error, float(d.mean())
    dz = mean / sd
    half = error.half(1 - level)
    reasons = [None if n > 2 else "two seeds: Hedges' correction is undefined", gaps.unread]
    return {
        **row,
        "sd_diff": sd,
        "ci_low": None if pooled else mean - half,
        "ci_high": None if pooled else mean + half,
        "cohen_dz": dz,
        "hedges_gz": hedges_factor(n - 1) * dz if n > 2 else None,
        "t": mean / float(np.hypot(error.seed_se, error.shared_se)),
        "p_t": error.p(mean),
        "reason": NO_REPLICATES if pooled else "; ".join(filter(None, reasons)) or None,
    }


def hedges_factor(df: int) -> float:
    """Hedges' exact small-sample factor J(df), which makes dz unbiased under normality; df > 1.

    >>> round(hedges_factor(4), 6)
    0.797885
    """
    return float(np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2))


__all__ = ["default_metrics", "hedges_factor", "rows"]
