"""How a checkpoint wants its images: resize, crop, range of values, channel mean and deviation.

What its file says is followed as transformers follows it, or refused by the name of the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.backbone.architecture import Architecture, Channels
from clipdrift.backbone.faults import refusal
from clipdrift.data.decode import Interpolation, ResizeMode
from clipdrift.errors import BackboneError, Fault, brief
from clipdrift.spec.parts import BackboneSpec

PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
"""Files that say it: transformers 5 writes the first one, and reads it before the second."""
FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that images are resized with here."""
RESAMPLE = {name: number for number, name in FILTERS.items()}
SIDES = ({"shortest_edge"}, {"height", "width"})
UNSAID = 224
"""The short side and the crop of transformers' class where a file names only the other one."""
KINDS = ("CLIP", "Siglip", "ViT", "Bit")
"""Beginnings of the names of processors that resize, crop, rescale and normalise, and no more."""


@dataclass(frozen=True)
class Preprocessing:
    """size: S of the square. resized: what sides are resized to before a square of S is cut out of
    the middle. mean, std: of values in 0..1, whatever range the file rescales to. own: whether the
    folder says how, or its kind of model does.
    """

    size: int
    resize_mode: ResizeMode
    resized: int
    interpolation: Interpolation
    mean: Channels
    std: Channels
    own: bool


def preprocessing(folder: Path, size: int, kind: Architecture, spec: BackboneSpec) -> Preprocessing:
    """The checkpoint's own, else those of its kind of model.

    Args:
        size: S, side of the images, as the model's configuration has it.

    Raises:
        BackboneError: if a file that says it is damaged, or asks for what is not done here.
    """
    path, own = folder / PROCESSOR, None
    try:
        if path.is_file():
            own = json.loads(path.read_text(encoding="utf-8")).get("image_processor")
        if own is None and (path := folder / IMAGE_PROCESSOR).is_file():
            own = json.loads(path.read_text(encoding="utf-8"))
        # A switch that is null is off in transformers; of other keys it refuses null.
        given = ({} if own is None else own).items()
        said = {k: value for k, value in given if value is not None or k.startswith("do_")}
        mean, std = _channels(said, kind)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ZeroDivisionError):
        expected = "three channel means and positive deviations"
        raise refusal(spec, expected, str(path), "Mend or remove the file") from None
    if own is None:
        return Preprocessing(size, kind.resize_mode, size, "bicubic", mean, std, own=False)
    sides, crop = _sides(said, size), _crop(said, kind)
    faults = list(_faults(said, sides, size, crop))
    if faults:
        step = "Name a checkpoint that shows its images so, or remove the file to show them as "
        step += f"{kind.name} does"
        where = f"backbone {spec.id} {path.name}"
        raise BackboneError([Fault(f"{where} {k}", rule, got, step) for k, rule, got in faults])
    mode = kind.resize_mode
    if "size" in said or "do_center_crop" in said:
        mode = "squash" if "height" in sides else "shortest"
    resized = next(iter(sides.values()))
    filter_ = FILTERS[said.get("resample", 3)]
    return Preprocessing(size, mode, resized, filter_, mean, std, own=True)


def _channels(said: Mapping[str, Any], kind: Architecture) -> tuple[Channels, Channels]:
    """Mean and deviation of values in 0..1: (f p - m) / s is (p / 255 - m / w) / (s / w) with the
    white w = 255 f.
    """
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    if said.get("do_normalize", True):
        mean = tuple(float(v) for v in said.get("image_mean") or kind.mean)
        std = tuple(float(v) for v in said.get("image_std") or kind.std)
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if (len(mean), len(std)) != (3, 3) or min(std) <= 0 or not factor > 0:
        raise ValueError
    white = 255 * factor
    if abs(white - 1) < 1e-6:  # files write 1/255 with as many digits as they like
        return mean, std
    return tuple(m / white for m in mean), tuple(s / white for s in std)


def _sides(said: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """What is resized to what; a number is the short side, as in old files."""
    sides = said.get("size", UNSAID if "crop_size" in said else size)
    return sides if isinstance(sides, Mapping) else {"shortest_edge": sides}


def _crop(said: Mapping[str, Any], kind: Architecture) -> bool:
    maker = str(said.get("image_processor_type") or said.get("feature_extractor_type") or kind.name)
    return bool(said.get("do_center_crop", maker.startswith(("CLIP", "Bit"))))


def _faults(
    said: Mapping[str, Any], sides: Mapping[str, Any], size: int, crop: bool
) -> Iterator[tuple[str, str, str]]:
    """What is neither followed nor without consequence: (key, expected, got)."""
    for key in ("image_processor_type", "feature_extractor_type"):
        if not str(said.get(key, KINDS[0])).startswith(KINDS):
            yield key, "one of CLIP or SigLIP", brief(said[key])
    if not said.get("do_resize", True):
        yield "do_resize", "true", "false: images of any size"
    if said.get("do_pad"):
        yield "do_pad", "false", "true"
    filter_ = said.get("resample", 3)
    if type(filter_) is not int or filter_ not in FILTERS:
        yield "resample", "2 (bilinear) or 3 (bicubic)", brief(filter_)
    numbers = list(sides.values()) if sides.keys() in SIDES else [None]
    if any(type(n) is not int or n < size or n != numbers[0] for n in numbers):
        expected = f"shortest_edge, or height and width alike, of {size} or more"
        yield "size", expected, brief(said.get("size", UNSAID))
    elif not crop and (numbers[0] != size or "height" not in sides):
        yield "do_center_crop", f"true, or size with height and width of {size}", "none"
    cut = said.get("crop_size", size)
    cut = cut if isinstance(cut, Mapping) else {"height": cut, "width": cut}
    if crop and dict(cut) != {"height": size, "width": size}:
        yield "crop_size", f"height and width of {size}, the model's", brief(said["crop_size"])
