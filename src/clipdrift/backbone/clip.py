"""CLIP (Radford et al. 2021): pooled at a CLS token, both towers projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from clipdrift.backbone.architecture import Architecture
from clipdrift.formats.images import CLIP_CHANNELS


def _tokens(tokenizer: Any, prompts: Sequence[str], longest: int) -> Mapping[str, Tensor]:
    tokens = tokenizer(
        list(prompts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=longest,
        return_tensors="pt",
    )
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


def _read_length(text: Any, ids: Tensor) -> list[int]:
    """Up to the token that is pooled, by transformers' rule; no token sees those behind it.

    Configurations of old say 2, and mean the highest token.
    """
    ends = ids if text.eos_token_id == 2 else (ids == text.eos_token_id).int()
    return [int(place) + 1 for place in ends.argmax(dim=-1)]


CLIP = Architecture(
    name="CLIP",
    model_class="CLIPModel",
    image_path=("vision_model", "visual_projection"),
    text_path=("text_model", "text_projection"),
    width=lambda model: int(model.visual_projection.out_features),
    tokens=_tokens,
    written=str,
    read_length=_read_length,
    pretraining="softmax",
    faults=lambda config: [],
    mean=CLIP_CHANNELS["mean"],
    std=CLIP_CHANNELS["std"],
    resize_mode="shortest",
)
"""Also checkpoints that LAION and others trained and converted: the architecture is the same."""
