"""Runs that were trained elsewhere and measured here, kept beside those of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipdrift.errors import Fault, RecordError, StudyFolderError
from clipdrift.machine.provenance import provenance
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model_reading import ModelReading
from clipdrift.records import EpochReading, RunRecord, StudyFolder, atomic_write
from clipdrift.records.folder import OUTSIDE, safe_name
from clipdrift.records.ranges import COUNT, FRACTION, ORDINAL, RATE, SEED, Range
from clipdrift.records.readings import Reading, Result
from clipdrift.spec import content_hash

NOT_OF_READING = {"val_accuracy", "undefined"}


def record(
    gauge: Gauge,
    reading: ModelReading,
    *,
    out: str | Path,
    method: str,
    learning_rate: float,
    seed: int,
    target: str | None = None,
    val_accuracy: float | None = None,
    test_accuracy: float | None = None,
    test_n_images: int | None = None,
    history: Mapping[int, ModelReading] | None = None,
) -> RunRecord:
    """Write what was read of a model from a training of one's own as a run of a study folder.

    Analysis, report, choice and audit take it beside the other runs. Its record holds the
    fingerprints of what the gauge fixes (backbone, probe set, transfer sets), so it is paired only
    with runs that were read alike; that it was trained alike is proven by nothing, which the
    report says. Recording the same run again with equal numbers changes nothing::

        reading = gauge.read(model)
        clipdrift.record(gauge, reading, out="results/", method="mine", learning_rate=1e-5, seed=0,
                         val_accuracy=0.91, test_accuracy=0.89, test_n_images=2000)

    Args:
        gauge: what `reading` was made with.
        out: study folder, with runs of a study or without; made if it is not there.
        target: what was trained on; default that of the gauge, if it is a study's.
        learning_rate: above 0. seed: a whole number from 0.
        val_accuracy, test_accuracy: fractions; null if left out.
        test_n_images: gives the test accuracy its error from images.
        history: epoch -> its reading, 0 for the model before training.

    Raises:
        RecordError: with every value that no run can have.
        StudyFolderError: if other numbers of the same run are there, or `out` cannot be written.
    """
    target = target if target is not None else gauge.target_name
    ranges = {
        "learning_rate": (learning_rate, RATE),
        "seed": (seed, SEED),
        "val_accuracy": (val_accuracy, FRACTION),
        "test_accuracy": (test_accuracy, FRACTION),
        "test_n_images": (test_n_images, COUNT),
        **{f"history[{epoch!r}]": (epoch, ORDINAL) for epoch in history or {}},
    }
    faults = [*_unnamed(method=method, target=target), *_out_of_range(ranges)]
    if faults:
        raise RecordError(faults)
    accuracies = {"val_accuracy": val_accuracy, "test_accuracy": test_accuracy}
    result = Result(**_numbers(reading), **accuracies, test_n_images=test_n_images)
    steps = [
        EpochReading(epoch=epoch, step=0, **_numbers(one))
        for epoch, one in sorted((history or {}).items())
    ]
    marks = {
        "backbone": gauge.backbone.sha256,
        "probe_set": gauge.probe.sha256(),
        "transfers": content_hash({name: one.sha256 for name, one in gauge.transfers.items()}),
    }
    run = (gauge.backbone.name, target, method, learning_rate, seed)
    identity = content_hash([*run, marks])
    missing = [name for name, value in accuracies.items() if value is None]
    device = str(gauge.guard_pixels.device)
    found = RunRecord(
        run_id=f"{OUTSIDE}{safe_name(str(target))}-{safe_name(method)}-lr{learning_rate!r}-seed{seed}-"
        f"{identity[:8]}",
        identity=identity,
        status="finished",
        study="outside",
        backbone=gauge.backbone.name,
        target=str(target),
        method=method,
        learning_rate=learning_rate,
        seed=seed,
        fingerprints=marks,
        history=steps,
        result=result,
        undefined={**reading.undefined, **dict.fromkeys(missing, "not given to `record`")},
        provenance={**provenance(device), "outside": "trained elsewhere, read by a gauge"},
    )
    _write(found, StudyFolder.at(out))
    return found


def _write(found: RunRecord, folder: StudyFolder) -> None:
    path = folder.record_path(found.run_id)
    before = folder.recorded(found.run_id, found.identity) if path.exists() else None
    if before is not None and (before.result, before.history) == (found.result, found.history):
        return
    if path.exists():
        step = "Give it another seed or method name, or remove that folder"
        raise StudyFolderError(Fault(str(path), "a run not recorded yet", "other numbers", step))
    folder.create()
    atomic_write(path, found.to_json())


def _numbers(reading: ModelReading) -> dict[str, Any]:
    return {
        name: getattr(reading, name) for name in Reading.model_fields if name not in NOT_OF_READING
    }


def _unnamed(**names: str | None) -> list[Fault]:
    return [
        Fault(name, "a name", repr(value), f"Pass {name}=")
        for name, value in names.items()
        if not isinstance(value, str) or not value.strip() or not value.isprintable()
    ]


def _out_of_range(ranges: Mapping[str, tuple[Any, Range]]) -> list[Fault]:
    return [
        Fault(name, allowed.words, repr(value), "Correct it")
        for name, (value, allowed) in ranges.items()
        if value is not None
        and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not allowed.holds(value)
        )
    ]
