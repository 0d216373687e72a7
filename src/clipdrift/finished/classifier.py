"""A fine-tuned model as one uses it: images in, names of classes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipdrift.backbone import Backbone, ImageEncoder, load_backbone
from clipdrift.checkpoint.find import ORIGIN_FILE, kind_of, read_json
from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.data.decode import Square, to_square
from clipdrift.data.parts import Loaded
from clipdrift.errors import Fault, RecordError
from clipdrift.finished.export import origin_of
from clipdrift.finished.saved import saved_run
from clipdrift.machine.devices import choose_device, strict_float32
from clipdrift.methods.adapted import HEAD, HEAD_FILE
from clipdrift.methods.head import Head, TextHead
from clipdrift.methods.weights_file import load_tensors
from clipdrift.spec.parts import BackboneSpec

MODEL = "model"
"""Where `tune` puts the model in its folder."""


@dataclass(frozen=True)
class Classifier:
    """An image encoder, the head on it, and what its outputs are called.

    classes: C names. several: whether each class is a question of its own (a sigmoid), not one of C
    (a softmax). square: how an image is shown.
    """

    classes: tuple[str, ...]
    several: bool
    square: Square
    encoder: ImageEncoder
    head: Head

    def preprocess(self, images: Sequence[Loaded]) -> Tensor:
        """uint8 [B, S, S, 3] of Pillow images or arrays [H, W, 3], as the model is shown them."""
        return torch.from_numpy(np.stack([to_square(one, *self.square) for one in images]))

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Scores [B, C] from 0 to 1, float32 on the CPU, of what `preprocess` gives."""
        logits: Tensor = self.head(self.encoder(pixels.to(self.head.weight.device))).float()
        return (logits.sigmoid() if self.several else logits.softmax(dim=-1)).cpu()


def load(folder: str | Path, *, device: str = "auto") -> Classifier:
    """Load the classifier of a run, or of a folder that `export-model` or `tune` wrote.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Raises:
        RecordError: no such model, one without classes, or one whose base has changed since.
        ClipdriftError: if its files cannot be used.

    Example:
        model = clipdrift.load("models/pets")
        scores = model(model.preprocess([Image.open("photo.jpg")]))
        model.classes[int(scores[0].argmax())]
    """
    device, path = choose_device(device), Path(folder)
    if not (path / ORIGIN_FILE).is_file() and (path / MODEL / ORIGIN_FILE).is_file():
        path /= MODEL
    strict_float32()
    if kind_of(path) == "run":
        saved = saved_run(path)
        backbone, encoder, head = saved.backbone, saved.model.encoder, saved.model.head
        origin = origin_of(saved)
    else:
        origin = _origin(path)
        backbone, encoder = _encoder(path, origin)
        head = _head(path, origin, backbone.width)
    classes = origin.get("classes") or []
    if len(classes) != len(head.weight):
        got = "none" if not classes else f"{len(classes)} for {len(head.weight)} outputs"
        step = "Images are found by texts with it: its README has the lines"
        raise RecordError(Fault(str(path), "the names of its classes", got, step))
    return Classifier(
        classes=tuple(map(str, classes)),
        several=bool(origin.get("several_labels")),
        square=backbone.square(origin.get("interpolation")),
        encoder=encoder.to(device).eval(),
        head=head.to(device).eval(),
    )


def _origin(path: Path) -> dict[str, Any]:
    missing = [name for name in (ORIGIN_FILE, HEAD_FILE) if not (path / name).is_file()]
    if missing:
        expected = f"a run, or a folder of export-model's with {ORIGIN_FILE} and {HEAD_FILE}"
        step = "Run: clipdrift export-model RUN --out DIR"
        raise RecordError(Fault(str(path), expected, f"no {' and no '.join(missing)}", step))
    return read_json(path / ORIGIN_FILE)


def _encoder(path: Path, origin: dict[str, Any]) -> tuple[Backbone, ImageEncoder]:
    if kind_of(path) != "adapter":
        backbone = load_backbone(BackboneSpec(id=str(path)))
        return backbone, backbone.live_encoder()
    try:
        backbone = load_backbone(BackboneSpec.model_validate(origin["backbone"]))
    except (KeyError, ValueError):
        got = "none that can be read"
        expected, step = "the backbone that it is put onto", "Export the run again"
        raise RecordError(Fault(str(path / ORIGIN_FILE), expected, got, step)) from None
    if backbone.sha256 != origin.get("backbone_sha256"):
        expected = f"{backbone.name} as it was in training"
        step = "Restore the backbone, or export the run with --merged"
        raise RecordError(Fault(str(path), expected, "other content", step))
    return backbone, load_checkpoint(path, backbone).encoder


def _head(path: Path, origin: dict[str, Any], width: int) -> Head:
    """A linear layer, or without a bias class texts by cosine."""
    held = load_tensors(path / HEAD_FILE)
    tensors = {n.removeprefix(HEAD): v for n, v in held.items() if n.startswith(HEAD)}
    weight = tensors.get("weight")
    if weight is None or weight.ndim != 2 or weight.shape[1] != width:
        got = "none" if weight is None else f"one of {list(weight.shape)}"
        expected, step = f"a head on {width} numbers", "Export the run again"
        raise RecordError(Fault(str(path / HEAD_FILE), expected, got, step))
    kind = nn.Linear if "bias" in tensors else TextHead
    head: Head = kind(width, len(weight))
    head.load_state_dict(tensors)
    return head
