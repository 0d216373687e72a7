"""Records as tables: one row per run, per block, per epoch."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.usable import SORT_KEY, numbers, or_nan, usable_records
from clipdrift.paths import read_file
from clipdrift.records import RunRecord
from clipdrift.records.readings import TARGET_ZERO_SHOT, Result
from clipdrift.records.transfer import RETENTIONS

RUN_COLUMNS = ["run_id", "backbone", "target", "method", "role", "learning_rate", "seed"]
CONDITIONS = ["selected_epoch", "leak"]
PEAK_VAL_ACCURACY = "peak_val_accuracy"
FINGERPRINT = "fingerprint_"


EPOCH1 = "epoch1."


ACCURACIES = ["val_accuracy", "test_accuracy"]


BASELINE, BASELINE_RECALL, CHANCE = ".baseline_accuracy", ".baseline_mean_recall", ".chance"


RETRIEVAL = "test_retrieval."
SUITE = "suite."
"""Over all transfer datasets."""
MAPPINGS = ("levels", "drift", "extra")


def runs_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per usable run, sorted by `SORT_KEY`; see `usable_records` for what is left out.

    Columns: `RUN_COLUMNS`; `selected_epoch`, `leak`; `peak_val_accuracy`, the best of the epochs up
    to the selected one; `fingerprint_<factor>` (missing where a record has none); then the numbers,
    float64, named as in `record.result`: `val_accuracy`, `test_accuracy`,
    `transfer.<name>.accuracy`, `.baseline_accuracy`, `.retention_pct`,
    `.chance_corrected_retention_pct`, `.delta_accuracy_pp`, `.chance`, `target_zero_shot.accuracy`,
    `.baseline_accuracy`, `.chance` (the test part by class texts), `levels.<signal>`,
    `drift.<signal>`, `extra.<signal>`; and the same of the history's epoch 1 with prefix `epoch1.`.
    `val_accuracy` and `test_accuracy` are the scores of the target, of whatever kind: mean recall
    of one whose images have captions, which `test_retrieval.<recall>` stands beside, and
    `transfer.<name>.mean_recall` of such a transfer dataset in place of an accuracy.
    `suite.mean_retention_pct`, `.worst_retention_pct` and `.mean_chance_corrected_retention_pct`
    are over all transfer datasets on which retention is defined, where there are several.
    Undefined is NaN, inside the frame only. A field of a transfer dataset that no record defines
    has no column.

    Args:
        records: of one or more studies, in any order.
    """
    kept = usable_records(records)
    rows = []
    for record in kept:
        first = next((entry for entry in record.history if entry.epoch == 1), None)
        early = {} if first is None else {EPOCH1 + k: v for k, v in numbers(first).items()}
        result = record.result
        chances = {f"transfer.{k}{CHANCE}": or_nan(v.guess) for k, v in result.transfer.items()}
        beside = {**chances, **_target_zero_shot(result), **_over_sets(result)}
        rows.append({**numbers(result), **beside, **early})
    marks = sorted({factor for record in kept for factor in record.fingerprints})
    keys = [
        {
            **_run_keys(record),
            "selected_epoch": record.selected_epoch,
            "leak": bool(record.leaks),
            PEAK_VAL_ACCURACY: _peak(record),
            **{FINGERPRINT + factor: record.fingerprints.get(factor) for factor in marks},
        }
        for record in kept
    ]
    head = pd.DataFrame(
        keys,
        columns=[
            *RUN_COLUMNS,
            *CONDITIONS,
            PEAK_VAL_ACCURACY,
            *(FINGERPRINT + mark for mark in marks),
        ],
    )
    # Named types hold for an empty study too.
    types = {"learning_rate": "float64", "seed": "int64", "selected_epoch": "Int64", "leak": "bool"}
    types[PEAK_VAL_ACCURACY] = "float64"
    head = head.astype(types)
    return pd.concat([head, _number_table(rows, ACCURACIES)], axis=1)


def at_chance(records: Sequence[RunRecord]) -> dict[tuple[str, str], str]:
    """Backbone and transfer dataset -> why retention there is undefined, in usable runs."""
    return {
        (record.backbone, name): why
        for record in usable_records(records)
        for name, reading in record.result.transfer.items()
        if (why := reading.at_chance) is not None
    }


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame in `SORT_KEY` order with a fresh index, so that no sum depends on row order."""
    return frame.sort_values(SORT_KEY, kind="stable").reset_index(drop=True)


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Columns that were measured on a run, in the frame's order.

    Chance and what the untouched backbone reads are left out: they are the same for every run.
    """
    return [
        name
        for name in map(str, frame.columns)
        if not name.endswith(CHANCE)
        and ".baseline_" not in name
        and (
            name in ACCURACIES
            or name.startswith(
                (EPOCH1, "transfer.", SUITE, RETRIEVAL, *(f"{mapping}." for mapping in MAPPINGS))
            )
        )
    ]


def per_block_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Long form of the per-block readings at the selected epoch: run keys, signal, block, value.

    `signal` is `drift.<name>` or `levels.<name>`; `block` counts from 1, the block at the image
    side; `value` is NaN where undefined.
    """
    rows = [
        {**_run_keys(record), "signal": f"{kind}.{name}", "block": i, "value": or_nan(value)}
        for record in usable_records(records)
        for kind in ("drift", "levels")
        for name, values in sorted(getattr(record.result, f"{kind}_per_block").items())
        for i, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, "signal", "block", "value"])


def history_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per run and epoch: run keys, epoch, step, train_loss, metrics named as in `runs`.

    `penalty.<name>` is the mean of a penalty over the epoch, before its weight. Epoch 0 is the
    untouched model with the fresh head.
    """
    heads, rows = [], []
    for record in usable_records(records):
        for entry in sorted(record.history, key=lambda entry: entry.epoch):
            heads.append({**_run_keys(record), "epoch": entry.epoch, "step": entry.step})
            terms = {f"penalty.{name}": or_nan(v) for name, v in entry.penalties.items()}
            rows.append({"train_loss": or_nan(entry.train_loss), **numbers(entry), **terms})
    head = pd.DataFrame(heads, columns=[*RUN_COLUMNS, "epoch", "step"])
    return pd.concat([head, _number_table(rows, ["train_loss", "val_accuracy"])], axis=1)


def whole_table(path: Path, sha256: str | None) -> pd.DataFrame:
    """A table beside a record, image by image; empty if it is damaged or not the recorded one.

    Args:
        sha256: as recorded; None takes any content.
    """
    try:
        data = read_file(path)
        if sha256 in (None, hashlib.sha256(data).hexdigest()):
            return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        pass
    return pd.DataFrame()


def _over_sets(result: Result) -> dict[str, float]:
    kept, corrected = (
        [value for one in result.transfer.values() if (value := getattr(one, field)) is not None]
        for field in RETENTIONS
    )
    if len(kept) < 2:
        return {}
    found = {f"{SUITE}mean_retention_pct": sum(kept) / len(kept)}
    found[f"{SUITE}worst_retention_pct"] = min(kept)
    if len(corrected) == len(kept):
        found[f"{SUITE}mean_chance_corrected_retention_pct"] = sum(corrected) / len(corrected)
    return found


def _target_zero_shot(result: Result) -> dict[str, float]:
    read = result.target_zero_shot
    if read is None:
        return {}
    found = {".accuracy": read.score, BASELINE: read.baseline_score, CHANCE: read.guess}
    return {f"{TARGET_ZERO_SHOT}{field}": or_nan(value) for field, value in found.items()}


def _peak(record: RunRecord) -> float:
    """The best validation accuracy of the history, up to the epoch whose weights were kept."""
    last = record.selected_epoch
    known = [
        numbers(entry)["val_accuracy"]
        for entry in record.history
        if last is None or entry.epoch <= last
    ]
    return max((value for value in known if not math.isnan(value)), default=math.nan)


def _run_keys(record: RunRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in RUN_COLUMNS}


def _number_table(rows: list[dict[str, float]], always: list[str]) -> pd.DataFrame:
    """Rows as float64 columns: `always`, then final readings, then those of epoch 1, by name."""
    names = sorted(
        {name for row in rows for name in row} - set(always),
        key=lambda name: (name.startswith(EPOCH1), name),
    )
    table = pd.DataFrame(rows, columns=[*always, *names], dtype=np.float64)
    never = [
        name
        for name in names
        if name.removeprefix(EPOCH1).startswith(("transfer.", "val_accuracy"))
        and not table[name].notna().any()
    ]
    return table.drop(columns=never)
