"""How images are shown, from open_clip's `preprocess_cfg`, as transformers says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipdrift.errors import BackboneError, Fault, brief

CLIP_CHANNELS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
"""Of OpenAI's CLIP; what open_clip takes where `preprocess_cfg` says nothing."""
RESAMPLE = {"bilinear": 2, "bicubic": 3, "random": 3}
"""Pillow's numbers; open_clip tests with bicubic where training drew the filter."""


def to_transformers(preprocess_cfg: Any, size: int, kind: str, where: str) -> dict[str, Any]:
    """The content of preprocessor_config.json.

    Args:
        size: side of the model's images.
        kind: model_type of its config.json.

    Raises:
        BackboneError: of what is not done here, by the names of the keys.
    """
    cfg = {} if preprocess_cfg is None else preprocess_cfg
    if not isinstance(cfg, Mapping):
        raise BackboneError(Fault(where, "a mapping", brief(cfg), "Restore the file"))
    said = {key: value for key, value in cfg.items() if value is not None}
    mode, filter_ = said.get("resize_mode", "shortest"), said.get("interpolation", "bicubic")
    channels = {key: _three(said.get(key, default)) for key, default in CLIP_CHANNELS.items()}
    shown = said.get("size", size)
    rules = [
        ("resize_mode", mode in ("shortest", "squash"), "shortest or squash", mode),
        ("interpolation", str(filter_) in RESAMPLE, "bicubic or bilinear", filter_),
        ("mode", said.get("mode", "RGB") == "RGB", "RGB", said.get("mode")),
        ("size", shown in (size, [size, size]), f"{size}, the side of the model's images", shown),
        ("mean", channels["mean"] is not None, "three numbers", said.get("mean")),
        ("std", min(channels["std"] or [0]) > 0, "three numbers above 0", said.get("std")),
    ]
    step = "Correct it, or convert the model with what made it"
    faults = [Fault(f"{where} {k}", rule, brief(got), step) for k, ok, rule, got in rules if not ok]
    if faults:
        raise BackboneError(faults)
    square = {"height": size, "width": size}
    shortest = mode == "shortest"
    return {
        "image_processor_type": "SiglipImageProcessor"
        if kind == "siglip"
        else "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size} if shortest else square,
        "do_center_crop": shortest,
        **({"crop_size": square} if shortest else {}),
        "resample": RESAMPLE[str(filter_)],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": channels["mean"],
        "image_std": channels["std"],
        "do_convert_rgb": True,
    }


def _three(value: Any) -> list[float] | None:
    """One number stands for all channels, as open_clip has it."""
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        return None
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and abs(v) < 1e6]
    return numbers if len(numbers) == 3 else None
