"""Which cells are not beaten in both target accuracy and retention?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells, number, summarise
from clipdrift.analysis.statistics.columns import Floats, column, outcome_columns
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, Cell, Fit, fits

ACCURACY = "test_accuracy"


def rows(
    frame: pd.DataFrame, *, underfit_fraction: float = UNDERFIT_FRACTION
) -> list[dict[str, Any]]:
    """Non-dominated cells in (mean test accuracy, mean retention), for each transfer dataset.

    A cell is dominated where another cell of the same backbone and target is at least as good in
    both means and better in one. Means are over the runs in which both are defined; cells without
    such a run take no part. A cell can be non-dominated because it hardly trained: see `fit`.

    Returns:
        One dict per backbone, target, transfer dataset and non-dominated cell, by falling
        accuracy: `backbone, target, transfer, role, method, lr, n, mean_test_accuracy,
        sd_test_accuracy, mean_retention_pct, sd_retention_pct, fit, n_cells, run_ids,
        reason`. `n_cells` is the number of cells compared.
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
) -> list[dict[str, Any]]:
    accuracy, retention = column(runs, ACCURACY), column(runs, outcome)
    values = np.column_stack([accuracy, retention])
    both = np.isfinite(accuracy) & np.isfinite(retention)
    used = {key: at[both[at]] for key, at in own.items() if both[at].any()}
    found = {key: summarise(values[at]) for key, at in used.items()}
    keys = list(found)
    means = np.array([found[key].mean for key in keys]).reshape(-1, 2)
    out = []
    for i in non_dominated(means):
        key, summary = keys[i], found[keys[i]]
        names = {"backbone": key.backbone, "target": key.target}
        transfer = outcome.removeprefix("transfer.").removesuffix(".retention_pct")
        cell = {"role": key.role, "method": key.method, "lr": key.lr}
        n = len(used[key])
        out.append(
            {
                **names,
                "transfer": transfer,
                **cell,
                "n": n,
                "mean_test_accuracy": float(summary.mean[0]),
                "sd_test_accuracy": number(summary.sd[0]),
                "mean_retention_pct": float(summary.mean[1]),
                "sd_retention_pct": number(summary.sd[1]),
                "fit": flags[key],
                "n_cells": len(keys),
                "run_ids": runs["run_id"].iloc[used[key]].tolist(),
                "reason": "one run: no SD" if n == 1 else None,
            }
        )
    return out


__all__ = ["non_dominated", "rows"]
