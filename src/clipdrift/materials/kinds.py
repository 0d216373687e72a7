"""What the runs of a study share: the backbone, and every image they train, read and score on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from clipdrift.backbone import Backbone
from clipdrift.data.copies import Shared, shared_images
from clipdrift.data.images import Images
from clipdrift.records.transfer import ScoreName
from clipdrift.spec import content_hash


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
    def score_name(self) -> ScoreName:
        """What it is scored by."""
        if self.train.captions is not None:
            return "mean_recall"
        return "accuracy" if self.train.several is None else "map"

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
