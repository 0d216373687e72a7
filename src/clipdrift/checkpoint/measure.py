"""Zero-shot accuracy and drift of a checkpoint, on the sets that a study names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.checkpoint.checks import Finding
from clipdrift.checkpoint.find import kind_of
from clipdrift.checkpoint.load import Checkpoint, load_checkpoint
from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images
from clipdrift.machine.devices import choose_device, strict_float32
from clipdrift.materials import TransferMaterial, load_materials
from clipdrift.reading.baseline import measure_transfer, probe, score
from clipdrift.reading.model import read_drift, transfer_reading
from clipdrift.reading.screening import Predictor
from clipdrift.reading.sets import open_probe, open_transfers
from clipdrift.records.schema import Reading
from clipdrift.records.transfer import TransferReading
from clipdrift.spec import StudySpec
from clipdrift.spec.parts import BackboneSpec, EvaluationSpec

OnFound = Callable[[list[Finding]], None]


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint is, keeps and moved. Drift is read on the probe set of every target.

    targets: the test part of every target of a study by class texts, without any head.
    """

    baseline: str
    findings: list[Finding]
    targets: dict[str, TransferReading]
    transfers: dict[str, TransferReading]
    drift: dict[str, Reading]

    @property
    def sound(self) -> bool:
        """Whether nothing was found that makes the numbers mislead."""
        return all(finding.status != "wrong" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; accuracies are fractions, undefined is None."""
        return {
            "baseline": self.baseline,
            "sound": self.sound,
            "findings": [asdict(finding) for finding in self.findings],
            "targets": {n: reading.model_dump() for n, reading in self.targets.items()},
            "transfers": {n: reading.model_dump() for n, reading in self.transfers.items()},
            "drift": {
                name: reading.model_dump(exclude={"val_accuracy", "transfer"})
                for name, reading in self.drift.items()
            },
        }


def evaluate_checkpoint(
    folder: Path,
    spec: StudySpec,
    *,
    baseline: str | None = None,
    cache_dir: Path | None = None,
    device: str = "auto",
    on_found: OnFound = lambda findings: None,
) -> Evaluation:
    """Check a peft adapter or a whole CLIP, then measure it against its baseline.

    Args:
        baseline: id or folder of the untouched CLIP; default: the study's backbone.
        on_found: told what was found, before anything is measured.

    Raises:
        ClipdriftError: if checkpoint, baseline or data cannot be used.
    """
    kind_of(folder)  # what must not be read is refused before anything is prepared
    if baseline is not None and baseline != spec.backbone.id:
        spec = spec.model_copy(update={"backbone": BackboneSpec(id=baseline)})
    strict_float32()
    materials = load_materials(
        spec, cache_dir=cache_dir or default_cache_dir(), device=choose_device(device)
    )
    checkpoint = load_checkpoint(folder, materials.backbone)
    on_found(checkpoint.findings)
    probes = {name: target.probe for name, target in materials.targets.items()}
    batch = spec.evaluation.batch_size
    targets = {name: target.zero_shot for name, target in materials.targets.items()}
    sets = (targets, materials.transfers)
    return _evaluation(checkpoint, materials.backbone, *sets, probes, batch)


def evaluate_on_images(
    folder: Path,
    images: str,
    baseline: str,
    *,
    cache_dir: Path | None = None,
    device: str = "auto",
    on_found: OnFound = lambda findings: None,
) -> Evaluation:
    """`evaluate_checkpoint` without a study: zero-shot on all images, drift on up to 200 of them.

    Args:
        images: a folder of class folders, whose names the classes go by, or a dataset's name.
        baseline: id or folder of the untouched CLIP.

    Raises:
        ClipdriftError: if checkpoint, baseline or images cannot be used.
    """
    kind_of(folder)
    chosen, cache = choose_device(device), cache_dir or default_cache_dir()
    strict_float32()
    backbone = load_backbone(BackboneSpec(id=baseline), device=chosen)
    transfers = open_transfers([images], backbone, cache)
    probes = {name: open_probe(images, backbone, cache) for name in transfers}
    checkpoint = load_checkpoint(folder, backbone)
    on_found(checkpoint.findings)
    return _evaluation(checkpoint, backbone, {}, transfers, probes, EvaluationSpec().batch_size)


def _evaluation(
    checkpoint: Checkpoint,
    backbone: Backbone,
    targets: Mapping[str, TransferMaterial],
    transfers: Mapping[str, TransferMaterial],
    probes: Mapping[str, Images],
    batch: int,
) -> Evaluation:
    def read(sets: Mapping[str, TransferMaterial]) -> dict[str, TransferReading]:
        return {name: _transfer(checkpoint, backbone, one, batch) for name, one in sets.items()}

    return Evaluation(
        baseline=backbone.name,
        findings=checkpoint.findings,
        targets=read(targets),
        transfers=read(transfers),
        drift=_drift(checkpoint, backbone, probes),
    )


def _transfer(
    checkpoint: Checkpoint, baseline: Backbone, transfer: TransferMaterial, batch: int
) -> TransferReading:
    images, prompts = transfer.images, transfer.prompts
    before = measure_transfer(baseline, prompts, images, None, batch_size=batch)
    own = checkpoint.own_text
    text = checkpoint.live.text_features(prompts) if own else before.text_features
    now = score(checkpoint.encoder, images, text, Predictor(batch))
    return transfer_reading(now, before.correct, images.labels, len(prompts))


def _drift(
    checkpoint: Checkpoint, backbone: Backbone, probes: Mapping[str, Images]
) -> dict[str, Reading]:
    found = {}
    for name, images in probes.items():
        before = probe(backbone.encoder(), images)
        found[name], _ = read_drift(checkpoint, backbone, images, before)
    return found


__all__ = ["Evaluation", "evaluate_checkpoint", "evaluate_on_images"]
