"""A live model of open_clip's as its twin in transformers, which is what is read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import Backbone
from clipdrift.errors import AdapterInactiveError, BackboneError, Fault
from clipdrift.formats.rows import moved, rows_of
from clipdrift.methods.guard import ROUNDING, relative

WHERE = "model"
STEP = "Make the gauge of the backbone that the model was made from, open_clip:MODEL/TAG"


def is_open_clip(model: Any) -> bool:
    """Whether a module is a CLIP or SigLIP as open_clip builds them."""
    return all(hasattr(model, name) for name in ("visual", "encode_image", "encode_text"))


def twin(model: Any, plain: Mapping[str, Tensor] | None, backbone: Backbone, pixels: Tensor) -> Any:
    """A copy of the baseline's model with the weights of one of open_clip's.

    Args:
        model: a copy in float32 and eval mode, adapters in place.
        plain: its weights with every adapter merged; None where that cannot be done.
        pixels: uint8 [B, S, S, 3], on which both must give the same embeddings: what acts without a
            weight, such as the activation, is the baseline's in the twin.

    Raises:
        BackboneError: if the weights are not those of the baseline's architecture, name by name.
        AdapterInactiveError: if the two embed images otherwise.
    """
    if plain is None:
        expected, step = "adapters that peft can merge", "Read a model with LoRA, or a merged copy"
        raise BackboneError(Fault(WHERE, expected, "others, in a model of open_clip's", step))
    made = copy.deepcopy(backbone.model)
    rows = rows_of(made.config.to_dict(), plain)
    scale = {name for row in rows.scale for name in row.open_clip}
    # A bias that a CLIP was given for a sigmoid loss changes no embedding.
    own = {n: t for n, t in plain.items() if n != "logit_bias" or n in scale}
    tensors = moved(own, rows, "transformers", WHERE, STEP)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        got = " ".join(str(error).split())[:200]
        raise BackboneError(Fault(WHERE, "the baseline's sizes", got, STEP)) from None
    _require_alike(model, made, backbone, pixels)
    return made


@torch.inference_mode()
def _require_alike(model: nn.Module, made: Any, backbone: Backbone, pixels: Tensor) -> None:
    encoder = replace(backbone, model=made).live_encoder()
    theirs: Any = model
    embedded = theirs.encode_image(encoder.normalise(pixels))
    apart = relative(embedded, encoder(pixels))
    if not apart <= 10 * ROUNDING:
        expected = "embeddings that the same weights give in the baseline's architecture"
        got = f"others, by {apart:.2%}"
        step = "Check QuickGELU first (a -quickgelu model of open_clip's), then adapters or hooks"
        raise AdapterInactiveError(Fault(WHERE, expected, got, step))
