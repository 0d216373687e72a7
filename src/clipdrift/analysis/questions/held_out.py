"""Forecasts of runs by models that saw no run of their cell, target, method or backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.lessons import MIN_CELLS, Cell, Lessons
from clipdrift.analysis.rows import Said, key
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.forecast_model import NO_INTERVAL_OF, Forecast

Split = Literal["cell", "target", "method", "backbone"]
SPLITS: tuple[Split, ...] = ("cell", "target", "method", "backbone")
"""What is left out at a time: what the forecast is told nothing about."""
MAX_CELL_FOLDS = 20
OfBackbone = Annotated[str | None, key("Backbone", words="null: all of them together")]
LeftOut = Annotated[Split, key("Left out", words="what forecasts were told nothing about")]
Numbers = NDArray[np.intp]
Why = Annotated[str | None, Said(words="why something is null, or runs are missing")]


class Held(NamedTuple):
    """Forecasts of runs by models that did not see their cell, target, method or backbone.

    `mean` (n,) is the mean retention of the runs that each model saw. NaN, and out of `there`,
    where a fold leaves too few cells to learn from. A method or backbone that a model has not
    learned from gets no interval: its ends are NaN.
    """

    split: Split
    n_folds: int
    forecast: Forecast
    mean: Floats
    there: NDArray[np.bool_]
    reason: str | None

    @property
    def bounded(self) -> bool:
        """Whether the forecasts have an interval, so that coverage can be told."""
        return self.split not in NO_INTERVAL_OF and bool(self.there.any())


def hold_out(data: Lessons, split: Split, level: float) -> Held:
    """Forecast every run from the others, leaving out one group at a time."""
    cells = data.labels(*Cell._fields)
    groups = cells % MAX_CELL_FOLDS if split == "cell" else data.labels(split)
    least = min(MIN_CELLS, len(np.unique(cells)) - 1)

    def others(out: NDArray[np.bool_]) -> Forecast:
        model = fit(data.moved[~out], data.kept[~out], cells[~out])
        found = model.forecast(data.moved[out], level)
        return found._replace(low=np.maximum(found.low, 0.0))

    return left_out(split, groups, cells, data.kept, others, least=least)


def left_out(
    split: Split,
    groups: Numbers,
    clusters: Numbers,
    outcome: Floats,
    others: Callable[[NDArray[np.bool_]], Forecast],
    *,
    least: int,
) -> Held:
    """Forecast every group from the others.

    Args:
        groups: (n,) what is left out at a time. clusters: (n,) what is counted.
        others: mask (n,) of those left out -> their forecast by all the rest.
        least: clusters without which nothing is learned.
    """
    empty = np.full((4, len(outcome)), np.nan)
    names = np.unique(groups)
    there = np.zeros(len(outcome), dtype=bool)
    for name in names if len(names) > 1 else []:
        out = groups == name
        if len(np.unique(clusters[~out])) < least:
            continue
        empty[:3, out] = others(out)
        empty[3, out] = outcome[~out].mean()
        there |= out
    reasons = []
    if len(names) < 2:
        reasons.append(f"one {split} in these records")
    elif not there.all():
        reasons.append(
            f"{int((~there).sum())} not forecast: too little to learn from without their {split}"
        )
    if split in NO_INTERVAL_OF:
        empty[1:3] = np.nan
        if there.any():
            reasons.append(f"no interval of a {split} that the forecast has not learned from")
    reason = "; ".join(reasons) or None
    return Held(split, len(names), Forecast(*empty[:3]), empty[3], there, reason)
