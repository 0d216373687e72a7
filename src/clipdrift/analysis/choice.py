"""Which method, learning rate and alpha best meets a budget, how surely, and what comes next?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.budget import REPORTED, Budget
from clipdrift.analysis.candidates import (
    AS_TRAINED,
    SOUP,
    Candidate,
    Field,
    Means,
    fields,
    observed,
    resampled,
)
from clipdrift.analysis.cells import number, summarise
from clipdrift.analysis.choice_evidence import Evidence, evidence, lead
from clipdrift.analysis.fit import DAMAGED, UNDERFIT_FRACTION, Fit, fits
from clipdrift.analysis.frame import in_order
from clipdrift.analysis.signals import Floats, outcome_columns
from clipdrift.records.after import AfterReading

N_RESAMPLES = 2000
SEED = 0
# Means of ratios of counts; this only keeps a mean that equals its floor from missing it.
EDGE = 1e-9
CHOSEN, RUNNER_UP, MEETS = "chosen", "runner_up", "meets"
CellPlace = tuple[str, str, str, float]
"""Backbone, target, method, learning rate."""
NEAREST_MISS, MISSES, NONE = "nearest_miss", "misses", "none"


class Verdict(NamedTuple):
    """How candidates stand against a budget, (n_candidates, n_draws), and which is chosen.

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
    unfinished: Sequence[CellPlace] = (),
    underfit_fraction: float = UNDERFIT_FRACTION,
    top: int | None = 5,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """The candidates of every target, the best first, held against each budget.

    Candidates are the cells of a target, each cell at every alpha of interpolated weights that was
    read, and what was made of it after training. A candidate meets a budget where its means over
    seeds reach all floors; accuracy is that of validation, retention that of the transfer dataset
    on which it keeps least, so every one of them holds. The best of those that meet has the most
    of what the budget leaves open (`Budget.decides`); equals are told apart by the other of the
    two, then by their order. If none meets, the nearest miss is the candidate whose larger
    shortfall, in percentage points, is smallest. The test part has no say where validation
    accuracies are known, and is reported.

    `p_meets` and `p_chosen` are the shares of bootstrap draws of seeds in which the candidate
    meets the budget and is the one chosen. They tell how far the answer hangs on single seeds
    among those that were run. They know nothing of seeds that were not: n seeds have few distinct
    draws (3: 10), so shares are coarse and nearer to 0 and 1 than they should be.

    Args:
        frame: one row per finished run.
        budgets: the questions.
        transfers: datasets on which retention counts, default all.
        made: readings of weights made after training, of the runs in the frame.
        unfinished: the cell of every run that did not finish.
        underfit_fraction: a candidate fits from this share of the best cell's accuracy on.
        top: rows per target and budget, None for all.
        n_resamples, seed: of the bootstrap.

    Returns:
        One dict per backbone, target, budget and candidate; keys in `analysis.schema.json`. Where
        nothing can be judged one row with `standing` "none" and the reason.

    Reference: Efron & Tibshirani (1993), chapter 6 for the bootstrap over replicates.
    """
    runs = in_order(frame)
    names = _transfers(runs) if transfers is None else list(transfers)
    if runs.empty or not names:
        return []
    out = []
    for field in fields(runs, names, made):
        for budget in budgets:
            head = {
                "backbone": field.backbone,
                "target": field.target,
                "budget": budget.words,
                **budget.__dict__,
                "transfers": names,
                "selected_on": field.selected_on,
                "leak": field.leak,
                "n_candidates": len(field.candidates),
            }
            if not field.candidates:
                why = "no run has both an accuracy and a retention on every transfer dataset"
                out.append({**head, **_NOBODY, "reason": why})
                continue
            judged = _Judged(field, budget, runs, underfit_fraction, n_resamples, seed)
            order = judged.order[:top]
            out += [{**head, **judged.row(i, place, unfinished)} for place, i in enumerate(order)]
    return out


def _transfers(runs: pd.DataFrame) -> list[str]:
    ends = ("transfer.", ".retention_pct")
    names = outcome_columns(runs)
    return [name.removeprefix(ends[0]).removesuffix(ends[1]) for name in names]


def verdict(means: Means, budget: Budget) -> Verdict:
    """Hold means against a budget, draw by draw; "the best" is the best of the draw.

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
    pick = np.where(equal, second, -np.inf).argmax(axis=0)
    return Verdict(missing, np.where(meets.any(axis=0), pick, -1))


class _Judged:
    """One field under one budget."""

    def __init__(
        self,
        field: Field,
        budget: Budget,
        runs: pd.DataFrame,
        underfit_fraction: float,
        n_resamples: int,
        seed: int,
    ) -> None:
        self.field, self.budget, self.runs = field, budget, runs
        self.candidates = field.candidates
        self.means = observed(self.candidates)
        self.now = verdict(self.means, budget)
        drawn = verdict(resampled(self.candidates, n_resamples, seed), budget)
        self.p_meets = (drawn.shortfall_pp == 0).mean(axis=1)
        self.p_chosen = np.array([(drawn.pick == i).mean() for i in range(len(self.candidates))])
        self.p_none = float((drawn.pick < 0).mean())
        self.several = any(len(one.seeds) > 1 for one in self.candidates)
        self.flags = fits(runs, underfit_fraction)
        self.floor = underfit_fraction * _best_test(self.candidates, field.selected_on)

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

    def standing(self, index: int, place: int) -> str:
        if self.now.shortfall_pp[index, 0] > 0:
            return NEAREST_MISS if place == 0 else MISSES
        return (CHOSEN, RUNNER_UP)[place] if place < 2 else MEETS

    def row(self, index: int, place: int, unfinished: Sequence[CellPlace]) -> dict[str, Any]:
        one = self.candidates[index]
        key = one.cell
        lost = unfinished.count((key.backbone, key.target, key.method, key.lr))
        several = len(one.seeds) > 1
        worst = int(one.kept.mean(axis=0).argmin())
        values = np.column_stack([one.chosen_by, one.test, one.kept[:, worst]])
        found = summarise(values)
        soup = one.seeds == (SOUP,)
        alone = "one soup" if soup else "one run"
        reasons = [] if several else [f"{alone}: no SD and no probability"]
        if found.n[1] < len(one.seeds):
            reasons.append(f"test accuracy in {found.n[1]} of {len(one.seeds)} runs")
        return {
            "standing": self.standing(index, place),
            "role": key.role,
            "method": key.method,
            "lr": key.lr,
            "alpha": one.alpha,
            "weights": one.weights,
            "n": len(one.runs),
            "n_unfinished": lost,
            "accuracy": float(self.means.accuracy[index, 0]),
            "test_accuracy": number(found.mean[1]),
            "sd_test_accuracy": number(found.sd[1]),
            "retention_pct": float(self.means.kept[index, 0]),
            "sd_retention_pct": number(found.sd[2]),
            "least_on": self.field.transfers[worst],
            "fit": self._fit(found.mean[1], index),
            "shortfall_pp": float(self.now.shortfall_pp[index, 0]),
            "p_meets": float(self.p_meets[index]) if several else None,
            # A soup is the same in every draw.
            "p_chosen": float(self.p_chosen[index]) if self.several and not soup else None,
            "p_none": self.p_none if self.several else None,
            **self._beside(place, lost),
            "run_ids": self.runs["run_id"].iloc[one.runs].tolist(),
            "reason": "; ".join(reasons) or None,
        }

    def _fit(self, test: float, index: int) -> Fit | None:
        """Against the floor; what lies below it of a damaged cell is damaged."""
        value = test if np.isfinite(test) else float(self.means.accuracy[index, 0])
        if not np.isfinite(self.floor):
            return None
        if value >= self.floor:
            return "fits"
        return "damaged" if self.flags[self.candidates[index].cell] == DAMAGED else "underfits"

    def _beside(self, place: int, lost: int) -> dict[str, Any]:
        """What only the best row says: its lead over the next one, what would change it."""
        if place > 0:
            return dict(_ONLY_BEST)
        first, *others = self.order
        met = int((self.now.shortfall_pp[:, 0] == 0).sum())
        other = self.candidates[others[0]] if met > 1 else None
        gap = lead(self.candidates[first], other, self.budget.decides)
        told = Evidence(self.field, self.budget, self.candidates[first], met, lost, gap)
        return {**gap.fields(), "would_change": "; ".join(evidence(told)) or None}


def _best_test(candidates: Sequence[Candidate], selected_on: str) -> float:
    """The best mean accuracy of adapted weights, of the test part where it was read."""
    own = [one for one in candidates if one.weights == AS_TRAINED] or list(candidates)
    tested = [one.test[np.isfinite(one.test)] for one in own]
    if any(values.size for values in tested):
        return max(float(values.mean()) for values in tested if values.size)
    return max(float(one.chosen_by.mean()) for one in own)


_ONLY_BEST = dict.fromkeys(["lead_pp", "lead_ci_low", "lead_ci_high", "would_change"])
_NOBODY: dict[str, Any] = {
    "standing": NONE,
    **dict.fromkeys(
        [
            "role",
            "method",
            "lr",
            "alpha",
            "weights",
            "n",
            "n_unfinished",
            "accuracy",
            "test_accuracy",
        ]
    ),
    **dict.fromkeys(["sd_test_accuracy", "retention_pct", "sd_retention_pct", "least_on"]),
    **dict.fromkeys(["fit", "shortfall_pp", "p_meets", "p_chosen", "p_none"]),
    **_ONLY_BEST,
    "run_ids": [],
}

__all__ = ["CHOSEN", "NEAREST_MISS", "NONE", "RUNNER_UP", "Verdict", "rows", "verdict"]
