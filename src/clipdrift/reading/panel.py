"""The spectral and geometric panel of a model: what it adds to a reading, where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.data.images import Images
from clipdrift.materials import TransferMaterial
from clipdrift.probes.attention_maps import tower_blocks
from clipdrift.probes.drift import Signals, Value
from clipdrift.probes.panel import trace_signals
from clipdrift.probes.spectra import Spectrum
from clipdrift.probes.traces import GRADIENT_IMAGES, Traces, read_traces, spread
from clipdrift.probes.weight_updates import WeightUpdate, over_weights, weight_updates
from clipdrift.reading.model import Readable, unfolded
from clipdrift.records.readings import Reading

ELSEWHERE = 50
"""Transfer images on which movement of embeddings is read."""
Some = TypeVar("Some", bound=Reading)


@dataclass(frozen=True)
class Untouched:
    """What is dear of an untouched backbone: found once a process, for all readings of its runs.

    spectra: by name of the weight, of those that moved in any run so far.
    elsewhere: by sha256 of the transfer sets, embeddings of their images.
    """

    spectra: dict[str, Spectrum] = field(default_factory=dict)
    elsewhere: dict[tuple[str, ...], Tensor] = field(default_factory=dict)


UNTOUCHED: WeakKeyDictionary[Module, Untouched] = WeakKeyDictionary()
"""Of each backbone's model that is in memory."""


class CloseUp(NamedTuple):
    """What is dear to read: of the weights, matrix by matrix too, of attention flow and gradient.

    updates: None where no plain weights amount to the model.
    """

    signals: Signals
    updates: list[WeightUpdate] | None


def traces(encoder: ImageEncoder, images: Images) -> Traces:
    """Flow and gradient of an encoder as it is now, on a few images of a probe set."""
    few = images.take(np.array(spread(len(images), GRADIENT_IMAGES)))
    pixels = encoder.normalise(torch.from_numpy(few).to(encoder.mean.device))
    return read_traces(encoder.encode, encoder.tower, pixels)


def untouched_elsewhere(backbone: Backbone, sets: Sequence[TransferMaterial]) -> Tensor:
    """`elsewhere` of the untouched encoder."""
    known = UNTOUCHED.setdefault(backbone.model, Untouched()).elsewhere
    marks = tuple(one.sha256 for one in sets)
    if marks not in known:
        known[marks] = elsewhere(backbone.live_encoder(), [one.images for one in sets])
    return known[marks]


@torch.inference_mode()
def elsewhere(encoder: ImageEncoder, sets: Sequence[Images]) -> Tensor:
    """Embeddings [n, E] of 50 images spread over some sets, on the CPU in float32."""
    few = [one.take(np.array(spread(len(one), ELSEWHERE // len(sets)))) for one in sets]
    return torch.cat([encoder(torch.from_numpy(px).to(encoder.mean.device)).cpu() for px in few])


def close_up(model: Readable, backbone: Backbone, images: Images, before: Traces) -> CloseUp:
    """The dear part of the panel, less what is read on transfer images.

    Args:
        images: the probe set. before: flow and gradient of the untouched backbone there.
    """
    state = model.vision_state()
    known = UNTOUCHED.setdefault(backbone.model, Untouched()).spectra
    updates = None if state is None else weight_updates(state, backbone.vision_state(), known)
    levels, drift = trace_signals(traces(model.encoder, images), before)
    of_weights = over_weights(updates, len(tower_blocks(model.encoder.tower)))
    return CloseUp(Signals(levels, {**drift, **of_weights}), updates)


def extended(reading: Some, levels: dict[str, Value], drift: dict[str, Value]) -> Some:
    """A reading with further levels and drift signals."""
    fields = unfolded(levels, drift)
    return reading.model_copy(update={k: getattr(reading, k) | v for k, v in fields.items()})
