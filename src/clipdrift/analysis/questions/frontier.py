"""Which cells are not beaten in both target accuracy and retention?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.rows import Fits, OfCell, Reason, RunIds, Said
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells, number, summarise
from clipdrift.analysis.statistics.columns import Floats, column, outcome_columns
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, Cell, Fit, fits

ACCURACY = "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class Unbeaten(OfCell):
    """Non-dominated cells in mean test accuracy and mean retention.

    transfer: the transfer dataset of the retention
    n: runs with both
    mean_test_accuracy: a fraction
    sd_test_accuracy: over seeds, ddof 1
    mean_retention_pct: percent
    sd_retention_pct: over seeds, ddof 1
    n_cells: cells compared
    """

    table: ClassVar = "frontier"

    transfer: str
    n: Annotated[int, Said("count")]
    mean_test_accuracy: float
    sd_test_accuracy: float | None
    mean_retention_pct: Annotated[float, Said("one")]
    sd_retention_pct: Annotated[float | None, Said("one")]
    fit: Fits
    n_cells: Annotated[int, Said("count")]
    run_ids: RunIds
    reason: Reason


def rows(frame: pd.DataFrame, *, underfit_fraction: float = UNDERFIT_FRACTION) -> list[Unbeaten]:
    """Non-dominated cells in (mean test accuracy, mean retention), for each transfer dataset.

    A cell is dominated where another cell of the same backbone and target is at least as good in
    both means and better in one. Means are over the runs in which both are defined; cells without
    such a run take no part. A cell can be non-dominated because it hardly trained: see `fit`.

    Returns:
        One row per backbone, target, transfer dataset and non-dominated cell, by falling accuracy.
    """
    runs = in_order(frame)
    grid, flags = cells(runs), fits(runs, underfit_fraction)
    places = list(dict.fromkeys(key[:2] for key in grid))
    out = []
    for place in places:
        own = {key: at for key, at in grid.items() if key[:2] == place}
        for outcome in outcome_columns(runs):
            out += _front(runs, own, outcome, flags)
    return out


def non_dominated(points: Floats) -> list[int]:
    """Indices of the points that no other point beats, by falling first coordinate.

    Args:
        points: (n, 2), finite, larger is better. Equal points do not beat each other.

    >>> non_dominated(np.array([[0.9, 50.0], [0.8, 70.0], [0.7, 60.0], [0.9, 50.0]]))
    [0, 3, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i, 0], -points[i, 1]))
    kept: list[int] = []
    for i in order:
        if (
            not kept
            or points[i, 1] > points[kept[-1], 1]
            or np.array_equal(points[i], points[kept[-1]])
        ):
            kept.append(i)
    return kept


def _front(
    runs: pd.DataFrame,
    own: dict[CellKey, Positions],
    outcome: str,
    flags: dict[Cell, Fit | None],
) -> list[Unbeaten]:
    accuracy, retention = column(runs, ACCURACY), column(runs, outcome)
    values = np.column_stack([accuracy, retention])
    both = np.isfinite(accuracy) & np.isfinite(retention)
    used = {key: at[both[at]] for key, at in own.items() if both[at].any()}
    found = {key: summarise(values[at]) for key, at in used.items()}
    keys = list(found)
    means = np.array([found[key].mean for key in keys]).reshape(-1, 2)
    transfer = outcome.removeprefix("transfer.").removesuffix(".retention_pct")
    return [
        Unbeaten(
            **key._asdict(),
            transfer=transfer,
            n=len(used[key]),
            mean_test_accuracy=float(summary.mean[0]),
            sd_test_accuracy=number(summary.sd[0]),
            mean_retention_pct=float(summary.mean[1]),
            sd_retention_pct=number(summary.sd[1]),
            fit=flags[key],
            n_cells=len(keys),
            run_ids=runs["run_id"].iloc[used[key]].tolist(),
            reason="one run: no SD" if len(used[key]) == 1 else None,
        )
        for key, summary in ((keys[i], found[keys[i]]) for i in non_dominated(means))
    ]
