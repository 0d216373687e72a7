"""How the candidates of a target stand against a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.questions.budget import Budget
from clipdrift.analysis.questions.candidates import AS_TRAINED, SOUP, Candidate, Field
from clipdrift.analysis.questions.choice_evidence import Evidence, Lead, evidence, lead
from clipdrift.analysis.questions.draws import Means, observed
from clipdrift.analysis.rows import Drawn
from clipdrift.analysis.statistics.cell_means import matrix, number, summarise
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.fit import DAMAGED, Cell, Fit
from clipdrift.analysis.statistics.influence import Images

SPLIT = ("lost_pp", "gone_pp", "misaligned_pp")
# Means of ratios of counts; this only keeps a mean that equals its floor from missing it.
EDGE = 1e-9
Standing = Literal["chosen", "runner_up", "meets", "nearest_miss", "misses", "none"]


class Verdict(NamedTuple):
    """How candidates stand against a budget, (n_candidates, n_draws), and which is chosen.

    shortfall_pp: the larger of what is missing to the floors, in percentage points; 0 meets.
    pick: index of the chosen one per draw, -1 where none meets.
    """

    shortfall_pp: Floats
    pick: NDArray[np.intp]


def verdict(
    means: Means, budget: Budget, within: Floats | None = None, share: float = 1.0
) -> Verdict:
    """Hold means against a budget, draw by draw; "the best" is the best of the draw.

    Args:
        within: where accuracy decides, by how much a candidate can lie behind and not be told
            apart, as a fraction of images, (n_candidates,).
        share: of the highest accuracy, below which a candidate is no equal.

    >>> means = Means(np.array([[0.9], [0.8]]), np.array([[50.0], [97.0]]))
    >>> found = verdict(means, Budget(min_retention_pct=95.0))
    >>> found.shortfall_pp.tolist(), found.pick.tolist()
    ([[45.0], [0.0]], [1])
    """
    missing = np.zeros_like(means.accuracy)
    floors: list[Floats | float] = []
    if budget.min_accuracy is not None:
        floors.append(budget.min_accuracy)
    if budget.within_pp is not None:
        floors.append(means.accuracy.max(axis=0) - budget.within_pp / 100)
    for floor in floors:
        missing = np.maximum(missing, 100 * (floor - means.accuracy))
    if budget.min_retention_pct is not None:
        missing = np.maximum(missing, budget.min_retention_pct - means.kept)
    missing = np.where(missing <= 100 * EDGE, 0.0, missing)
    meets = missing == 0
    by_accuracy = budget.decides == "accuracy"
    first, second = (means.accuracy, means.kept) if by_accuracy else (means.kept, means.accuracy)
    top = np.where(meets, first, -np.inf)
    # Means are sums in one fixed order; equal runs give equal means up to rounding.
    equal = meets & (top >= top.max(axis=0) - EDGE)
    if by_accuracy and within is not None:
        behind = top >= top.max(axis=0) - within[:, None] - EDGE
        equal |= meets & behind & (top >= share * top.max(axis=0))
    pick = np.where(equal, second, -np.inf).argmax(axis=0)
    return Verdict(missing, np.where(meets.any(axis=0), pick, -1))


class Judged:
    """One field under one budget."""

    def __init__(
        self,
        field: Field,
        budget: Budget,
        runs: pd.DataFrame,
        drawn: Means,
        images: Images,
        flags: Mapping[Cell, Fit | None],
        underfit_fraction: float,
    ) -> None:
        self.field, self.budget, self.runs, self.flags = field, budget, runs, flags
        self.candidates, self.images, self.share = field.candidates, images, underfit_fraction
        self.means = observed(self.candidates)
        # Without ties, to find the highest accuracy among those that meet.
        meets = verdict(self.means, budget).shortfall_pp[:, 0] == 0
        self.within = self._within(meets)
        self.now = verdict(self.means, budget, self.within, underfit_fraction)
        found = verdict(drawn, budget, self.within, underfit_fraction)
        self.p_meets = (found.shortfall_pp == 0).mean(axis=1)
        self.p_chosen = np.array([(found.pick == i).mean() for i in range(len(self.candidates))])
        self.p_none = float((found.pick < 0).mean())
        self.several = any(len(one.seeds) > 1 for one in self.candidates)
        self.draws_of: Drawn = SEEDS_AND_IMAGES if drawn.with_images else SEEDS
        self.floor = underfit_fraction * _best_test(self.candidates, field.selected_on)

    def _within(self, among: NDArray[np.bool_]) -> Floats:
        """How far behind the highest accuracy each candidate can lie and not be clearly lower."""
        top = int(np.where(among, self.means.accuracy[:, 0], -np.inf).argmax())
        gaps = [lead(self.candidates[top], one, "accuracy", self.images) for one in self.candidates]
        return np.array([gap.blur_pp / 100 for gap in gaps])

    @cached_property
    def order(self) -> list[int]:
        """Candidates, the best first: those that meet by what decides, then by their shortfall."""
        missing = self.now.shortfall_pp[:, 0]
        accuracy, kept = self.means.accuracy[:, 0], self.means.kept[:, 0]
        by_accuracy = self.budget.decides == "accuracy"
        first, second = (accuracy, kept) if by_accuracy else (kept, accuracy)
        pick = int(self.now.pick[0])
        return sorted(
            range(len(missing)), key=lambda i: (i != pick, missing[i], -first[i], -second[i], i)
        )

    def standing(self, index: int, place: int) -> Standing:
        if self.now.shortfall_pp[index, 0] > 0:
            return "nearest_miss" if place == 0 else "misses"
        return ("chosen", "runner_up", "meets")[min(place, 2)]

    def said(self, index: int, place: int, n_unfinished: int) -> dict[str, Any]:
        """What `choice.Candidacy` says of a candidate in its place, 0 the best."""
        one = self.candidates[index]
        key = one.cell
        several = len(one.seeds) > 1
        worst = int(one.kept.mean(axis=0).argmin())
        least_on = self.field.transfers[worst]
        found = summarise(np.column_stack([one.chosen_by, one.test, one.kept[:, worst]]))
        soup = one.seeds == (SOUP,)
        reasons = [] if several else [f"one {'soup' if soup else 'run'}: no SD and no probability"]
        if found.n[1] < len(one.seeds):
            reasons.append(f"test accuracy in {found.n[1]} of {len(one.seeds)} runs")
        return {
            "standing": self.standing(index, place),
            "role": key.role,
            "method": key.method,
            "learning_rate": key.learning_rate,
            "alpha": one.alpha,
            "weights": one.weights,
            "n": len(one.runs),
            "n_unfinished": n_unfinished,
            "accuracy": float(self.means.accuracy[index, 0]),
            "test_accuracy": number(found.mean[1]),
            "sd_test_accuracy": number(found.sd[1]),
            "retention_pct": float(self.means.kept[index, 0]),
            "sd_retention_pct": number(found.sd[2]),
            "least_on": least_on,
            **self._split(one, least_on),
            "fit": self._fit(found.mean[1], index),
            "shortfall_pp": float(self.now.shortfall_pp[index, 0]),
            "p_meets": float(self.p_meets[index]) if several else None,
            # A soup is the same in every draw.
            "p_chosen": float(self.p_chosen[index]) if self.several and not soup else None,
            "p_none": self.p_none if self.several else None,
            "draws_of": self.draws_of if self.several else None,
            "run_ids": self.runs["run_id"].iloc[one.runs].tolist(),
            "reason": "; ".join(reasons) or None,
            **(self._lead(least_on, n_unfinished) if place == 0 else {}),
        }

    def _split(self, one: Candidate, transfer: str) -> dict[str, Any]:
        """What of the loss is hidden and what gone; nothing of weights that no run trained."""
        if one.weights != AS_TRAINED:
            return {}
        columns = [f"transfer.{transfer}.{field}" for field in SPLIT]
        values = matrix(self.runs.iloc[one.runs].reindex(columns=columns), columns)
        return dict(zip(SPLIT, map(number, summarise(values).mean), strict=True))

    def _fit(self, test: float, index: int) -> Fit | None:
        """Against the floor; what lies below it of a damaged cell is damaged."""
        value = test if np.isfinite(test) else float(self.means.accuracy[index, 0])
        if not np.isfinite(self.floor):
            return None
        if value >= self.floor:
            return "fits"
        return "damaged" if self.flags[self.candidates[index].cell] == DAMAGED else "underfits"

    def _lead(self, least_on: str, n_unfinished: int) -> dict[str, Any]:
        """What only the best row says: its lead over the next one, what would change it."""
        first, *others = self.order
        met = int((self.now.shortfall_pp[:, 0] == 0).sum())
        best, other = self.candidates[first], self.candidates[others[0]] if met > 1 else None
        gap = lead(best, other, self.budget.decides, self.images)
        n = self.images.count(best.ids, best.names[0])
        trade = self._trade(first)
        few = self.images.few_right(best.ids[0], least_on)
        few = few and f"on {least_on} {few}"
        told = Evidence(self.field, self.budget, best, met, n_unfinished, gap, trade, n, few)
        return {
            "lead_pp": gap.pp,
            "lead_ci_low": gap.ci.low,
            "lead_ci_high": gap.ci.high,
            "would_change": "; ".join(evidence(told)) or None,
        }

    def _trade(self, first: int) -> tuple[Candidate, Lead] | None:
        """What keeps most of those not clearly below the best in accuracy, if it keeps more.

        Where accuracy decides, and retention between equals, what reaches most of the equals.
        """
        accuracy, kept = self.means.accuracy[:, 0], self.means.kept[:, 0]
        able = accuracy >= self.share * accuracy.max()
        if self.budget.decides == "accuracy":
            able &= self.now.shortfall_pp[:, 0] == 0
        wanted, own = (kept, accuracy) if self.budget.decides == "retention" else (accuracy, kept)
        for i in sorted(np.flatnonzero(able), key=lambda i: (-wanted[i], -own[i], i)):
            if wanted[i] <= wanted[first] + EDGE:
                return None
            gap = lead(self.candidates[first], self.candidates[i], "accuracy", self.images)
            if not gap.told_apart:
                return self.candidates[i], gap
        return None


def _best_test(candidates: Sequence[Candidate], selected_on: str) -> float:
    """The best mean accuracy of adapted weights, of the test part where it was read."""
    own = [one for one in candidates if one.weights == AS_TRAINED] or list(candidates)
    tested = [one.test[np.isfinite(one.test)] for one in own]
    if any(values.size for values in tested):
        return max(float(values.mean()) for values in tested if values.size)
    return max(float(one.chosen_by.mean()) for one in own)
