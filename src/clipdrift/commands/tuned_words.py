"""The answer of `tune` in words: one screen, and the section of the model's card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.finished.classifier import MODEL

if TYPE_CHECKING:
    from clipdrift.commands.tuned import Tuned

REACHED = {
    True: "; the confirmed figures reach it",
    False: "; the confirmed figures do NOT reach it",
    None: "",
}
HEADING = "## What was measured"
CARD = """\
{heading}

`{name}` was chosen of {n} candidates by validation images and the seeds of a search: {budget}.
{race}.

The figures below are of this model: it was trained from seeds that had no part in the choice, and
read on test images that had none. Intervals are 95 %, over images.

| figure | value |
| --- | --- |
| accuracy on the test images | {accuracy} |
| expected calibration error there | {ece} |
{kept}

Retention is zero-shot accuracy after training, percent of that of the untouched model on the same
images. Least accurate classes of its own: {worst}.

Classes of other sets that fell (runs as trained, all fresh seeds, p < 0.05 after Holm): {fell}.

{runs} runs were begun to choose and confirm it, {hours:.2f} hours of all workers together,
{energy}.

The weights derive from those of the backbone: its licence holds for them too. What the training
images allow is for you to say.
"""


@dataclass(frozen=True)
class Figure:
    """A number of the shipped model with its 95 % interval over images, and what lies beside it.

    before: of the untouched model. seeds: of each fresh seed alike made, where there are several.
    """

    value: float
    low: float | None
    high: float | None
    n_images: int | None
    before: float | None = None
    chance: float | None = None
    seeds: Sequence[float] = ()


def lines_of(tuned: Tuned) -> Iterator[str]:
    """The answer, for one screen."""
    yield f"Chosen: {tuned.name}, of {tuned.n_candidates} candidates"
    yield f"  asked for: {tuned.budget}{REACHED[tuned.met]}"
    yield f"  accuracy: {_share(tuned.accuracy)}; calibration error {100 * tuned.ece:.1f} points"
    for name, one in tuned.kept.items():
        yield f"  kept on {name}: {_percent(one)}"
    yield f"  search: {tuned.race}"
    yield (
        f"Begun: {tuned.runs} runs, {tuned.hours:.2f} hours of all workers together, "
        f"{tuned.energy}; the search spared the training of {tuned.runs_spared:.0f}"
    )
    yield f"Model: {Path(tuned.folder) / MODEL}   Report: {tuned.search_report}"


def card_of(tuned: Tuned) -> str:
    """The section of the model's card, Markdown."""
    kept = "\n".join(f"| kept on {name} | {_percent(one)} |" for name, one in tuned.kept.items())
    worst = ", ".join(f"{name} {value:.0%}" for name, value in tuned.worst_classes.items())
    fell = "; ".join(tuned.fell) or "none that stands out from its own spread"
    return CARD.format(
        heading=HEADING,
        name=tuned.name,
        budget=tuned.budget,
        n=tuned.n_candidates,
        race=tuned.race,
        accuracy=_share(tuned.accuracy),
        ece=f"{100 * tuned.ece:.1f} points",
        kept=kept,
        worst=worst,
        fell=fell,
        runs=tuned.runs,
        hours=tuned.hours,
        energy=tuned.energy,
    )


def _share(one: Figure) -> str:
    beside = [] if one.before is None else [f"untouched, by class texts, {100 * one.before:.1f} %"]
    beside += [] if one.chance is None else [f"chance {100 * one.chance:.1f} %"]
    ends = [None if end is None else 100 * end for end in (one.low, one.high)]
    each = [100 * value for value in one.seeds]
    scale = replace(one, value=100 * one.value, low=ends[0], high=ends[1], seeds=each)
    return "; ".join([_percent(scale), *beside])


def _percent(one: Figure) -> str:
    parts = []
    if one.low is not None and one.high is not None:
        parts.append(f"{one.low:.1f} to {one.high:.1f}")
    if one.n_images:
        parts.append(f"{one.n_images:,} images")
    if len(one.seeds) > 1:
        parts.append("fresh seeds: " + ", ".join(f"{value:.1f}" for value in one.seeds))
    return f"{one.value:.1f} %" + (f" ({'; '.join(parts)})" if parts else "")
