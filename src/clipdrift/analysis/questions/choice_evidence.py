"""What a choice hangs on: its lead over the runner-up, and the evidence that would change it."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import NamedTuple

import numpy as np

from clipdrift.analysis.questions.budget import Budget
from clipdrift.analysis.questions.candidates import ADAPTED, SOUP, Candidate, Field
from clipdrift.analysis.questions.power import seeds_needed
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import Interval, t_ci

FEW_SEEDS = 6
"""Below this number of seeds a bootstrap has fewer than 500 distinct draws."""


class Lead(NamedTuple):
    """How much more one candidate has than another, in percentage points.

    `ci` is the 95 % interval over the seeds that both have and, where single images are known, over
    images; None where they share fewer than two seeds. `sd_pp` is over those seeds, `image_se_pp`
    the error from images alone.
    """

    other: str | None
    pp: float | None
    ci: Interval
    sd_pp: float | None
    image_se_pp: float | None = None

    @property
    def blur_pp(self) -> float:
        """By how much two candidates can differ without a clear difference.

        The half-width of the interval; without one two errors from images; 0 if nothing is known.
        """
        if self.ci.low is None or self.ci.high is None:
            return 2 * (self.image_se_pp or 0.0)
        return (self.ci.high - self.ci.low) / 2

    @property
    def told_apart(self) -> bool:
        """Whether they differ by more than that."""
        return self.pp is not None and abs(self.pp) > self.blur_pp


class Evidence(NamedTuple):
    """What `evidence` is told: the field, the best candidate in it, how many meet the budget.

    lead: over the runner-up, in what decides. trade: a candidate that keeps or reaches more, and
    the lead over it in accuracy, which does not tell the two apart. n_images: that the choice
    reads accuracy on. few_right: what its retention cannot tell, of few images.
    """

    field: Field
    budget: Budget
    best: Candidate
    n_meeting: int
    n_unfinished: int
    lead: Lead
    trade: tuple[Candidate, Lead] | None = None
    n_images: int | None = None
    few_right: str | None = None


def lead(best: Candidate, other: Candidate | None, decides: str, images: Images) -> Lead:
    """The lead of one candidate over another in accuracy or in retention.

    Retention is that of the transfer dataset on which each of the two keeps least; where that is
    not the same one, they were not read on the same images, and the interval is over seeds.

    Args:
        other: None where there is no second one that meets.
        decides: "accuracy" or "retention".
    """
    if other is None:
        return Lead(None, None, Interval(None, None), None)
    places = [0 if decides == "accuracy" else 1 + _least(one) for one in (best, other)]
    a, b = (_points(one, place) for one, place in zip((best, other), places, strict=True))
    shared = sorted(set(best.seeds) & set(other.seeds))
    mine, its = ([one.seeds.index(seed) for seed in shared] for one in (best, other))
    paired = a[mine] - b[its]
    sd = float(paired.std(ddof=1)) if len(shared) > 1 else None
    gap = Lead(other.name, float(a.mean() - b.mean()), t_ci(paired), sd)
    if shared and places[0] == places[1]:
        found = _over_images(best, other, mine, its, places[0], images)
        gap = gap if found is None else gap._replace(ci=found[0], image_se_pp=found[1])
    return gap


def _over_images(
    best: Candidate, other: Candidate, mine: list[int], its: list[int], k: int, images: Images
) -> tuple[Interval, float] | None:
    """Interval over seeds and images, error from images, both in points; None where not known."""
    a = images.influence([best.ids[i] for i in mine], best.names[k])
    b = images.influence([other.ids[i] for i in its], other.names[k])
    if a is None or b is None or a.values.shape != b.values.shape:
        return None
    found, scale = a.less(b).crossed(), 100 if k == 0 else 1
    low, high = (None if end is None else scale * end for end in found.ci)
    return Interval(low, high), scale * found.image_se


def _points(one: Candidate, k: int) -> Floats:
    return 100 * one.chosen_by if k == 0 else np.asarray(one.kept[:, k - 1])


def _least(one: Candidate) -> int:
    return int(one.kept.mean(axis=0).argmin())


def evidence(told: Evidence) -> Iterator[str]:
    """What would make the answer surer, or another one: sentences without a full stop."""
    best, n = told.best, len(told.best.seeds)
    yield from _runner_up(told)
    yield from _trade(told)
    if best.seeds == (SOUP,):
        yield "it is one soup: what another one of other seeds would keep is not known"
    elif n == 1:
        yield "one seed: run more, there is no telling how the answer depends on it"
    elif n < FEW_SEEDS:
        draws = comb(2 * n - 1, n)
        yield f"{n} seeds have {draws} distinct draws: more seeds make the share finer"
    yield from _grid(told)
    if told.n_unfinished:
        runs = "run" if told.n_unfinished == 1 else "runs"
        yield f"{told.n_unfinished} {runs} of this cell did not finish: its means are of the rest"
    if len(best.runs) < best.n_runs:
        yield f"{best.n_runs - len(best.runs)} of {best.n_runs} runs lack a number asked for"
    if told.few_right is not None:
        yield told.few_right
    for name, why in told.field.at_chance.items():
        yield f"retention on {name} cannot be judged: {why}"
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
        yield f"not clearly different from {gap.other} ({gap.pp:.2g} pp behind): {step} settle it"


def _trade(told: Evidence) -> Iterator[str]:
    """What a candidate of no clearly different accuracy reaches and keeps."""
    if told.trade is None:
        return
    other, gap = told.trade
    on = f" on {told.n_images:,} images" if told.n_images else ""
    far = "as far" if not gap.pp else f"{abs(gap.pp):.2g} pp {'behind' if gap.pp > 0 else 'ahead'}"
    kept = [float(one.kept.mean(axis=0).min()) for one in (other, told.best)]
    what = told.field.selected_on.replace("_", " ")
    trade = f"which keeps {kept[0]:.1f} % where it keeps {kept[1]:.1f} %"
    yield f"in {what}{on} not clearly different from {other.name} ({far}), {trade}"


def _grid(told: Evidence) -> Iterator[str]:
    cell = told.best.cell
    rates = sorted(
        {
            one.cell.learning_rate
            for one in told.field.candidates
            if (one.cell.role, one.cell.method) == (cell.role, cell.method)
        }
    )
    if len(rates) == 1:
        yield f"{cell.method} was tried at one learning rate: others may do better"
    elif cell.learning_rate in (rates[0], rates[-1]):
        lowest, rate = cell.learning_rate == rates[0], f"{cell.learning_rate:g}"
        edge, way = ("lowest", "lower") if lowest else ("highest", "higher")
        yield f"{rate} is the {edge} rate of {cell.method}: a {way} one may do better"
    alphas = sorted({one.alpha for one in told.field.candidates})
    if alphas == [ADAPTED]:
        yield "no interpolated weights were read: alphas below 1 need no training"
