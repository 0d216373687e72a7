"""Weights between the untouched and the adapted encoder, tried on and taken off again.

Reference: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), equation 1. The
head is the adapted one throughout, as an untouched one does not exist; with a contrastive loss the
text side lies between as well, and classes are read by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.merged import Merged, as_model, between, merged, untouched_text
from clipdrift.methods.tower_weights import in_encoder

HEAD = "head."
LORA_A, LORA_B = ".lora_A.", ".lora_B."


@contextmanager
def interpolated(
    model: AdaptedModel, backbone: Backbone, alpha: float
) -> Iterator[tuple[AdaptedModel, dict[str, Tensor]]]:
    """A model with its encoder at theta(alpha); the adapted one is as it was on leaving.

    Yields:
        The model to be scored, and every trained tensor of it by name, head included.

    Raises:
        ValueError: if no plain weights amount to the adapted tower.
    """
    if model.family.in_place:
        with _in_place(model, backbone, alpha) as trained:
            yield model, trained
    else:
        yield _on_plain_weights(model, backbone, alpha)


def _on_plain_weights(
    model: AdaptedModel, backbone: Backbone, alpha: float
) -> tuple[AdaptedModel, dict[str, Tensor]]:
    """A plain model under the adapted head that holds theta(alpha) of the merged weights."""
    whole = merged(model)
    if whole is None:
        raise ValueError(f"interpolation: expected plain weights, got a method with {NOT_PLAIN}")
    there = Merged(
        between(backbone.vision_state(), whole.tower, alpha),
        between(backbone.projection_state(), whole.projection, alpha),
        whole.head,
        between(untouched_text(backbone, whole.text), whole.text, alpha),
    )
    plain = as_model(there, backbone, model.spec, model.texts.prompts if model.texts else None)
    if model.texts is None:
        plain.head = model.head
    return plain, plain.snapshot()


@contextmanager
def _in_place(model: AdaptedModel, backbone: Backbone, alpha: float) -> Iterator[dict[str, Tensor]]:
    """The tensors that train at theta(alpha), put back on leaving.

    Of a LoRA pair only B is scaled: W_0 + (alpha_lora / r) (a B) A is theta(a) exactly, and the
    configuration that the scaling is read from stays true.
    """
    kept = model.snapshot()
    untouched = _untouched(kept, backbone)
    moved = between(untouched, {name: kept[name] for name in untouched}, alpha)
    try:
        model.rewind({**kept, **moved})
        yield {**kept, **moved}
    finally:
        model.rewind(kept)


def _untouched(trained: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Trained tensors of the encoder that change with alpha, at their untouched values."""
    before = _named(backbone)
    return {
        name: torch.zeros_like(value) if LORA_B in name else before[name]
        for name, value in trained.items()
        if LORA_A not in name and not name.startswith(HEAD)
    }


def _named(backbone: Backbone) -> dict[str, Tensor]:
    """The untouched tensors under the names that they have in an adapted model."""
    text = backbone.text_state(), backbone.text_projection_state()
    return {
        **in_encoder(backbone.vision_state(), backbone.projection_state(), under="encoder."),
        **in_encoder(*text, under="texts.encoder."),
        "texts.log_scale": backbone.model.logit_scale.detach(),
    }
