"""Do two ways of holding methods equal rank them alike?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np
from scipy.stats import kendalltau

from clipdrift.analysis.questions.ranking import Ranked
from clipdrift.analysis.questions.standings import MIN_METHODS
from clipdrift.analysis.rows import Metric, OfTarget, Reason, Said, key, sure


@dataclass(frozen=True, kw_only=True)
class RankingAgreement(OfTarget):
    """How far two ways of ranking order the same methods alike.

    view_a: as `view` of `ranking`
    view_b: as `view` of `ranking`
    n_methods: ranked in both views
    kendall_tau: Kendall's tau-b: 1 the same order, 0 none, -1 reversed
    p: of no relation between the two orders
    best_a: highest of these methods in view_a
    best_b: highest of these methods in view_b
    """

    table: ClassVar = "ranking_agreement"

    metric: Metric
    view_a: Annotated[str, key("View", "view")]
    view_b: Annotated[str, key("Other view", "view")]
    n_methods: Annotated[int, Said("count", "Methods")]
    kendall_tau: Annotated[float | None, Said("two", "τ")] = None
    p: Annotated[float | None, sure("p", "p")] = None
    best_a: Annotated[str | None, Said("name", "First in view")]
    best_b: Annotated[str | None, Said("name", "First in other view")]
    reason: Reason = None


def agreement(ranking: list[Ranked]) -> list[RankingAgreement]:
    """How far every two views rank the same methods alike.

    Args:
        ranking: what `rows` returned.

    Returns:
        One row per backbone, target, metric and pair of views.
    """
    table: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for row in ranking:
        views = table.setdefault((row.backbone, row.target, row.metric), {})
        views.setdefault(row.view, {})
        if row.rank is not None and row.value is not None:
            views[row.view][row.method] = row.value
    return [
        _alike(*place, view_a, view_b, views)
        for place, views in table.items()
        for view_a, view_b in combinations(views, 2)
    ]


def _alike(
    backbone: str,
    target: str,
    metric: str,
    view_a: str,
    view_b: str,
    views: dict[str, dict[str, float]],
) -> RankingAgreement:
    a, b = views[view_a], views[view_b]
    both = sorted(set(a) & set(b))
    found = RankingAgreement(
        backbone=backbone,
        target=target,
        metric=metric,
        view_a=view_a,
        view_b=view_b,
        n_methods=len(both),
        best_a=max(both, key=a.__getitem__, default=None),
        best_b=max(both, key=b.__getitem__, default=None),
    )
    if len(both) < MIN_METHODS:
        return replace(found, reason=f"{len(both)} methods have a rank in both views")
    result = kendalltau([a[name] for name in both], [b[name] for name in both])
    if not np.isfinite(result.statistic):
        return replace(found, reason="all methods have one value in a view")
    return replace(found, kendall_tau=float(result.statistic), p=float(result.pvalue))
