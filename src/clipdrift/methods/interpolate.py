"""Weights between the untouched and the adapted encoder, tried on and taken off again.

Reference: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), equation 1. The
untouched model has no head: the adapted one is kept, or lies between as well from where it started,
which for class texts makes WiSE-FT whole. With a contrastive loss the text side lies between, and
classes are read by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.class_texts import untouched_beside
from clipdrift.methods.merged import Merged, as_model, between, merged, untouched_text
from clipdrift.methods.tower_weights import in_encoder

HEAD = "head."
LORA_A, LORA_B = ".lora_A.", ".lora_B."


def starts(model: AdaptedModel) -> dict[str, Tensor]:
    """Of a model at step 0, the tensors without an untouched value: its head and LoRA's A."""
    return {
        name: value.detach().clone()
        for name, value in model.trained().items()
        if name.startswith(HEAD) or LORA_A in name
    }


def of_path(path: str, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `starts` that lie between on a path of `EvaluationSpec.interpolation_paths`."""
    marks = {"with_head": HEAD, "factors": LORA_A}
    return {name: v for name, v in start.items() if path in marks and marks[path] in name}


@contextmanager
def interpolated(
    model: AdaptedModel,
    backbone: Backbone,
    alpha: float,
    start: Mapping[str, Tensor] = MappingProxyType({}),
) -> Iterator[tuple[AdaptedModel, dict[str, Tensor]]]:
    """A model with its encoder at theta(alpha); the adapted one is as it was on leaving.

    Args:
        start: trained tensors that have no untouched value and lie between all the same, by name,
            as they were at step 0.

    Yields:
        The model to be scored, and every trained tensor of it by name, head included.

    Raises:
        ValueError: if no plain weights amount to the adapted tower.
    """
    if model.family.in_place:
        with _in_place(model, backbone, alpha, start) as trained:
            yield model, trained
    else:
        yield _on_plain_weights(model, backbone, alpha, start)


def _on_plain_weights(
    model: AdaptedModel, backbone: Backbone, alpha: float, start: Mapping[str, Tensor]
) -> tuple[AdaptedModel, dict[str, Tensor]]:
    """A plain model under the adapted head that holds theta(alpha) of the merged weights."""
    whole = merged(model)
    if whole is None:
        raise ValueError(f"interpolation: expected plain weights, got a method with {NOT_PLAIN}")
    there = mixed(whole, backbone, alpha, start)
    plain = as_model(there, backbone, model.spec, model.texts.prompts if model.texts else None)
    return plain, plain.snapshot()


def mixed(
    whole: Merged,
    backbone: Backbone,
    alpha: float,
    start: Mapping[str, Tensor] = MappingProxyType({}),
) -> Merged:
    """theta(alpha) of merged weights; the head as it is but for what of it is in `start`."""
    return Merged(
        between(backbone.vision_state(), whole.tower, alpha),
        between(backbone.projection_state(), whole.projection, alpha),
        between({**whole.head, **_head(start)}, whole.head, alpha),
        between(untouched_text(backbone, whole.text), whole.text, alpha),
    )


def _head(start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's own tensors among them, under the names that a head has for them."""
    return {name.removeprefix(HEAD): v for name, v in start.items() if name.startswith(HEAD)}


@contextmanager
def _in_place(
    model: AdaptedModel, backbone: Backbone, alpha: float, start: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """The tensors that train at theta(alpha), put back on leaving.

    Of a LoRA pair only B is scaled: W_0 + (alpha_lora / r) (a B) A is theta(a) exactly, and the
    configuration that the scaling is read from stays true. Where A_0 is in `start`, A lies between
    as well: the update is (alpha_lora / r) a B ((1 - a) A_0 + a A), which is no straight line.
    """
    kept = model.snapshot()
    untouched = {**_untouched(kept, backbone), **start}
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
        **{f"texts.{name}": value for name, value in untouched_beside(backbone).items()},
    }
