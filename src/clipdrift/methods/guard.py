"""Proof that the encoder about to be scored is the adapted one.

Scoring a plain CLIP in place of the adapted model (adapters dropped on reload, or switched off)
reads as perfect retention. Two independent paths to the same numbers make that impossible.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipdrift.backbone import Backbone, ImageEncoder, TextEncoder
from clipdrift.backbone.text import TRIAL
from clipdrift.errors import AdapterInactiveError, Fault, RecordError
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.class_texts import ClassTexts
from clipdrift.methods.head import Head, TextHead, at_texts
from clipdrift.methods.tower_weights import in_encoder

ROUNDING = 1e-5
"""Relative difference of embeddings that float32 rounding alone may cause between the two paths."""

SHARE = 0.1
"""Largest part of the tower's own movement by which live and merged may differ: dropped adapters
differ by all of it, however small the learning rate and however far the projection moved."""

VALUES = 512
"""Embedding values to compare, from at least two images. An adapter that is off is off for every
image; but of a movement at the limit of float32 a few values may by chance show nothing."""

_POOLED: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()
"""Untouched tower -> content of images -> what it makes of them, for all runs of a process."""


@torch.inference_mode()
def assert_adapted(
    model: AdaptedModel,
    backbone: Backbone,
    pixels: Tensor,
    *,
    trained: Mapping[str, Tensor] | None = None,
) -> None:
    """Check that the model holds what training left, and on a few images that it acts.

    Live must equal a second path and, if the tower moved, differ from the untouched tower under the
    same projection. The second path is the plain tower under the merged weights, or, for a method
    that has none, an encoder built anew with the tensors that train. A text tower that is adapted
    is held to the same, on a few prompts, and the classifier to the classes as it reads them.

    Args:
        pixels: uint8 [B, S, S, 3]; as many of them are looked at as `VALUES` asks for.
        trained: `AdaptedModel.snapshot()` of the weights to be scored; None before training. An
            encoder that was swapped or reset agrees with itself: only this tells.

    Raises:
        AdapterInactiveError: if the live path is not the adapted one.
    """
    model.eval()
    _assert_holds(model.trained(), trained or {})
    pixels = pixels[: max(2, math.ceil(VALUES / backbone.width))]
    live = model.encoder(pixels)
    untouched, state = backbone.live_encoder(), model.vision_state()
    pooled = _pooled(untouched, pixels)
    projection = model.projection_state()
    before = functional_call(untouched.projection, projection, (pooled,))
    if state is None:
        second, what = _rebuilt(model, backbone).encoder(pixels), "the encoder built anew"
    else:
        if not _equal(state, backbone.vision_state()):
            pooled = _through(untouched, pixels, state)
        second = functional_call(untouched.projection, projection, (pooled,))
        what = "the merged weights"
    assert_acts(live, second, before, what)
    if model.text is not None:
        _assert_text(model, model.text, backbone)
    if model.texts is not None and model.texts.prompts:
        _assert_reads_classes(model.head, model.texts)


def assert_acts(live: Tensor, second: Tensor, before: Tensor, what: str) -> None:
    """Live equals the second path and, if that moved, is not what it was."""
    moved = relative(second, before)
    if relative(live, second) > ROUNDING + SHARE * min(moved, 0.02):
        difference = f"a relative difference of {relative(live, second):.2e}"
        raise _fault(f"embeddings equal to those of {what}", difference)
    if moved > 0 and torch.equal(live, before):
        raise _fault("embeddings that differ from the untouched tower's", "the same")


def _assert_text(model: AdaptedModel, text: TextEncoder, backbone: Backbone) -> None:
    """The same of the text path, on prompts that are always the same."""
    untouched, state = backbone.live_text_encoder(), model.text_state()
    projection = model.text_projection_state()
    if state is None:
        rebuilt = _rebuilt(model, backbone).text
        assert rebuilt is not None  # of the same method, so with a text tower
        second, what = rebuilt(TRIAL), "the text encoder built anew"
    else:
        second = functional_call(untouched, in_encoder(state, projection), (TRIAL,))
        what = "the merged weights of the text tower"
    before = functional_call(untouched, in_encoder({}, projection), (TRIAL,))
    assert_acts(text(TRIAL), second, before, what)


def _assert_reads_classes(head: Head, texts: ClassTexts) -> None:
    """The classifier holds the classes as the text tower reads them now."""
    weight = head.weight
    fresh = TextHead(weight.shape[1], weight.shape[0]).to(weight.device)
    at_texts(fresh, texts.class_features(), texts.scale)
    if (apart := relative(weight, fresh.weight)) > ROUNDING:
        expected = "a classifier at the class texts as the live text tower reads them"
        raise _fault(expected, f"a relative difference of {apart:.2e}")


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def _rebuilt(model: AdaptedModel, backbone: Backbone) -> AdaptedModel:
    try:
        return model.rebuilt(backbone)
    except RecordError as error:
        raise _fault("an encoder that its method trains", error.faults[0].got) from None


def _through(untouched: ImageEncoder, pixels: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Pooled [B, D] of the plain tower under other weights. They are lent, nothing is copied."""
    values = {"pixel_values": untouched.normalise(pixels)}
    pooled: Tensor = functional_call(untouched.tower, dict(state), (), values).pooler_output
    return pooled


def _pooled(untouched: ImageEncoder, pixels: Tensor) -> Tensor:
    """Pooled [B, D] of the untouched tower: it never changes, so each image passes it once."""
    known = _POOLED.setdefault(untouched.tower, {})
    content = hashlib.sha256(pixels.cpu().numpy().tobytes()).hexdigest()
    if content not in known:
        known[content] = _through(untouched, pixels, {})
    return known[content]


def _equal(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[n], other[n]) for n in other)


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
