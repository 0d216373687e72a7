"""Which method, learning rate and alpha best meets a budget, how surely, and what comes next?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.budget import REPORTED, Budget
from clipdrift.analysis.questions.candidates import AS_TRAINED, Field, fields, name_of
from clipdrift.analysis.questions.draws import resampled
from clipdrift.analysis.questions.judged import Judged, Standing
from clipdrift.analysis.rows import Drawn, Fits, OfTarget, Reason, RunIds, Said
from clipdrift.analysis.statistics.columns import outcome_columns
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.records.after import AfterReading

N_RESAMPLES = 2000
SEED = 0
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
    of what the budget leaves open (`Budget.decides`); equals are ordered by the other of the
    two, then by their order. Where accuracy decides, those are equals whose accuracy is at least
    `underfit_fraction` of the highest and not clearly below it by the 95 % interval of the
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
            judged = Judged(asked, budget, runs, drawn, known, flags, underfit_fraction)
            for place, i in enumerate(judged.order[:top]):
                cell = asked.candidates[i].cell
                place_of = (cell.backbone, cell.target, cell.method, cell.learning_rate)
                out.append(replace(head, **judged.said(i, place, unfinished.count(place_of))))
    return out


def _nobody(field: Field) -> str:
    if not field.transfers:
        return "; ".join(f"{name}: {why}" for name, why in field.at_chance.items())
    return "no run has both an accuracy and a retention on every transfer dataset"


def _transfers(runs: pd.DataFrame) -> list[str]:
    ends = ("transfer.", ".retention_pct")
    names = outcome_columns(runs)
    return [name.removeprefix(ends[0]).removesuffix(ends[1]) for name in names]
