"""What the runs of a study share: the backbone, and every image they train, read and score on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdrift.backbone import Backbone, load_backbone, partly_read, same_texts
from clipdrift.data.cache import PreparedPart, prepare
from clipdrift.data.catalogue import templates_of
from clipdrift.data.copies import Shared, shared_images
from clipdrift.data.grouped import carve_target
from clipdrift.data.images import Images
from clipdrift.data.prompts import class_prompts
from clipdrift.data.splits import balanced_subset
from clipdrift.errors import ClipdriftError, DataError, Fault, SpecError
from clipdrift.spec import StudySpec, TargetSpec, TransferSpec, content_hash
from clipdrift.spec.datasets import DatasetSpec

Report = Callable[[str], None]


@dataclass(frozen=True)
class TransferMaterial:
    """One transfer set: class prompts, the images scored at the end and after each epoch."""

    name: str
    class_names: tuple[str, ...]
    prompts: list[list[str]]
    images: Images
    epoch_images: Images | None
    bad_images: tuple[str, ...]
    text_remarks: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        parts = [self.images.sha256(), self.epoch_images.sha256() if self.epoch_images else ""]
        return content_hash([*parts, self.prompts])


@dataclass(frozen=True)
class TargetMaterial:
    """One target: its class prompts and the four disjoint sets of images."""

    name: str
    prompts: list[list[str]]
    train: Images
    val: Images
    probe: Images
    test: Images
    split_sha256: str
    bad_images: tuple[str, ...]
    corrupted: dict[str, Images]
    class_names: tuple[str, ...] = ()
    text_remarks: tuple[str, ...] = ()

    @property
    def sets(self) -> dict[str, Images]:
        """The four sets by name."""
        return {"train": self.train, "val": self.val, "probe": self.probe, "test": self.test}

    @cached_property
    def sha256(self) -> str:
        """Content of the sets and prompts, wherever they lie."""
        sets = [images.sha256() for images in self.sets.values()]
        damaged = {name: images.sha256() for name, images in self.corrupted.items()}
        return content_hash([sets, self.prompts, *([damaged] if damaged else [])])

    @cached_property
    def zero_shot(self) -> TransferMaterial:
        """The test part as a set to be read zero-shot."""
        name = f"{self.name}-test"
        return TransferMaterial(name, self.class_names, self.prompts, self.test, None, ())

    @cached_property
    def probe_sha256(self) -> str:
        return self.probe.sha256()


@dataclass(frozen=True)
class Materials:
    """Backbone and data of a study, ready for its runs."""

    backbone: Backbone
    targets: dict[str, TargetMaterial]
    transfers: dict[str, TransferMaterial]

    def content(self, target: str) -> dict[str, str]:
        """Name -> SHA-256 of everything that a run on one target reads."""
        transfers = {f"transfer.{n}": t.sha256 for n, t in self.transfers.items()}
        return {
            "backbone": self.backbone.sha256,
            "target": self.targets[target].sha256,
            **transfers,
        }

    @cached_property
    def shared_images(self) -> dict[str, Shared]:
        """Target -> what its sets have in common, among themselves and with transfer sets."""
        scored = {n: (t.images, t.class_names) for n, t in self.transfers.items()}
        return {
            name: shared_images(name, target.sets, target.class_names, scored)
            for name, target in self.targets.items()
        }

    def prompt_hashes(self, target: str) -> dict[str, str]:
        """Name -> SHA-256 of the prompts: class names in label order, written into templates."""
        prompts = {f"transfer.{n}": t.prompts for n, t in self.transfers.items()}
        prompts["target"] = self.targets[target].prompts
        return {name: content_hash(these) for name, these in prompts.items()}


def _require_its_filter(spec: StudySpec, backbone: Backbone) -> None:
    """A backbone that wants another filter than CLIP's is not shown CLIP's by default.

    Raises:
        SpecError: if it does.
    """
    if (spec.interpolation, backbone.interpolation) == ("bicubic", "bilinear"):
        expected = f"bilinear, as the files of backbone {spec.backbone.id} say"
        step = "Write interpolation: bilinear into the study"
        raise SpecError(Fault("interpolation", expected, spec.interpolation, step))


def load_materials(
    spec: StudySpec, *, cache_dir: Path, device: str = "cpu", report: Report | None = None
) -> Materials:
    """Load the backbone, prepare every dataset once and carve the splits.

    Raises:
        ClipdriftError: with the faults of all parts together.
    """
    faults: list[Fault] = []
    with _collecting(faults):
        backbone = load_backbone(spec.backbone, device=device)
        _require_its_filter(spec, backbone)
    if faults:  # without the image size nothing can be prepared
        raise ClipdriftError(faults)
    targets: dict[str, TargetMaterial] = {}
    transfers: dict[str, TransferMaterial] = {}

    def parts(dataset: DatasetSpec, *, carve: bool = True) -> dict[str, PreparedPart]:
        return prepare(
            dataset,
            image_size=backbone.image_size,
            interpolation=spec.interpolation,
            resize_mode=backbone.resize_mode,
            resized=backbone.resized,
            cache_dir=cache_dir,
            carve=carve,
            report=report,
        )

    for target in spec.targets:
        with _collecting(faults):
            found = parts(target, carve=(target.splits or spec.splits).group_by is None)
            damaged = {one.name: parts(one)["test"] for one in target.corrupted}
            targets[target.name] = _target(spec, target, found, damaged, backbone)
    for transfer in spec.transfers:
        with _collecting(faults):
            part = parts(transfer)["test"]
            epoch = spec.evaluation.epoch_transfer_images
            transfers[transfer.name] = transfer_material(
                transfer, part, backbone, epoch_images=epoch
            )
    if faults:
        raise ClipdriftError(faults)
    return Materials(backbone, targets, transfers)


def _target(
    spec: StudySpec,
    target: TargetSpec,
    parts: dict[str, PreparedPart],
    damaged: dict[str, PreparedPart],
    backbone: Backbone,
) -> TargetMaterial:
    train, test = parts["train"], parts.get("test", parts["train"])
    _require_same_classes(target.name, train, damaged)
    split = carve_target(target, parts, target.splits or spec.splits, target.probe or spec.probe)
    by_text = any(m.head_init == "text" or m.loss == "contrastive" for m in spec.methods)
    prompts, remarks = _prompts(target, train, backbone, asked=by_text)
    return TargetMaterial(
        name=target.name,
        class_names=train.class_names,
        prompts=prompts,
        text_remarks=remarks,
        train=_view(train, split.train),
        val=_view(train, split.val),
        probe=_view(test if split.probe_part == "test" else train, split.probe),
        test=_view(test, split.test),
        split_sha256=content_hash([split.sha256, train.sha256, test.sha256]),
        bad_images=tuple(
            name for part in (*parts.values(), *damaged.values()) for name in part.bad_images
        ),
        corrupted={
            one.name: _view(damaged[one.name], _chosen(one, damaged[one.name]))
            for one in target.corrupted
        },
    )


def _require_same_classes(name: str, train: PreparedPart, damaged: dict[str, PreparedPart]) -> None:
    faults = [
        Fault(
            f"target {name}, corrupted {other}",
            f"the classes of the target, in their order ({', '.join(train.class_names[:12])})",
            ", ".join(part.class_names[:12]),
            "Give class_names in the label order of the data",
        )
        for other, part in damaged.items()
        if part.class_names != train.class_names
    ]
    if faults:
        raise DataError(faults)


def transfer_material(
    transfer: TransferSpec, part: PreparedPart, backbone: Backbone, *, epoch_images: int
) -> TransferMaterial:
    """A prepared part as a transfer set; `epoch_images` of it are scored after each epoch.

    Raises:
        ClipdriftError: fewer images than asked for; classes that no prompt tells apart.
    """
    images = _view(part, _chosen(transfer, part))
    n_epoch = min(epoch_images, len(images))
    few = None
    if n_epoch:
        chosen = balanced_subset(images.labels, n_epoch, transfer.seed, draw=transfer.draw)
        few = images.select(chosen)
    prompts, remarks = _prompts(transfer, part, backbone, asked=True)
    return TransferMaterial(
        name=transfer.name,
        class_names=part.class_names,
        prompts=prompts,
        text_remarks=remarks,
        images=images,
        epoch_images=few,
        bad_images=part.bad_images,
    )


def _chosen(spec: TransferSpec, part: PreparedPart) -> NDArray[np.int64]:
    if spec.n_images is None:
        return np.arange(len(part.labels))
    where = f"{spec.name}.n_images"
    return balanced_subset(part.labels, spec.n_images, spec.seed, draw=spec.draw, where=where)


def _prompts(
    spec: DatasetSpec, part: PreparedPart, backbone: Backbone, *, asked: bool
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Prompts of each class, and what a reader must know of them.

    asked: whether texts are all that tells the classes apart, so that equal ones are refused; a
    head that is trained from a random start needs none.
    """
    prompts = class_prompts(part.class_names, templates_of(spec), underscores=spec.underscores)
    remarks = partly_read(backbone, prompts, spec.name)
    if same := same_texts(backbone, prompts, spec.name):
        if asked:
            raise DataError(same)
        remarks += map(str, same)
    return prompts, tuple(remarks)


def _view(part: PreparedPart, positions: NDArray[np.int64]) -> Images:
    return Images(part.pixels, positions, part.labels[positions], part.names, part.prints)


@contextmanager
def _collecting(faults: list[Fault]) -> Iterator[None]:
    """Keep the faults of one part and go on to the next, so that all are told at once."""
    try:
        yield
    except ClipdriftError as error:
        faults += error.faults


__all__ = [
    "Materials",
    "TargetMaterial",
    "TransferMaterial",
    "load_materials",
    "transfer_material",
]
