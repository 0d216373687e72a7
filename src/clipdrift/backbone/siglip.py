"""SigLIP (Zhai et al. 2023), and SigLIP 2 (Tschannen et al. 2025) at a fixed image size.

The vision tower has no CLS token: every token is a patch, and an attention-pooling head makes one
embedding of them, without a projection. The head is part of the tower. NaFlex models, which read
images at sizes of their own (model_type siglip2), have other inputs and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from clipdrift.backbone.architecture import Architecture


def _tokens(tokenizer: Any, prompts: Sequence[str], longest: int) -> Mapping[str, Tensor]:
    """Lower case, padded to the full length and without a mask, as both were trained.

    SigLIP's own tokenizer lowers case itself; SigLIP 2 uses Gemma's, which does not.
    """
    tokens = tokenizer(
        [prompt.lower() for prompt in prompts],
        padding="max_length",
        padding_side="right",
        truncation=True,
        max_length=longest,
        return_tensors="pt",
    )
    return {"input_ids": tokens.input_ids}


def _faults(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    vision, text = (config.get(f"{part}_config") or {} for part in ("vision", "text"))
    found = []
    if not vision.get("vision_use_head", True):
        found.append(("a vision tower with a pooling head", "vision_use_head: false"))
    width = vision.get("hidden_size", 768)
    projected = text.get("projection_size") or text.get("hidden_size", 768)
    if width != projected:
        found.append(("image and text embeddings of one width", f"{width} and {projected}"))
    return found


SIGLIP = Architecture(
    name="SigLIP",
    model_class="SiglipModel",
    image_path=("vision_model",),
    text_path=("text_model",),
    width=lambda model: int(model.config.vision_config.hidden_size),
    tokens=_tokens,
    written=str.lower,
    read_length=lambda text, ids: [ids.shape[1]] * len(ids),
    pretraining="sigmoid",
    faults=_faults,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    resize_mode="squash",
)
