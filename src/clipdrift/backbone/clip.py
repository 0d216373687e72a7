"""CLIP (Radford et al. 2021): pooled at a CLS token, both towers projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from clipdrift.backbone.architecture import Architecture


def _tokens(tokenizer: Any, prompts: Sequence[str], longest: int) -> Mapping[str, Tensor]:
    tokens = tokenizer(
        list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


CLIP = Architecture(
    name="CLIP",
    model_class="CLIPModel",
    image_path=("vision_model", "visual_projection"),
    text_path=("text_model", "text_projection"),
    width=lambda model: int(model.visual_projection.out_features),
    tokens=_tokens,
    pretraining="softmax",
    faults=lambda config: [],
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    resize_mode="shortest",
)
"""Also checkpoints that LAION and others trained and converted: the architecture is the same."""
