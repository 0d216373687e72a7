"""The spectral and geometric panel of a model: what it adds to a reading, where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.data.images import Images
from clipdrift.probes.attention_maps import tower_blocks
from clipdrift.probes.drift import Signals, Value
from clipdrift.probes.panel import trace_signals
from clipdrift.probes.traces import GRADIENT_IMAGES, Traces, read_traces, spread
from clipdrift.probes.weight_updates import WeightUpdate, over_weights, weight_updates
from clipdrift.reading.model import Readable, unfolded
from clipdrift.records.readings import Reading

ELSEWHERE = 100
"""Transfer images on which movement of embeddings is read."""
Some = TypeVar("Some", bound=Reading)


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


@torch.inference_mode()
def elsewhere(encoder: ImageEncoder, sets: Sequence[Images]) -> Tensor:
    """Embeddings [n, E] of 100 images spread over some sets, on the CPU in float32."""
    few = [one.take(np.array(spread(len(one), ELSEWHERE // len(sets)))) for one in sets]
    return torch.cat([encoder(torch.from_numpy(px).to(encoder.mean.device)).cpu() for px in few])


def close_up(model: Readable, backbone: Backbone, images: Images, before: Traces) -> CloseUp:
    """The dear part of the panel, less what is read on transfer images.

    Args:
        images: the probe set. before: flow and gradient of the untouched backbone there.
    """
    state = model.vision_state()
    updates = None if state is None else weight_updates(state, backbone.vision_state())
    levels, drift = trace_signals(traces(model.encoder, images), before)
    of_weights = over_weights(updates, len(tower_blocks(model.encoder.tower)))
    return CloseUp(Signals(levels, {**drift, **of_weights}), updates)


def extended(reading: Some, levels: dict[str, Value], drift: dict[str, Value]) -> Some:
    """A reading with further levels and drift signals."""
    fields = unfolded(levels, drift)
    return reading.model_copy(update={k: getattr(reading, k) | v for k, v in fields.items()})
