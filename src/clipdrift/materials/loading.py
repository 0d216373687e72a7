"""From a study to its materials; what can be seen without images is told before any is prepared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipdrift.backbone import Backbone, load_backbone, partly_read, same_texts
from clipdrift.data.cache import prepare
from clipdrift.data.captions import Captions
from clipdrift.data.catalogue import templates_of
from clipdrift.data.grouped import carve_target
from clipdrift.data.images import Images
from clipdrift.data.parts import DatasetParts, ImagePart
from clipdrift.data.prepared import PreparedPart
from clipdrift.data.prompts import class_prompts
from clipdrift.data.sources import open_dataset
from clipdrift.data.splits import balanced_subset
from clipdrift.errors import ClipdriftError, DataError, Fault, SpecError, collecting
from clipdrift.materials.kinds import Materials, TargetMaterial, TransferMaterial
from clipdrift.spec import StudySpec, TargetSpec, TransferSpec, content_hash
from clipdrift.spec.datasets import DatasetSpec

Report = Callable[[str], None]
Part = ImagePart | PreparedPart
"""Of a dataset, before and after its images are decoded."""


@dataclass(frozen=True)
class _Texts:
    """Prompts of each class, and what a reader must know of them."""

    prompts: list[list[str]]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A dataset whose images are not decoded yet."""

    opened: DatasetParts
    texts: _Texts
    damaged: dict[str, DatasetParts]


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
        ClipdriftError: with the faults of all parts together: first those of sources, labels,
            splits and prompts, then those of single images.
    """
    faults: list[Fault] = []
    backbone: Backbone | None = None  # without one, sources, labels and splits are looked at
    with collecting(faults):
        loaded = load_backbone(spec.backbone, device=device)
        loaded.require_texts("transfers")
        _require_its_filter(spec, loaded)
        backbone = loaded
    found: dict[str, _Found] = {}
    for target in spec.targets:
        with collecting(faults):
            found[f"target {target.name}"] = _look_at_target(spec, target, backbone, faults)
    for transfer in spec.transfers:
        with collecting(faults):
            found[f"transfer {transfer.name}"] = _look_at_transfer(transfer, backbone, faults)
    if faults or backbone is None:
        raise ClipdriftError(faults)
    square = backbone.square(spec.interpolation)

    def parts(dataset: DatasetSpec, opened: DatasetParts) -> dict[str, PreparedPart]:
        return prepare(dataset, square, cache_dir=cache_dir, opened=opened, report=report)

    targets: dict[str, TargetMaterial] = {}
    transfers: dict[str, TransferMaterial] = {}
    for target in spec.targets:
        seen = found[f"target {target.name}"]
        with collecting(faults):
            prepared = parts(target, seen.opened)
            damaged = {
                one.name: parts(one, seen.damaged[one.name])["test"] for one in target.corrupted
            }
            targets[target.name] = _target(spec, target, prepared, damaged, seen.texts)
    for transfer in spec.transfers:
        seen = found[f"transfer {transfer.name}"]
        with collecting(faults):
            part = parts(transfer, seen.opened)["test"]
            n_epoch = spec.evaluation.epoch_transfer_images
            transfers[transfer.name] = _transfer(transfer, part, seen.texts, n_epoch)
    if faults:
        raise ClipdriftError(faults)
    return Materials(backbone, targets, transfers)


def _look_at_target(
    spec: StudySpec, target: TargetSpec, backbone: Backbone | None, faults: list[Fault]
) -> _Found:
    rule, probe = target.splits or spec.splits, target.probe or spec.probe
    carved = (rule.val_fraction, rule.val_per_class) != (None, None)
    opened = open_dataset(target, carve=rule.group_by is None, validation=not carved)
    if rule.group_by is None:  # else pixels decide
        with collecting(faults):
            carve_target(target, opened.parts, rule, probe)
    damaged: dict[str, DatasetParts] = {}
    for one in target.corrupted:
        with collecting(faults):
            found = damaged[one.name] = open_dataset(one)
            _chosen(one, found.parts["test"])
            _require_same_classes(target.name, opened.parts["train"], one.name, found.parts["test"])
    by_text = any(m.head_init == "text" or m.loss == "contrastive" for m in spec.methods)
    texts = _texts(target, opened.parts["train"], backbone, asked=by_text)
    if target.paired and backbone is not None:
        # Of all parts: what is not read of the test part counts as well.
        each = [own for part in opened.parts.values() for own in part.captions or ()]
        texts = _Texts([], tuple(_caption_remarks(target, each, backbone)))
    return _Found(opened, texts, damaged)


def _look_at_transfer(spec: TransferSpec, backbone: Backbone | None, faults: list[Fault]) -> _Found:
    opened = open_dataset(spec)
    with collecting(faults):
        _chosen(spec, opened.parts["test"])
    return _Found(opened, _texts(spec, opened.parts["test"], backbone, asked=True), {})


def _target(
    spec: StudySpec,
    target: TargetSpec,
    parts: dict[str, PreparedPart],
    damaged: dict[str, PreparedPart],
    texts: _Texts,
) -> TargetMaterial:
    train, test = parts["train"], parts.get("test", parts["train"])
    val = parts.get("val", train)
    split = carve_target(target, parts, target.splits or spec.splits, target.probe or spec.probe)
    return TargetMaterial(
        name=target.name,
        class_names=() if train.captions is not None else train.class_names,
        prompts=texts.prompts,
        text_remarks=texts.remarks,
        train=_view(train, split.train),
        val=_view(val, split.val),
        probe=_view(test if split.probe_part == "test" else train, split.probe),
        test=_view(test, split.test),
        split_sha256=content_hash(
            [split.sha256, train.sha256, test.sha256, *([val.sha256] if val is not train else [])]
        ),
        bad_images=tuple(
            name for part in (*parts.values(), *damaged.values()) for name in part.bad_images
        ),
        corrupted={
            one.name: _view(damaged[one.name], _chosen(one, damaged[one.name]))
            for one in target.corrupted
        },
    )


def _require_same_classes(name: str, train: Part, other: str, damaged: Part) -> None:
    if damaged.class_names != train.class_names:
        own, got = (", ".join(part.class_names[:12]) for part in (train, damaged))
        expected = f"the classes of the target, in their order ({own})"
        step = "Give class_names in the label order of the data"
        raise DataError(Fault(f"target {name}, corrupted {other}", expected, got, step))


def transfer_material(
    transfer: TransferSpec, part: PreparedPart, backbone: Backbone, *, epoch_images: int
) -> TransferMaterial:
    """A prepared part as a transfer set; `epoch_images` of it are scored after each epoch.

    Raises:
        ClipdriftError: fewer images than asked for; classes that no prompt tells apart.
    """
    return _transfer(transfer, part, _texts(transfer, part, backbone, asked=True), epoch_images)


def _transfer(
    transfer: TransferSpec, part: PreparedPart, texts: _Texts, epoch_images: int
) -> TransferMaterial:
    images = _view(part, _chosen(transfer, part))
    n_epoch = min(epoch_images, len(images))
    few = None
    if n_epoch:
        chosen = balanced_subset(images.labels, n_epoch, transfer.seed, draw=transfer.draw)
        few = images.select(chosen)
    return TransferMaterial(
        name=transfer.name,
        class_names=() if part.captions is not None else part.class_names,
        prompts=texts.prompts,
        text_remarks=texts.remarks,
        images=images,
        epoch_images=few,
        bad_images=part.bad_images,
    )


def _chosen(spec: TransferSpec, part: Part) -> NDArray[np.int64]:
    if spec.n_images is None:
        return np.arange(len(part.labels))
    where, n = f"{spec.name}.n_images", spec.n_images
    n = min(n, len(part.labels)) if spec.too_few == "all" else n
    return balanced_subset(part.labels, n, spec.seed, draw=spec.draw, where=where)


def _texts(spec: DatasetSpec, part: Part, backbone: Backbone | None, *, asked: bool) -> _Texts:
    """asked: whether texts are all that tells the classes apart, so that equal ones are refused; a
    head that is trained from a random start needs none.
    """
    if backbone is None:
        return _Texts([], ())
    if part.captions is not None:
        return _Texts([], tuple(_caption_remarks(spec, part.captions, backbone)))
    prompts = class_prompts(part.class_names, templates_of(spec), underscores=spec.underscores)
    remarks = partly_read(backbone, prompts, spec.name)
    if same := same_texts(backbone, prompts, spec.name):
        if asked:
            raise DataError(same)
        remarks += map(str, same)
    return _Texts(prompts, tuple(remarks))


def _caption_remarks(
    spec: DatasetSpec, each: Sequence[Sequence[str]], backbone: Backbone
) -> list[str]:
    """What of captions the model does not read, and which stand under several images."""
    captions = Captions.of(each)
    unread = partly_read(backbone, [captions.texts], spec.name, what="captions")
    return [*unread, *captions.remarks(spec.name)]


def _view(part: PreparedPart, positions: NDArray[np.int64]) -> Images:
    labels = part.labels[positions]
    return Images(
        part.pixels, positions, labels, part.names, part.prints, part.captions, part.several
    )
