"""Weights between the untouched and the adapted encoder, tried on and taken off again.

Reference: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), equation 1. The
head is the adapted one throughout, as an untouched one does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.methods.adapted import AdaptedModel

HEAD = "head."
LORA_A, LORA_B = ".lora_A.", ".lora_B."


def between(
    untouched: Mapping[str, Tensor], adapted: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """theta(a) = (1 - a) theta_0 + a theta_1 for every tensor; bit-equal at a = 0 and a = 1.

    Args:
        untouched, adapted: the same names and shapes.
        alpha: 0 (untouched) to 1 (adapted).

    >>> zero, one = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    >>> between(zero, one, 0.25)["w"].tolist()
    [1.5, 2.0]
    """
    return {
        name: torch.lerp(untouched[name].to(value.device), value, alpha)
        for name, value in adapted.items()
    }


@contextmanager
def interpolated(
    model: AdaptedModel, backbone: Backbone, alpha: float
) -> Iterator[dict[str, Tensor]]:
    """The model with its encoder at theta(alpha); the adapted weights are put back on leaving.

    Of a LoRA pair only B is scaled: W_0 + (alpha_lora / r) (a B) A is theta(a) exactly, and the
    configuration that the scaling is read from stays true.

    Yields:
        Every trained tensor by name, as it now is, head included.
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
    before = {f"encoder.tower.{name}": value for name, value in backbone.vision_state().items()}
    for name, value in backbone.projection_state().items():
        before[f"encoder.projection.{name}"] = value
    return {
        name: torch.zeros_like(value) if LORA_B in name else before[name]
        for name, value in trained.items()
        if LORA_A not in name and not name.startswith(HEAD)
    }
