"""Readings that published supporting figures need and the frame of runs does not hold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clipdrift.analysis.questions.probe_sensitivity import ProbeSensitivity
from clipdrift.analysis.usable import numbers
from clipdrift.records import RunRecord
from clipdrift.records.readings import Reading

UNTOUCHED, LAST_EPOCH, PROBE_CV = "untouched.", "last_epoch.", "probe_cv."
LEVELS, DRIFT = "levels.", "drift."


def with_supporting(
    runs: pd.DataFrame, records: Sequence[RunRecord], sensitivity: Sequence[ProbeSensitivity]
) -> pd.DataFrame:
    """The frame of runs with three kinds of columns more, NaN where a run has no such reading.

    `untouched.<level>`: the level before training, epoch 0 of the history, in the level's unit.
    `last_epoch.drift.<signal>`: the drift after the last epoch, whichever was kept; that of the
    result where a record has no such history, as imported ones.
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
        last = _last(record)
        drift = {} if last is None else numbers(last)
        found[record.run_id] |= {
            LAST_EPOCH + name: value for name, value in drift.items() if name.startswith(DRIFT)
        }
    for row in sensitivity:
        if row.cv is not None:
            found.setdefault(row.run_id, {})[PROBE_CV + row.signal] = row.cv
    rows = [found.get(run_id, {}) for run_id in runs["run_id"]]
    return pd.concat([runs, pd.DataFrame(rows, index=runs.index, dtype="float64")], axis=1)


def _last(record: RunRecord) -> Reading | None:
    """The reading after the last epoch; of a history that ends before the kept one, the result."""
    last = max(record.history, key=lambda entry: entry.epoch, default=None)
    kept = record.selected_epoch
    return record.result if last is None or kept is None or last.epoch < kept else last
