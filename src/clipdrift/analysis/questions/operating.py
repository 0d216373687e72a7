"""Where each method is used: the learning rate with the best validation accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.cell_metrics import reached
from clipdrift.analysis.questions.paired import default_metrics
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells, summarise
from clipdrift.analysis.statistics.columns import VAL_ACCURACY, column
from clipdrift.analysis.statistics.influence import Images


class OperatingPoint(NamedTuple):
    """The cell of a method with the best mean validation accuracy, and all rates it was run at."""

    key: CellKey
    val_accuracy: float | None
    runs: Positions
    rates: list[float]


def rows(
    frame: pd.DataFrame, *, images: Images | None = None, level: float = 0.95
) -> list[dict[str, Any]]:
    """What each method reaches and keeps at its best mean validation accuracy over seeds.

    The test part has no say in the choice. Equal means: the lower learning rate.

    Args:
        frame: one row per finished run.
        images: which images each of these runs was right on.
        level: coverage.

    Returns:
        One dict per backbone, target, method and metric: `backbone, target, role, method, lr,
        val_accuracy (mean, what was chosen by)`, and the fields of a row of `cells` but for `fit`.
        Without any validation accuracy one row with nulls and the reason.
    """
    runs = in_order(frame)
    metrics = default_metrics(runs)
    out: list[dict[str, Any]] = []
    for point in operating_points(runs):
        head = {**point.key._asdict(), "val_accuracy": point.val_accuracy}
        if point.val_accuracy is None:
            out.append({**head, **_EMPTY, "reason": "no validation accuracy in these records"})
            continue
        own = reached(runs.iloc[point.runs], metrics, images or Images(), level)
        out += [{**head, **row} for row in own]
    return out


_EMPTY: dict[str, Any] = {
    "lr": None,
    **dict.fromkeys(["metric", "n", "mean", "sd", "n_images", "image_se"]),
    **dict.fromkeys(["ci_low", "ci_high", "interval_over"]),
    "run_ids": [],
}


def operating_points(runs: pd.DataFrame) -> Iterator[OperatingPoint]:
    """The operating point of every method on every target; `val_accuracy` None if unknown."""
    accuracy = column(runs, VAL_ACCURACY)
    grid = cells(runs)
    for series in dict.fromkeys(key[:4] for key in grid):
        own = {key: at for key, at in grid.items() if key[:4] == series}
        rates = [key.lr for key in own]
        means = {key: float(summarise(accuracy[at, None]).mean[0]) for key, at in own.items()}
        known = {key: mean for key, mean in means.items() if np.isfinite(mean)}
        if known:
            # The cells come by rising rate, and max keeps the first of equals.
            best = max(known, key=lambda key: known[key])
            yield OperatingPoint(best, known[best], own[best], rates)
        else:
            first = next(iter(own))
            yield OperatingPoint(first, None, np.array([], dtype=np.intp), rates)


__all__ = ["OperatingPoint", "operating_points", "rows"]
