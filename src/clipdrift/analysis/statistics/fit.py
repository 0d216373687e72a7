"""Has a cell learned its target: does it fit, does it underfit, or is it damaged?"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Literal

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import PEAK_VAL_ACCURACY, in_order
from clipdrift.analysis.statistics.columns import VAL_ACCURACY, column
from clipdrift.analysis.usable import CELL_KEY

Fit = Literal["fits", "underfits", "damaged"]
FITS, UNDERFITS, DAMAGED = "fits", "underfits", "damaged"
UNDERFIT_FRACTION = 0.9
REMARKS = {
    UNDERFITS: "underfits: it keeps what it keeps because it barely trained",
    DAMAGED: "damaged: past its peak, it has lost of the target too",
}
Cell = tuple[str, str, str, str, float]
"""Backbone, target, role, method, learning rate; a `CellKey` is one."""


def accuracy_column(runs: pd.DataFrame) -> str:
    """What fit is read from: test accuracy, or validation accuracy where none is given."""
    return "test_accuracy" if np.isfinite(column(runs, "test_accuracy")).any() else VAL_ACCURACY


def fits(runs: pd.DataFrame, fraction: float = UNDERFIT_FRACTION) -> dict[Cell, Fit | None]:
    """Whether each cell fits, underfits or is damaged, by mean accuracies over its runs.

    The line is `fraction` of the best cell of the same backbone and target. A cell fits on it or
    above. Below it, a cell is damaged if it is past its peak: if the same method at a lower rate,
    or the same runs at an earlier epoch, reached the line, or lay above the cell by more than the
    line lies below the best. Otherwise it underfits: it has not learned enough yet.

    Test accuracy; validation accuracy where a target has no test accuracy at all. Epochs are held
    against the validation accuracy of the end. None where the cell has no accuracy.
    """
    out: dict[Cell, Fit | None] = {}
    for _, part in in_order(runs).groupby(CELL_KEY[:2], sort=True):
        means = _means(part, accuracy_column(part))
        ends, peaks = _means(part, VAL_ACCURACY), _means(part, PEAK_VAL_ACCURACY)
        best, best_end = _highest(means.values()), _highest(ends.values())
        for cell, value in means.items():
            lower = [means[other] for other in means if other[:4] == cell[:4] and other < cell]
            past = _past(_highest(lower), value, best, fraction)
            past |= _past(peaks[cell], ends[cell], best_end, fraction)
            out[cell] = None if np.isnan(value) else _word(value, best, fraction, past)
    return out


def _means(part: pd.DataFrame, name: str) -> dict[Cell, float]:
    """Mean of a column by cell; NaN where no run has it."""
    values = column(part, name) if name in part else np.full(len(part), np.nan)
    found: dict[Cell, list[float]] = {}
    for cell, value in zip(
        zip(*map(part.get, CELL_KEY), strict=True), values.tolist(), strict=True
    ):
        found.setdefault(cell, []).append(value)
    known = {cell: [v for v in own if not np.isnan(v)] for cell, own in sorted(found.items())}
    return {cell: fmean(own) if own else np.nan for cell, own in known.items()}


def _highest(values: Iterable[float]) -> float:
    return max((value for value in values if not np.isnan(value)), default=np.nan)


def _past(peak: float, value: float, best: float, fraction: float) -> bool:
    """Whether a value below the line has come down to there; NaN has not."""
    line = fraction * best
    return bool(value < line and (peak >= line or peak - value > best - line))


def _word(value: float, best: float, fraction: float, past: bool) -> Fit:
    if value >= fraction * best:
        return "fits"
    return "damaged" if past else "underfits"
