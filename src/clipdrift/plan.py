"""From a study to the runs it consists of, each with its identity on this machine's data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipdrift.baseline import (
    load_reading,
    load_transfer,
    measure_transfer,
    probe,
    save_reading,
    save_transfer,
)
from clipdrift.errors import Fault, RecordError
from clipdrift.materials import Materials, Report
from clipdrift.reading import Baselines
from clipdrift.records import StudyFolder
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, StudySpec, content_hash, expand


@dataclass(frozen=True)
class PlannedRun:
    """One run to be: its configuration, its folder's name and its identity."""

    config: RunConfig
    run_id: str
    identity: str


def plan_runs(spec: StudySpec, materials: Materials) -> list[PlannedRun]:
    """All runs of a study whose precision is settled, in order."""
    if spec.precision == "auto":
        raise ValueError("precision: settle it before planning")
    planned = []
    content = {target: materials.content(target) for target in materials.targets}
    for config in expand(spec, precision=spec.precision):
        identity = config.identity(content[config.target.name])
        planned.append(PlannedRun(config, config.run_id(identity), identity))
    return planned


def settle_precision(
    spec: StudySpec, folder: StudyFolder, hardware: Literal["float32", "bfloat16"]
) -> StudySpec:
    """What `auto` means: as the folder's runs were made, else what the hardware is good at."""
    if spec.precision != "auto":
        return spec
    before = folder.read_spec()
    chosen = before.precision if before and before.precision != "auto" else hardware
    return spec.model_copy(update={"precision": chosen})


def ensure_baselines(
    spec: StudySpec, materials: Materials, folder: StudyFolder, report: Report
) -> None:
    """Measure the untouched backbone on every probe and transfer set, once per study."""
    batch = spec.evaluation.batch_size
    for name, target in materials.targets.items():
        path = _probe_path(folder, materials, name)
        if load_reading(path) is None:
            report(f"baseline drift readings: {name}")
            save_reading(probe(materials.backbone.encoder(), target.probe), path)
    for name, transfer in materials.transfers.items():
        path = _transfer_path(folder, materials, name)
        if load_transfer(path) is None:
            report(f"baseline zero-shot accuracy: {name}")
            found = measure_transfer(
                materials.backbone,
                transfer.prompts,
                transfer.images,
                transfer.epoch_images,
                batch_size=batch,
            )
            save_transfer(found, path)


def read_baselines(folder: StudyFolder, materials: Materials, target: str) -> Baselines:
    """What `ensure_baselines` wrote.

    Raises:
        RecordError: if something is missing or damaged.
    """
    reading = load_reading(_probe_path(folder, materials, target))
    found = {n: load_transfer(_transfer_path(folder, materials, n)) for n in materials.transfers}
    transfers = {name: baseline for name, baseline in found.items() if baseline is not None}
    if reading is None or len(transfers) < len(found):
        raise RecordError(
            Fault(
                str(folder.path / "baselines"),
                "readings of the untouched backbone",
                "missing or damaged files",
                "Run the study again",
            )
        )
    return Baselines(reading, transfers)


def _probe_path(folder: StudyFolder, materials: Materials, target: str) -> Path:
    return _path(folder, materials, target, materials.targets[target].probe_sha256)


def _transfer_path(folder: StudyFolder, materials: Materials, name: str) -> Path:
    return _path(folder, materials, name, materials.transfers[name].sha256)


def _path(folder: StudyFolder, materials: Materials, name: str, sha256: str) -> Path:
    """Named after content, so that a changed backbone or set is measured anew."""
    mark = content_hash([PROTOCOL_VERSION, materials.backbone.sha256, sha256])
    return folder.path / "baselines" / f"{name}-{mark[:12]}.safetensors"
