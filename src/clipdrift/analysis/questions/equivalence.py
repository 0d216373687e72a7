"""Are two methods the same within a margin? So that "no difference" is a result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import pandas as pd

from clipdrift.analysis.questions.paired import BothOn, ImageError, default_metrics
from clipdrift.analysis.rows import Drawn, OfPair, Over, Reason, RunIds, Said, sure
from clipdrift.analysis.statistics.differences import ALL_PAIRS, Differences, Gaps
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import matched_pairs

ACCURACY_MARGIN = 0.01
RETENTION_MARGIN_PCT = 2.0
ALPHA = 0.05
Result = Literal["equivalent", "different", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Equivalence(OfPair):
    """Two one-sided tests of every two matched methods against a stated margin.

    n_pairs: matched pairs of runs
    margin: differences below this count as none
    mean_diff: method_a - method_b
    ci_low: of mean_diff, see interval_over
    p_tost: two one-sided tests: the larger of both
    result: equivalent, different (outside the margin for sure), or neither
    """

    table: ClassVar = "equivalence"

    learning_rate: Over
    n_pairs: Annotated[int, Said("count")]
    n_seeds: Annotated[int, Said("count", "Seeds", "the sample")]
    n_images: BothOn
    image_se: ImageError
    margin: Annotated[float, Said("size", "Margin")]
    mean_diff: Annotated[float | None, Said("difference", "Mean diff.")]
    ci_low: Annotated[float | None, sure("90 % CI", "difference", upto="ci_high")] = None
    ci_high: float | None = None
    interval_over: Drawn
    p_tost: Annotated[float | None, sure("p (TOST)", "p")] = None
    result: Annotated[Result | None, Said("name", "Result")] = None
    run_ids: RunIds
    reason: Reason


def rows(
    frame: pd.DataFrame,
    *,
    margins: Mapping[str, float] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
) -> list[Equivalence]:
    """Two one-sided paired tests (TOST) against a stated margin.

    p_lower tests mean(d) <= -margin, p_upper tests mean(d) >= margin, d = method_a - method_b;
    p_tost is the larger. Equivalent where p_tost < alpha = 0.05, which is where the
    1 - 2 alpha interval lies within the margins. Different where that interval lies wholly outside
    them. Otherwise the data leave it open. Error and scopes are those of `paired.rows`, less the
    scope that takes learning rates for replicates: t over seeds, images too where they are known.

    Args:
        margins: metric -> margin in the metric's unit, above 0; default `default_margins`.

    Returns:
        One row per backbone, target, pair of methods, metric and scope.

    Reference: Schuirmann (1987), J. Pharmacokinet. Biopharm. 15(6).
    """
    wanted = default_margins(frame) if margins is None else margins
    flags = fits(frame, underfit_fraction)
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        differences = Differences(pairs, flags, images)
        for metric, margin in wanted.items():
            for gaps in differences.of(metric):
                if gaps.scope != ALL_PAIRS:
                    row = Equivalence(
                        **pairs.names,
                        **gaps.fields,
                        metric=metric,
                        n_images=gaps.n_images,
                        image_se=gaps.image_se,
                        margin=margin,
                        mean_diff=gaps.mean,
                        interval_over=gaps.interval_over,
                        run_ids=gaps.run_ids,
                        reason=gaps.untestable or gaps.unread,
                    )
                    out.append(row if gaps.untestable else _tost(row, gaps))
    return out


def default_margins(frame: pd.DataFrame) -> dict[str, float]:
    """One point for accuracies and recalls (0.01), two for retention; none for drift."""
    out = {}
    for metric in default_metrics(frame):
        if metric.endswith(("accuracy", "mean_recall")):
            out[metric] = ACCURACY_MARGIN
        elif metric.endswith(".retention_pct"):
            out[metric] = RETENTION_MARGIN_PCT
    return out


def _tost(row: Equivalence, gaps: Gaps) -> Equivalence:
    error, mean, margin = gaps.error, float(gaps.values.mean()), row.margin
    p = max(error.p_above(mean + margin), error.p_above(margin - mean))
    half = error.half(2 * ALPHA)
    low, high = mean - half, mean + half
    result: Result = "inconclusive"
    if p < ALPHA:
        result = "equivalent"
    elif low > margin or high < -margin:
        result = "different"
    return replace(row, p_tost=p, ci_low=low, ci_high=high, result=result)
