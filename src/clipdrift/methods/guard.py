"""Proof that the encoder about to be scored is the adapted one.

Scoring a plain CLIP in place of the adapted model (adapters dropped on reload, or switched off)
reads as perfect retention. Two independent paths to the same numbers make that impossible.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.errors import AdapterInactiveError, Fault
from clipdrift.methods.adapted import AdaptedModel

ROUNDING = 1e-5
"""Relative difference of embeddings that float32 rounding alone may cause between the two paths."""

SHARE = 0.1
"""Largest part of the whole movement by which live and merged may differ: dropped adapters differ
by all of it, however small the learning rate."""


@torch.inference_mode()
def assert_adapted(model: AdaptedModel, backbone: Backbone, pixels: Tensor) -> None:
    """Check on a few images that live equals merged and, if weights moved, differs from baseline.

    Args:
        pixels: uint8 [B, S, S, 3].

    Raises:
        AdapterInactiveError: if the live path is not the adapted one.
    """
    model.eval()
    live = model.encoder(pixels)
    untouched = backbone.encoder()
    weights = {f"tower.{name}": value for name, value in model.vision_state().items()}
    for name, value in model.encoder.projection.state_dict().items():
        weights[f"projection.{name}"] = value
    merged = functional_call(untouched, weights, (pixels,))
    before = untouched(pixels)
    moved = relative(merged, before)
    if relative(live, merged) > ROUNDING + SHARE * min(moved, 0.02):
        raise _fault("embeddings equal to those of the merged weights", relative(live, merged))
    if _weights_differ(untouched, weights) and torch.equal(live, before):
        raise _fault("embeddings that differ from the untouched model's", 0.0)


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def _weights_differ(untouched: ImageEncoder, weights: dict[str, Tensor]) -> bool:
    return any(not torch.equal(value, weights[n]) for n, value in untouched.named_parameters())


def _fault(expected: str, difference: float) -> AdapterInactiveError:
    return AdapterInactiveError(
        Fault(
            "retention",
            expected,
            f"a relative difference of {difference:.2e}",
            "The scored encoder is not the adapted one: switch the adapters on, or reload the run "
            "with 'clipdrift evaluate'",
        )
    )
