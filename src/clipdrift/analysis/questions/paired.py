"""Do two methods differ? Paired tests on matched runs, per learning rate and over the grid."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from scipy.special import gammaln

from clipdrift.analysis.frame import SUITE
from clipdrift.analysis.questions.families import QUESTIONS, corrected
from clipdrift.analysis.rows import Drawn, OfPair, RunIds, Said, key, sure
from clipdrift.analysis.statistics.differences import ALL_PAIRS, Differences, Gaps
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import LEVEL
from clipdrift.analysis.statistics.pairs import matched_pairs
from clipdrift.analysis.statistics.wilcoxon import signed_rank

NO_REPLICATES = "learning rates are no replicates: no interval, see grid_mean"


BOTH_ON = (
    "labelled images that both methods were read on, drawn as seeds are; null where the single "
    "answers are not known: then seeds alone are drawn"
)
BothOn = Annotated[int | None, sure("Images", "count", words=BOTH_ON)]
ImageError = Annotated[
    float | None, Said("size", words="error of mean_diff from drawing images, paired over them")
]


@dataclass(frozen=True, kw_only=True)
class Paired(OfPair):
    """Paired tests of every two matched methods, method_a - method_b.

    At each learning rate (per_lr), over the grid of rates with seeds as the sample (grid_mean),
    over the rates at which both methods fit (both_fit), and with every rate and seed as a
    replicate (all_pairs).

    learning_rate: learning rate; null over rates
    learning_rates: rates that the difference is about
    n_pairs: matched runs; equal seeds at equal rates
    n_seeds: seeds: the sample, but of all_pairs
    mean_diff: method_a - method_b
    sd_diff: over seeds, ddof 1
    ci_low: t interval of mean_diff, see interval_over; none of all_pairs
    cohen_dz: mean_diff / sd_diff, over seeds
    hedges_gz: dz with Hedges' exact small-sample factor
    t: mean_diff over its standard error, of seeds and of images where these are known
    p_t: two-sided, uncorrected; below 0.05 exactly where the 95 % interval leaves out 0
    p_holm: p (t) corrected over the family
    p_wilcoxon: signed-rank test, two-sided, uncorrected
    wilcoxon_floor: 2 * 0.5^n: the least p an exact two-sided signed-rank test of n differences can
        reach
    family: the question, and the tests that the correction runs over; or that p_t is uncorrected,
        and why
    reason: why something is null
    """

    table: ClassVar = "paired"

    learning_rate: Annotated[float | None, Said("rate")]
    learning_rates: Annotated[list[float], key("LR", "rates")]
    n_pairs: Annotated[int, Said("count", "Pairs")]
    n_seeds: Annotated[int, Said("count", "Seeds")]
    n_images: BothOn
    image_se: ImageError
    mean_diff: Annotated[float | None, Said("difference", "Mean diff.")]
    sd_diff: Annotated[float | None, Said("size")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "difference", upto="ci_high")] = None
    ci_high: float | None = None
    interval_over: Drawn
    cohen_dz: Annotated[float | None, sure("dz", "two")] = None
    hedges_gz: Annotated[float | None, sure("gz", "two")] = None
    t: Annotated[float | None, sure("t", "two")] = None
    p_t: Annotated[float | None, sure("p (t)", "p")] = None
    p_holm: Annotated[float | None, sure("p (Holm)", "p")] = None
    p_wilcoxon: Annotated[float | None, sure("p (Wilc.)", "p")] = None
    wilcoxon_floor: Annotated[float | None, sure("floor", "p")] = None
    family: Annotated[str | None, Said("name", "Family")] = None
    run_ids: RunIds
    reason: Annotated[str | None, Said("remark", "Remark")]


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    questions: Collection[str] = QUESTIONS,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
) -> list[Paired]:
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
        questions: whose tests are corrected, of `QUESTIONS`; see `corrected`.

    Returns:
        One row per backbone, target, pair of methods, metric and scope.

    Reference: Student (1908); Wilcoxon (1945); Holm (1979); Hedges (1981); Lakens (2013) for dz.
    """
    wanted = default_metrics(frame) if metrics is None else metrics
    flags = fits(frame, underfit_fraction)
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        differences = Differences(pairs, flags, images)
        for metric in wanted:
            for gaps in differences.of(metric):
                row = Paired(
                    **pairs.names,
                    **gaps.fields,
                    metric=metric,
                    learning_rates=gaps.learning_rates,
                    n_images=gaps.n_images,
                    image_se=gaps.image_se,
                    mean_diff=gaps.mean,
                    interval_over=gaps.interval_over,
                    run_ids=gaps.run_ids,
                    reason=gaps.untestable,
                )
                out.append(_tested(row, gaps) if gaps.n_seeds > 1 else row)
    return corrected(out, frame, questions)


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracies, accuracy and retention of each transfer dataset and over all, final drift."""
    names = list(map(str, frame.columns))
    accuracies = [name for name in ("test_accuracy", "val_accuracy") if name in names]
    transfer = [
        name
        for name in names
        if name.startswith("transfer.")
        and name.endswith((".accuracy", ".mean_recall", ".retention_pct"))
    ]
    over_sets = [name for name in names if name.startswith(SUITE)]
    return [
        *accuracies,
        *sorted(transfer),
        *over_sets,
        *sorted(n for n in names if n.startswith("drift.")),
    ]


def _tested(row: Paired, gaps: Gaps) -> Paired:
    """With what two seeds or more tell."""
    d, n = gaps.values, int(gaps.values.size)
    ranked = signed_rank(d, gaps.rounding)
    row = replace(row, p_wilcoxon=ranked, wilcoxon_floor=2 * 0.5**n)
    if gaps.untestable:
        return replace(row, sd_diff=0.0)
    sd, mean, error = float(d.std(ddof=1)), float(d.mean()), gaps.error
    row = replace(
        row,
        sd_diff=sd,
        cohen_dz=mean / sd,
        hedges_gz=hedges_factor(n - 1) * (mean / sd) if n > 2 else None,
        t=mean / float(np.hypot(error.seed_se, error.shared_se)),
        p_t=error.p(mean),
    )
    if gaps.scope == ALL_PAIRS:
        return replace(row, reason=NO_REPLICATES)
    reasons = [None if n > 2 else "two seeds: Hedges' correction is undefined", gaps.unread]
    half = error.half(1 - LEVEL)
    why = "; ".join(filter(None, reasons)) or None
    return replace(row, ci_low=mean - half, ci_high=mean + half, reason=why)


def hedges_factor(df: int) -> float:
    """Hedges' exact small-sample factor J(df), which makes dz unbiased under normality; df > 1.

    >>> round(hedges_factor(4), 6)
    0.797885
    """
    return float(np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2))
