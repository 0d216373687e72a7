"""How a checkpoint wants its images: side, resize, channel mean and deviation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.backbone.architecture import Architecture, Channels
from clipdrift.backbone.faults import refusal
from clipdrift.data.decode import ResizeMode
from clipdrift.spec.parts import BackboneSpec

PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
"""Files that say it: transformers 5 writes the first one, and reads it before the second."""


@dataclass(frozen=True)
class Preprocessing:
    """size: S of the square. own: whether the folder says how, or its kind of model does."""

    size: int
    resize_mode: ResizeMode
    mean: Channels
    std: Channels
    own: bool


def preprocessing(folder: Path, size: int, kind: Architecture, spec: BackboneSpec) -> Preprocessing:
    """The checkpoint's own, else those of its kind of model.

    Args:
        size: side of the images, as the model's configuration has it.

    Raises:
        BackboneError: if a file that says it is damaged.
    """
    path, own = folder / PROCESSOR, None
    try:
        if path.is_file():
            own = json.loads(path.read_text(encoding="utf-8")).get("image_processor")
        if own is None and (path := folder / IMAGE_PROCESSOR).is_file():
            own = json.loads(path.read_text(encoding="utf-8"))
        said = {} if own is None else own
        if not isinstance(said, dict):
            raise ValueError
        mean = tuple(float(v) for v in said.get("image_mean") or kind.mean)
        std = tuple(float(v) for v in said.get("image_std") or kind.std)
        if (len(mean), len(std)) != (3, 3) or min(std) <= 0:
            raise ValueError
        mode = _resize_mode(said, kind.resize_mode)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise refusal(
            spec,
            "three channel means and positive deviations",
            str(path),
            "Mend or remove the file",
        ) from None
    return Preprocessing(size, mode, mean, std, own is not None)


def _resize_mode(said: Mapping[str, Any], default: ResizeMode) -> ResizeMode:
    """Short side and crop, or both sides at once: what the sides under `size` amount to."""
    size = said.get("size")
    if not isinstance(size, Mapping):  # old files give the short side as a number
        return default if size is None else "shortest"
    both = "height" in size and "width" in size
    return "squash" if both and not said.get("do_center_crop") else "shortest"
