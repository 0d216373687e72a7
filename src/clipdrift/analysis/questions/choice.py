"""Which method, learning rate and alpha best meets a budget, how surely, and what comes next?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.budget import REPORTED, Budget
from clipdrift.analysis.questions.candidates import (
    AS_TRAINED,
    SOUP,
    Candidate,
    Field,
    fields,
    name_of,
)
from clipdrift.analysis.questions.choice_evidence import Evidence, Lead, evidence, lead
from clipdrift.analysis.questions.draws import Means, observed, resampled
from clipdrift.analysis.rows import Drawn, Fits, OfTarget, Reason, RunIds, Said
from clipdrift.analysis.statistics.cell_means import matrix, number, summarise
from clipdrift.analysis.statistics.columns import Floats, outcome_columns
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.fit import DAMAGED, UNDERFIT_FRACTION, Cell, Fit, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.records.after import AfterReading

SPLIT = ("lost_pp", "gone_pp", "misaligned_pp")
N_RESAMPLES = 2000
SEED = 0
# Means of ratios of counts; this only keeps a mean that equals its floor from missing it.
EDGE = 1e-9
Standing = Literal["chosen", "runner_up", "meets", "nearest_miss", "misses", "none"]
CellPlace = tuple[str, str, str, float]
"""Backbone, target, method, learning rate."""


@dataclass(frozen=True, kw_only=True)
class Candidacy(OfTarget):
    """Method, learning rate and alpha that best meet a budget, the best first.

    budget: the floors in words, and what is to be highest among those that reach them
    min_accuracy: floor on accuracy, a fraction
    within_pp: floor on accuracy, percentage points below the best candidate
    min_retention_pct: floor on retention, on every transfer dataset
    transfers: transfer datasets on which retention counts
    selected_on: the accuracy that the choice reads
    leak: the test part had a say in the choice, or in which epoch a run kept
    n_candidates: of the target
    standing: none: nothing could be judged
    learning_rate: learning rate
    alpha: 1 the adapted weights; below, mixed with the untouched ones
    weights: adapted, interpolated, a soup or scaled: what the candidate is
    n: runs with every number asked for
    n_unfinished: runs of the cell that diverged, failed or were stopped
    accuracy: mean over seeds of selected_on
    test_accuracy: mean over seeds
    sd_test_accuracy: over seeds, ddof 1
    retention_pct: mean over seeds on least_on
    sd_retention_pct: over seeds, ddof 1
    least_on: the transfer dataset on which the candidate keeps least
    lost_pp: zero-shot accuracy lost on least_on, mean over seeds, where that was read in full
    gone_pp: the part of it that a ridge read-out lost too
    misaligned_pp: the rest, which it still finds
    shortfall_pp: the larger of what is missing to the floors; 0 meets
    p_meets: share of draws (draws_of) in which it meets the budget
    p_chosen: share in which it is the one chosen
    p_none: share in which no candidate meets
    draws_of: what the shares draw again
    lead_pp: of the chosen one over the runner-up in what decides
    lead_ci_low: 95 % interval of the lead
    would_change: the evidence that would make the answer surer or another
    """

    table: ClassVar = "choice"

    budget: str
    min_accuracy: float | None
    within_pp: float | None
    min_retention_pct: float | None
    transfers: list[str]
    selected_on: Literal["val_accuracy", "test_accuracy"]
    leak: bool
    n_candidates: Annotated[int, Said("count")]
    standing: Standing = "none"
    role: str | None = None
    method: str | None = None
    learning_rate: Annotated[float | None, Said("rate")] = None
    alpha: float | None = None
    weights: str | None = None
    n: Annotated[int, Said("count")] = 0
    n_unfinished: Annotated[int, Said("count")] = 0
    accuracy: float | None = None
    test_accuracy: float | None = None
    sd_test_accuracy: float | None = None
    retention_pct: Annotated[float | None, Said("one")] = None
    sd_retention_pct: Annotated[float | None, Said("one")] = None
    least_on: str | None = None
    lost_pp: Annotated[float | None, Said("one")] = None
    gone_pp: Annotated[float | None, Said("one")] = None
    misaligned_pp: Annotated[float | None, Said("one")] = None
    fit: Fits = None
    shortfall_pp: float | None = None
    p_meets: Annotated[float | None, Said("share")] = None
    p_chosen: Annotated[float | None, Said("share")] = None
    p_none: Annotated[float | None, Said("share")] = None
    draws_of: Drawn = None
    lead_pp: float | None = None
    lead_ci_low: float | None = None
    lead_ci_high: float | None = None
    would_change: str | None = None
    run_ids: RunIds = field(default_factory=list)
    reason: Reason = None

    @property
    def name(self) -> str:
        """Of the candidate, for people."""
        rate, alpha = self.learning_rate or 0.0, 1.0 if self.alpha is None else self.alpha
        return name_of(self.method or "", rate, self.weights or AS_TRAINED, alpha)


class Verdict(NamedTuple):
    """How candidates stand against a budget, (n_candidates, n_draws), and which is chosen.

    lost_pp: zero-shot accuracy lost on least_on, mean over seeds, where that was read in full
    gone_pp: the part of it that a ridge read-out lost too
    misaligned_pp: the rest, which it still finds
    shortfall_pp: the larger of what is missing to the floors, in percentage points; 0 meets.
    pick: index of the chosen one per draw, -1 where none meets.
    """

    shortfall_pp: Floats
    pick: NDArray[np.intp]


def rows(
    frame: pd.DataFrame,
    budgets: Sequence[Budget] = REPORTED,
    *,
    transfers: Sequence[str] | None = None,
    made: Sequence[AfterReading] = (),
    images: Images | None = None,
    at_chance: Mapping[tuple[str, str], str] | None = None,
    unfinished: Sequence[CellPlace] = (),
    underfit_fraction: float = UNDERFIT_FRACTION,
    top: int | None = 5,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> list[Candidacy]:
    """The candidates of every target, the best first, held against each budget.

    Candidates are the cells of a target, each cell at every alpha of interpolated weights that was
    read, and what was made of it after training. A candidate meets a budget where its means over
    seeds reach all floors; accuracy is that of validation, retention that of the transfer dataset
    on which it keeps least, so every one of them holds. The best of those that meet has the most
    of what the budget leaves open (`Budget.decides`); equals are told apart by the other of the
    two, then by their order. Where accuracy decides, those are equals whose accuracy is at least
    `underfit_fraction` of the highest and not told apart from it by the 95 % interval of the
    difference, over seeds and images: between them retention decides. If none meets, the nearest
    miss is the candidate whose larger shortfall, in percentage points, is smallest. The test part
    has no say where validation accuracies are known, and is reported.

    `p_meets` and `p_chosen` are the shares of draws of seeds, and of images where single ones are
    known (`draws_of`), in which the candidate meets the budget and is the one chosen. They tell how
    far the answer hangs on the seeds and images that there were. Of others they know nothing: n
    seeds have few distinct draws (3: 10), so shares are nearer to 0 and 1 than they should be.

    Args:
        frame: one row per finished run.
        budgets: the questions.
        transfers: datasets on which retention counts, default all.
        made: readings of weights made after training, of the runs in the frame.
        images: which images each of the runs, and of what was made of them, was right on.
        at_chance: as `frame.at_chance` gives it: datasets on which no budget is judged.
        unfinished: the cell of every run that did not finish.
        underfit_fraction: a candidate fits from this share of the best cell's accuracy on.
        top: rows per target and budget, None for all.
        n_resamples, seed: of the bootstrap.

    Returns:
        One row per backbone, target, budget and candidate. Where nothing can be judged one row with
        `standing` "none" and the reason.

    Reference: Owen (2007), Annals of Applied Statistics 1(2), for draws of seeds and images.
    """
    runs = in_order(frame)
    names = _transfers(runs) if transfers is None else list(transfers)
    if runs.empty or not names:
        return []
    out = []
    flags = fits(runs, underfit_fraction)
    for asked in fields(runs, names, made, at_chance):
        known = images or Images()
        drawn = resampled(asked.candidates, known, n_resamples, seed) if asked.candidates else None
        for budget in budgets:
            head = Candidacy(
                backbone=asked.backbone,
                target=asked.target,
                budget=budget.words,
                **vars(budget),
                transfers=list(asked.transfers),
                selected_on=asked.selected_on,
                leak=asked.leak,
                n_candidates=len(asked.candidates),
            )
            if drawn is None:
                out.append(replace(head, reason=_nobody(asked)))
                continue
            judged = _Judged(asked, budget, runs, drawn, known, flags, underfit_fraction)
            order = judged.order[:top]
            out += [judged.row(head, i, place, unfinished) for place, i in enumerate(order)]
    return out


def _nobody(field: Field) -> str:
    if not field.transfers:
        return "; ".join(f"{name}: {why}" for name, why in field.at_chance.items())
    return "no run has both an accuracy and a retention on every transfer dataset"


def _transfers(runs: pd.DataFrame) -> list[str]:
    ends = ("transfer.", ".retention_pct")
    names = outcome_columns(runs)
    return [name.removeprefix(ends[0]).removesuffix(ends[1]) for name in names]


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


class _Judged:
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
        """By how much each candidate can lie behind the highest accuracy and not be told apart."""
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

    def row(
        self, head: Candidacy, index: int, place: int, unfinished: Sequence[CellPlace]
    ) -> Candidacy:
        one = self.candidates[index]
        key = one.cell
        lost = unfinished.count((key.backbone, key.target, key.method, key.learning_rate))
        several = len(one.seeds) > 1
        worst = int(one.kept.mean(axis=0).argmin())
        found = summarise(np.column_stack([one.chosen_by, one.test, one.kept[:, worst]]))
        soup = one.seeds == (SOUP,)
        reasons = [] if several else [f"one {'soup' if soup else 'run'}: no SD and no probability"]
        if found.n[1] < len(one.seeds):
            reasons.append(f"test accuracy in {found.n[1]} of {len(one.seeds)} runs")
        row = replace(
            head,
            standing=self.standing(index, place),
            role=key.role,
            method=key.method,
            learning_rate=key.learning_rate,
            alpha=one.alpha,
            weights=one.weights,
            n=len(one.runs),
            n_unfinished=lost,
            accuracy=float(self.means.accuracy[index, 0]),
            test_accuracy=number(found.mean[1]),
            sd_test_accuracy=number(found.sd[1]),
            retention_pct=float(self.means.kept[index, 0]),
            sd_retention_pct=number(found.sd[2]),
            least_on=self.field.transfers[worst],
            **self._split(one, self.field.transfers[worst]),
            fit=self._fit(found.mean[1], index),
            shortfall_pp=float(self.now.shortfall_pp[index, 0]),
            p_meets=float(self.p_meets[index]) if several else None,
            # A soup is the same in every draw.
            p_chosen=float(self.p_chosen[index]) if self.several and not soup else None,
            p_none=self.p_none if self.several else None,
            draws_of=self.draws_of if self.several else None,
            run_ids=self.runs["run_id"].iloc[one.runs].tolist(),
            reason="; ".join(reasons) or None,
        )
        return self._with_lead(row, lost) if place == 0 else row

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

    def _with_lead(self, row: Candidacy, lost: int) -> Candidacy:
        """What only the best row says: its lead over the next one, what would change it."""
        first, *others = self.order
        met = int((self.now.shortfall_pp[:, 0] == 0).sum())
        best, other = self.candidates[first], self.candidates[others[0]] if met > 1 else None
        gap = lead(best, other, self.budget.decides, self.images)
        n = self.images.count(best.ids, best.names[0])
        trade = self._trade(first)
        few = self.images.few_right(best.ids[0], str(row.least_on))
        few = few and f"on {row.least_on} {few}"
        told = Evidence(self.field, self.budget, best, met, lost, gap, trade, n, few)
        return replace(
            row,
            lead_pp=gap.pp,
            lead_ci_low=gap.ci.low,
            lead_ci_high=gap.ci.high,
            would_change="; ".join(evidence(told)) or None,
        )

    def _trade(self, first: int) -> tuple[Candidate, Lead] | None:
        """What keeps most of those not told apart in accuracy from the best, if it keeps more.

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
