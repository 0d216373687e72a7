"""What a choice hangs on: its lead over the runner-up, and the evidence that would change it."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import NamedTuple

import numpy as np

from clipdrift.analysis.budget import Budget
from clipdrift.analysis.candidates import ADAPTED, SOUP, Candidate, Field
from clipdrift.analysis.intervals import Interval, t_ci
from clipdrift.analysis.power import seeds_needed
from clipdrift.analysis.signals import Floats

FEW_SEEDS = 6
"""Below this number of seeds a bootstrap has fewer than 500 distinct draws."""


class Lead(NamedTuple):
    """How much more the chosen candidate has of what decides, in percentage points.

    `ci` is the 95 % t interval over seeds that both have; None where they share fewer than two.
    """

    other: str | None
    pp: float | None
    ci: Interval
    sd_pp: float | None

    def fields(self) -> dict[str, float | None]:
        """As fields of a row."""
        return {"lead_pp": self.pp, "lead_ci_low": self.ci.low, "lead_ci_high": self.ci.high}


class Evidence(NamedTuple):
    """What `evidence` is told: the field, the best candidate in it, how many meet the budget."""

    field: Field
    budget: Budget
    best: Candidate
    n_meeting: int
    n_unfinished: int
    lead: Lead


def lead(best: Candidate, other: Candidate | None, decides: str) -> Lead:
    """The lead of one candidate over another in accuracy or in retention.

    Retention is that of the transfer dataset on which each of the two keeps least.

    Args:
        other: None where there is no second one that meets.
        decides: "accuracy" or "retention".
    """
    if other is None:
        return Lead(None, None, Interval(None, None), None)
    a, b = (_points(one, decides) for one in (best, other))
    shared = sorted(set(best.seeds) & set(other.seeds))
    paired = np.array([a[best.seeds.index(seed)] - b[other.seeds.index(seed)] for seed in shared])
    sd = float(paired.std(ddof=1)) if len(shared) > 1 else None
    return Lead(other.name, float(a.mean() - b.mean()), t_ci(paired), sd)


def _points(one: Candidate, decides: str) -> Floats:
    if decides == "accuracy":
        return 100 * one.chosen_by
    worst = int(one.kept.mean(axis=0).argmin())
    return np.asarray(one.kept[:, worst])


def evidence(told: Evidence) -> Iterator[str]:
    """What would make the answer surer, or another one: sentences without a full stop."""
    best, n = told.best, len(told.best.seeds)
    yield from _runner_up(told)
    if best.seeds == (SOUP,):
        yield "it is one soup: what another one of other seeds would keep is not known"
    elif n == 1:
        yield "one seed: run more, there is no telling how the answer depends on it"
    elif n < FEW_SEEDS:
        draws = comb(2 * n - 1, n)
        yield f"{n} seeds have {draws} distinct draws: more seeds make the probability finer"
    yield from _grid(told)
    if told.n_unfinished:
        runs = "run" if told.n_unfinished == 1 else "runs"
        yield f"{told.n_unfinished} {runs} of this cell did not finish: its means are of the rest"
    if len(best.runs) < best.n_runs:
        yield f"{best.n_runs - len(best.runs)} of {best.n_runs} runs lack a number asked for"
    if told.field.unjudged:
        yield f"not judged, numbers missing: {', '.join(told.field.unjudged)}"


def _runner_up(told: Evidence) -> Iterator[str]:
    gap = told.lead
    if told.n_meeting == 1 and len(told.field.candidates) > 1:
        yield "no other candidate meets the budget"
    if gap.other is None or gap.pp is None:
        return
    if gap.sd_pp is None:
        yield f"{gap.other} shares no two seeds with it: their lead has no interval"
    elif gap.sd_pp <= 1e-9:
        yield f"{gap.other} lies {gap.pp:.2g} pp behind at every seed"
    elif gap.ci.low is not None and gap.ci.low <= 0:
        seeds = seeds_needed(gap.pp, gap.sd_pp) if gap.pp > 0 else None
        step = f"about {seeds} seeds would" if seeds else "no number of seeds is likely to"
        yield f"not told apart from {gap.other} ({gap.pp:.2g} pp behind): {step} do it"


def _grid(told: Evidence) -> Iterator[str]:
    cell = told.best.cell
    rates = sorted(
        {
            one.cell.lr
            for one in told.field.candidates
            if (one.cell.role, one.cell.method) == (cell.role, cell.method)
        }
    )
    if len(rates) == 1:
        yield f"{cell.method} was tried at one learning rate: others may do better"
    elif cell.lr in (rates[0], rates[-1]):
        edge, way = ("lowest", "lower") if cell.lr == rates[0] else ("highest", "higher")
        yield f"{cell.lr:g} is the {edge} rate of {cell.method}: a {way} one may do better"
    alphas = sorted({one.alpha for one in told.field.candidates})
    if alphas == [ADAPTED]:
        yield "no interpolated weights were read: alphas below 1 need no training"


__all__ = ["Evidence", "Lead", "evidence", "lead"]
