"""How long the edits of one model will take, told before they are made."""

from __future__ import annotations

import time

import torch

from clipdrift.interventions.patches import patch_passes
from clipdrift.interventions.walk import Walk
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.reading.gauge import Gauge

KINDS = 4
"""Of a block: all of it, attention, mlp, norms."""


def about_blocks(n_blocks: int, *, draws: int, weights: bool, attention: bool) -> int:
    """Blocks that run for one image where every tensor of the encoder moved.

    An edit of block b runs blocks b to L, its controls too, but that elsewhere, which is counted as
    if it lay there as well; one of the embeddings runs them all.

    >>> about_blocks(2, draws=1, weights=True, attention=False)
    88
    """
    behind = n_blocks * (n_blocks + 1) // 2
    found = 2 * n_blocks
    if weights:
        each = 2 * (1 + draws + 1)
        found += KINDS * each * behind + 2 * (1 + draws) * n_blocks + n_blocks**2
    return found + (patch_passes(n_blocks) if attention else 0)


def seconds_per_block(gauge: Gauge) -> float:
    """Time of one image in one block of the gauge's backbone, measured on the guard's images."""
    backbone, pixels = gauge.backbone, gauge.guard_pixels
    walk = Walk(backbone.live_encoder())
    staged = walk.staged(in_encoder(backbone.vision_state(), backbone.projection_state()))
    with torch.inference_mode():
        walk.states(staged, pixels)
        started = time.perf_counter()
        walk.states(staged, pixels)
    return (time.perf_counter() - started) / (len(pixels) * walk.n_blocks)
