"""Where each method is used: the learning rate with the best validation accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.cell_metrics import CellMetric, reached
from clipdrift.analysis.questions.paired import default_metrics
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells, summarise
from clipdrift.analysis.statistics.columns import VAL_ACCURACY, column
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images


@dataclass(frozen=True, kw_only=True)
class AtBest(CellMetric):
    """Each method at its best mean validation accuracy; none where no run has one.

    val_accuracy: mean over seeds: what the rate was chosen by
    """

    table: ClassVar = "operating_points"

    val_accuracy: float


class OperatingPoint(NamedTuple):
    """The cell of a method with the best mean validation accuracy, and all rates it was run at."""

    key: CellKey
    val_accuracy: float | None
    runs: Positions
    rates: list[float]


def rows(
    frame: pd.DataFrame,
    *,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
) -> list[AtBest]:
    """What each method reaches and keeps at its best mean validation accuracy over seeds.

    The test part has no say in the choice. Equal means: the lower learning rate.

    Returns:
        One row per backbone, target, method and metric.
    """
    runs = in_order(frame)
    metrics = default_metrics(runs)
    flags = fits(runs, underfit_fraction)
    return [
        AtBest(**vars(row), val_accuracy=point.val_accuracy)
        for point in operating_points(runs)
        if point.val_accuracy is not None
        for row in reached(
            point.key, flags[point.key], runs.iloc[point.runs], metrics, images or Images()
        )
    ]


def operating_points(runs: pd.DataFrame) -> Iterator[OperatingPoint]:
    """The operating point of every method on every target; `val_accuracy` None if unknown."""
    accuracy = column(runs, VAL_ACCURACY)
    grid = cells(runs)
    for series in dict.fromkeys(key[:4] for key in grid):
        own = {key: at for key, at in grid.items() if key[:4] == series}
        rates = [key.learning_rate for key in own]
        means = {key: float(summarise(accuracy[at, None]).mean[0]) for key, at in own.items()}
        known = {key: mean for key, mean in means.items() if np.isfinite(mean)}
        if known:
            # The cells come by rising rate, and max keeps the first of equals.
            best = max(known, key=lambda key: known[key])
            yield OperatingPoint(best, known[best], own[best], rates)
        else:
            first = next(iter(own))
            yield OperatingPoint(first, None, np.array([], dtype=np.intp), rates)
