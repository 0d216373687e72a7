"""Proof that the encoder about to be scored is the adapted one.

Scoring a plain CLIP in place of the adapted model (adapters dropped on reload, or switched off)
reads as perfect retention. Two independent paths to the same numbers make that impossible.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from clipdrift.backbone import Backbone
from clipdrift.errors import AdapterInactiveError, Fault
from clipdrift.methods.adapted import AdaptedModel

ROUNDING = 1e-5
"""Relative difference of embeddings that float32 rounding alone may cause between the two paths."""

SHARE = 0.1
"""Largest part of the tower's own movement by which live and merged may differ: dropped adapters
differ by all of it, however small the learning rate and however far the projection moved."""


@torch.inference_mode()
def assert_adapted(
    model: AdaptedModel,
    backbone: Backbone,
    pixels: Tensor,
    *,
    trained: Mapping[str, Tensor] | None = None,
) -> None:
    """Check that the model holds what training left, and on a few images that it acts.

    Live must equal merged and, if the tower moved, differ from the untouched tower under the same
    projection.

    Args:
        pixels: uint8 [B, S, S, 3].
        trained: `AdaptedModel.snapshot()` of the weights to be scored; None before training. An
            encoder that was swapped or reset agrees with itself: only this tells.

    Raises:
        AdapterInactiveError: if the live path is not the adapted one.
    """
    model.eval()
    _assert_holds(model.trained(), trained or {})
    live = model.encoder(pixels)
    untouched = backbone.encoder()
    projection = {f"projection.{n}": p for n, p in model.encoder.projection.state_dict().items()}
    tower = {f"tower.{name}": value for name, value in model.vision_state().items()}
    merged = functional_call(untouched, {**tower, **projection}, (pixels,))
    before = functional_call(untouched, projection, (pixels,))
    moved = relative(merged, before)
    if relative(live, merged) > ROUNDING + SHARE * min(moved, 0.02):
        difference = f"a relative difference of {relative(live, merged):.2e}"
        raise _fault("embeddings equal to those of the merged weights", difference)
    if moved > 0 and torch.equal(live, before):
        raise _fault("embeddings that differ from the untouched tower's", "the same")


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def _assert_holds(now: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    other = [
        name
        for name, value in trained.items()
        if name not in now or not torch.equal(now[name], value.to(now[name].device))
    ]
    if other:
        raise _fault(
            f"the {len(trained)} tensors that training left",
            f"{len(other)} that are not, first {other[0]!r}",
        )


def _fault(expected: str, got: str) -> AdapterInactiveError:
    return AdapterInactiveError(
        Fault(
            "retention",
            expected,
            got,
            "The scored encoder is not the adapted one: switch the adapters on, or reload the run "
            "with 'clipdrift evaluate'",
        )
    )
