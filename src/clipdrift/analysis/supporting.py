"""Readings that published supporting figures need and the frame of runs does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from clipdrift.analysis.frame import numbers
from clipdrift.records import RunRecord

UNTOUCHED, PROBE_CV = "untouched.", "probe_cv."
LEVELS = "levels."


def with_supporting(
    runs: pd.DataFrame, records: Sequence[RunRecord], sensitivity: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """The frame of runs with two kinds of columns more, NaN where a run has no such reading.

    `untouched.<level>`: the level before training, epoch 0 of the history, in the level's unit.
    `probe_cv.<signal>`: SD / |mean| over balanced subsets of the probe set, a ratio.

    Args:
        runs: of `runs_frame(records)`.
        records: in any order; imported ones have no history and give no column.
        sensitivity: of `probe_sensitivity.rows`.
    """
    found: dict[str, dict[str, float]] = {}
    for record in records:
        before = next((entry for entry in record.history if entry.epoch == 0), None)
        readings = {} if before is None else numbers(before)
        found[record.run_id] = {
            UNTOUCHED + name.removeprefix(LEVELS): value
            for name, value in readings.items()
            if name.startswith(LEVELS)
        }
    for row in sensitivity:
        if row["cv"] is not None:
            found.setdefault(row["run_id"], {})[PROBE_CV + row["signal"]] = row["cv"]
    rows = [found.get(run_id, {}) for run_id in runs["run_id"]]
    return pd.concat([runs, pd.DataFrame(rows, index=runs.index, dtype="float64")], axis=1)


__all__ = ["PROBE_CV", "UNTOUCHED", "with_supporting"]
