"""Zero-shot accuracy and drift of a checkpoint, on the sets that a study names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipdrift.checkpoint.checks import Finding
from clipdrift.checkpoint.find import kind_of
from clipdrift.checkpoint.load import Checkpoint, load_checkpoint
from clipdrift.machine.devices import strict_float32
from clipdrift.reading.gauge import Gauge
from clipdrift.records.correct import Correct
from clipdrift.records.readings import OF_SETS, Reading
from clipdrift.records.transfer import TransferReading
from clipdrift.spec import StudySpec
from clipdrift.spec.parts import BackboneSpec

OnFound = Callable[[list[Finding]], None]


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint is, keeps and moved. Drift is read on the probe set of every target.

    targets: the test part of every target of a study by class texts, without any head.
    correct: which images of the transfer sets were right, by dotted name, now and before.
    """

    baseline: str
    findings: list[Finding]
    targets: dict[str, TransferReading]
    transfers: dict[str, TransferReading]
    drift: dict[str, Reading]
    correct: dict[str, Correct]

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
                name: reading.model_dump(exclude=OF_SETS - {"correct"})
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
    gauges = Gauge.of_targets(spec, device=device, cache_dir=cache_dir)
    checkpoint = load_checkpoint(folder, next(iter(gauges.values())).backbone)
    on_found(checkpoint.findings)
    targets = {name: gauge.on_target(checkpoint)[0] for name, gauge in gauges.items()}
    return _evaluation(checkpoint, gauges, targets)


def evaluate_on_images(
    folder: Path,
    sets: Sequence[str],
    baseline: str,
    *,
    cache_dir: Path | None = None,
    device: str = "auto",
    on_found: OnFound = lambda findings: None,
) -> Evaluation:
    """`evaluate_checkpoint` without a study: zero-shot on all images, drift on up to 200 of them.

    Args:
        sets: folders of class folders, whose names the classes go by, or names of datasets; drift
            is read on images of the first.
        baseline: id or folder of the untouched CLIP.

    Raises:
        ClipdriftError: if checkpoint, baseline or images cannot be used.
    """
    kind_of(folder)
    strict_float32()
    gauge = Gauge(baseline, probe=sets[0], transfers=sets, device=device, cache_dir=cache_dir)
    checkpoint = load_checkpoint(folder, gauge.backbone)
    on_found(checkpoint.findings)
    return _evaluation(checkpoint, {next(iter(gauge.transfers)): gauge}, {})


def _evaluation(
    checkpoint: Checkpoint, gauges: Mapping[str, Gauge], targets: dict[str, TransferReading]
) -> Evaluation:
    """Gauges differ in their probe sets alone."""
    one = next(iter(gauges.values()))
    read = one.zero_shot(checkpoint, whole=True)
    return Evaluation(
        baseline=one.backbone.name,
        findings=checkpoint.findings,
        targets=targets,
        transfers=read.readings,
        drift={name: gauge.drift(checkpoint)[0] for name, gauge in gauges.items()},
        correct=read.correct,
    )
