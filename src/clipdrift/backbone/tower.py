"""An image tower alone, as the model that it is a part of: without what reads texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from clipdrift.backbone.architecture import Architecture
from clipdrift.formats.onto import PROJECTION, tower_of

NOT_THERE = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
CLASSIFIER = "classifier."
LEAST = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 8}
LEAST |= {"num_hidden_layers": 1, "max_position_embeddings": 8}
"""A text tower that is taken away again."""


def as_part(folder: Path, model_type: str) -> dict[str, Any]:
    """What transformers makes the whole model from: configuration, and the weights that are there.

    Raises:
        BackboneError: if they cannot be read.
    """
    from transformers import CONFIG_MAPPING

    own, tensors = tower_of(folder)
    sizes = {"vision_config": own.to_dict(), "text_config": LEAST}
    if hasattr(own, "projection_dim"):
        sizes["projection_dim"] = own.projection_dim
    config = CONFIG_MAPPING[model_type](**sizes)
    tensors = {name: t for name, t in tensors.items() if not name.startswith(CLASSIFIER)}
    return {"pretrained_model_name_or_path": None, "config": config, "state_dict": tensors}


def may_lack(key: str) -> bool:
    """Whether a weight of the whole model is none of an image tower's."""
    return key.startswith(NOT_THERE) or key == PROJECTION


def without_texts(model: Any, kind: Architecture, missing: set[str]) -> Architecture:
    """Take away what an image tower alone does not have; its kind, which has no more than it."""
    for name in {part for key in missing if may_lack(key) for part in [key.partition(".")[0]]}:
        delattr(model, name)
    if PROJECTION not in missing:
        return kind
    return replace(kind, image_path=kind.image_path[:1], width=_pooled)


def _pooled(model: Any) -> int:
    return int(model.config.vision_config.hidden_size)
