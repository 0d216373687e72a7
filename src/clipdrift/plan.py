"""From a study to the runs it consists of, each with its identity on this machine's data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from clipdrift.backbone import Backbone
from clipdrift.conditions import plugins_of
from clipdrift.errors import Fault, MethodError, PluginError, RecordError
from clipdrift.materials import Materials, Report, TransferMaterial
from clipdrift.methods.adapted import TEXT_FOLDER, build
from clipdrift.penalties.held import held_near
from clipdrift.probes.plugged import require_probes
from clipdrift.reading.baseline import (
    load_reading,
    load_transfer,
    measure_transfer,
    probe,
    save_reading,
    save_transfer,
)
from clipdrift.reading.model import Baselines
from clipdrift.records import StudyFolder
from clipdrift.records.claims import claim
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, StudySpec, content_hash, expand

WAIT_SECONDS = 0.5
"""Between looks at whether the workers that measure the baselines are done."""


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
        added = {f"plugin.{name}": origin for name, origin in plugins_of(config).items()}
        identity = config.identity({**content[config.target.name], **added})
        planned.append(PlannedRun(config, config.run_id(identity), identity))
    return planned


def require_fit(spec: StudySpec, backbone: Backbone) -> None:
    """Try every method of a study on its backbone, and find its probes; nothing is trained.

    Raises:
        MethodError: with all that does not fit.
    """
    faults: list[Fault] = []
    try:
        require_probes(spec.evaluation.probes)
    except PluginError as error:
        faults += error.faults
    for method in spec.methods:
        try:
            text = torch.zeros(2, backbone.width) if method.head_init == "text" else None
            model = build(
                backbone, method, n_classes=2, seed=0, text_features=text, prompts=[["a"], ["b"]]
            )
            held_near(method, model, backbone)
            for part, encoder in model.adapted().items():
                text_side = part == TEXT_FOLDER
                untouched = backbone.live_text_encoder() if text_side else backbone.live_encoder()
                faults += model.family.start_faults(encoder, untouched, method)
        except (MethodError, PluginError) as error:
            faults += error.faults
    if faults:
        raise MethodError(faults)


def settle_precision(
    spec: StudySpec, folder: StudyFolder, hardware: Literal["float32", "bfloat16", "auto"]
) -> StudySpec:
    """What `auto` means: as the folder's runs were made, else what the hardware is good at.

    Args:
        hardware: "auto" where it is not known, which leaves an unsettled study unsettled.
    """
    if spec.precision != "auto":
        return spec
    before = folder.read_spec()
    chosen = before.precision if before and before.precision != "auto" else hardware
    return spec.model_copy(update={"precision": chosen})


def ensure_baselines(
    spec: StudySpec, materials: Materials, folder: StudyFolder, report: Report
) -> None:
    """Measure the untouched backbone on every probe and transfer set, once per study.

    Safe for many workers at once: each set is measured by one of them, while the others take
    another set or wait.
    """
    missing = [
        partial(_ensure_probe, materials, folder, name, report) for name in materials.targets
    ]
    missing += [
        partial(_ensure_zero_shot, spec, materials.backbone, folder, zero_shot, report)
        for zero_shot in (
            *(target.zero_shot for target in materials.targets.values()),
            *materials.transfers.values(),
        )
    ]
    while left := [ensure for ensure in missing if not ensure()]:
        if len(left) == len(missing):  # other workers are at all of them
            time.sleep(WAIT_SECONDS)
        missing = left


def _ensure_probe(materials: Materials, folder: StudyFolder, name: str, report: Report) -> bool:
    """Whether the readings are there now; False while another worker takes them."""
    path = _probe_path(folder, materials, name)
    if load_reading(path) is not None:
        return True
    with claim(_lock_path(folder, path)) as mine:
        if mine and load_reading(path) is None:
            report(f"baseline drift readings: {name}")
            save_reading(probe(materials.backbone.encoder(), materials.targets[name].probe), path)
        return mine


def _ensure_zero_shot(
    spec: StudySpec,
    backbone: Backbone,
    folder: StudyFolder,
    material: TransferMaterial,
    report: Report,
) -> bool:
    """Whether the accuracies are there now; False while another worker takes them."""
    path = _zero_shot_path(folder, backbone, material)
    if load_transfer(path) is not None:
        return True
    with claim(_lock_path(folder, path)) as mine:
        if mine and load_transfer(path) is None:
            report(f"baseline zero-shot accuracy: {material.name}")
            found = measure_transfer(
                backbone,
                material.prompts,
                material.images,
                material.epoch_images,
                batch_size=spec.evaluation.batch_size,
            )
            save_transfer(found, path)
        return mine


def read_baselines(folder: StudyFolder, materials: Materials, target: str) -> Baselines:
    """What `ensure_baselines` wrote.

    Raises:
        RecordError: if something is missing or damaged.
    """
    backbone = materials.backbone
    reading = load_reading(_probe_path(folder, materials, target))
    own = load_transfer(_zero_shot_path(folder, backbone, materials.targets[target].zero_shot))
    found = {
        name: load_transfer(_zero_shot_path(folder, backbone, transfer))
        for name, transfer in materials.transfers.items()
    }
    transfers = {name: baseline for name, baseline in found.items() if baseline is not None}
    if reading is None or own is None or len(transfers) < len(found):
        raise RecordError(
            Fault(
                str(folder.path / "baselines"),
                "readings of the untouched backbone",
                "missing or damaged files",
                "Run the study again",
            )
        )
    return Baselines(reading, own, transfers)


def _probe_path(folder: StudyFolder, materials: Materials, target: str) -> Path:
    return _path(folder, materials.backbone, target, materials.targets[target].probe_sha256)


def _zero_shot_path(folder: StudyFolder, backbone: Backbone, material: TransferMaterial) -> Path:
    return _path(folder, backbone, material.name, material.sha256)


def _path(folder: StudyFolder, backbone: Backbone, name: str, sha256: str) -> Path:
    """Named after content, so that a changed backbone or set is measured anew."""
    mark = content_hash([PROTOCOL_VERSION, backbone.sha256, sha256])
    return folder.path / "baselines" / f"{name}-{mark[:12]}.safetensors"


def _lock_path(folder: StudyFolder, baseline: Path) -> Path:
    return folder.path / ".locks" / f"baseline-{baseline.stem}"
