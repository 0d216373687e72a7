"""What the config.json of a folder says of a model, before the model is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipdrift.backbone.architecture import Architecture
from clipdrift.backbone.clip import CLIP
from clipdrift.backbone.faults import CONVERT, refusal
from clipdrift.backbone.siglip import SIGLIP
from clipdrift.backbone.sizes import size_faults
from clipdrift.errors import BackboneError, Fault
from clipdrift.spec.parts import BackboneSpec

ARCHITECTURES = {"clip": CLIP, "siglip": SIGLIP}
"""model_type of a config.json -> the kind of model."""


def described(folder: Path, spec: BackboneSpec) -> tuple[dict[str, Any], Architecture]:
    """The config.json of a folder, held against what its weights can fill, and its kind of model.

    Raises:
        BackboneError: if it is damaged, or of a model that is not read here.
    """
    config = _read_json(folder / "config.json", spec)
    kind = _architecture(config, spec)
    sized = {"vision_config": config} if config.get("model_type") != model_type(config) else config
    if wrong := size_faults(sized, folder, f"backbone {spec.id}"):
        raise BackboneError(wrong)
    return config, kind


def model_type(config: dict[str, Any]) -> str:
    """The kind of model that a config.json is of, or of an image tower of."""
    return str(config.get("model_type")).removesuffix("_vision_model")


def _architecture(config: dict[str, Any], spec: BackboneSpec) -> Architecture:
    found = model_type(config)
    if found == "siglip2":
        raise refusal(
            spec,
            "a CLIP or SigLIP that reads images at one size",
            "model_type 'siglip2', which reads them at sizes of their own (NaFlex)",
            "Name a SigLIP 2 of fixed size, for example google/siglip2-base-patch16-224",
        )
    if found not in ARCHITECTURES:
        expected = "a CLIP or SigLIP checkpoint (model_type clip or siglip)"
        raise refusal(spec, expected, repr(config.get("model_type"))[:80], CONVERT)
    for part in ("vision_config", "text_config"):
        if not isinstance(config.get(part) or {}, dict):
            raise refusal(spec, f"a mapping as {part}", repr(config[part])[:80], CONVERT)
    kind = ARCHITECTURES[found]
    if wrong := kind.faults(config):
        where, step = f"backbone {spec.id}", "Name another checkpoint"
        raise BackboneError([Fault(where, expected, got, step) for expected, got in wrong])
    return kind


def precision_on_disk(config: dict[str, Any]) -> str:
    """The precision that a config.json says its weights were saved in."""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _read_json(path: Path, spec: BackboneSpec) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refusal(spec, "a folder with a readable config.json", str(path), CONVERT)
    return value
