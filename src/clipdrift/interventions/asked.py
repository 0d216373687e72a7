"""What to edit, on how much to read it, and how long that will take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clipdrift.errors import Fault
from clipdrift.interventions.edits import KINDS
from clipdrift.interventions.patches import patch_passes, patches
from clipdrift.interventions.told import LOOKED_INTO
from clipdrift.interventions.walk import Walk
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.reading.gauge import Gauge
from clipdrift.records.located import WHAT, What

DEFAULT: tuple[What, ...] = ("weights", "attention")
ALL = "all"
MAX_DRAWS, MAX_IMAGES = 100, 1_000_000


@dataclass(frozen=True)
class Asked:
    """What to edit, and on how much to read it.

    what: of `records.located.WHAT`. draws: random changes beside each edit of weights.
    n_images: of each set, at most. seed: of all that is drawn.
    """

    what: tuple[What, ...] = DEFAULT
    draws: int = 1
    n_images: int = 100
    seed: int = 0

    @property
    def of_weights(self) -> bool:
        """Whether weights are edited."""
        return bool({"weights", "kinds", "elsewhere"} & {*self.what})

    def faults(self) -> Iterator[Fault]:
        """Values that make no sense."""
        if not self.what or set(self.what) - set(WHAT):
            got = ", ".join(self.what) or "nothing"
            yield Fault("--what", f"some of {', '.join(WHAT)}, {ALL}", got, "Name what to edit")
        for name, value, low, high in (
            ("--draws", self.draws, 1, MAX_DRAWS),
            ("--images", self.n_images, 2, MAX_IMAGES),
        ):
            if not low <= value <= high:
                rule = f"a whole number from {low} to {high:,}"
                yield Fault(name, rule, str(value), "Correct the value")


@dataclass(frozen=True)
class Price:
    """Of one model, at most. images: that are read. passes: of the encoder, all images together.
    seconds: on one core, or on the GPU."""

    images: int
    passes: float
    seconds: float


def price(gauge: Gauge, asked: Asked) -> Price:
    """What the edits of one model of the gauge will take if all of it moved."""
    backbone, pixels = gauge.backbone, gauge.guard_pixels
    walk = Walk(backbone.encoder())
    staged = walk.staged(in_encoder(backbone.vision_state(), backbone.projection_state()))
    with torch.inference_mode():
        walk.states(staged, pixels)
        started = time.perf_counter()
        walk.states(staged, pixels)
    each = (time.perf_counter() - started) / len(pixels)
    on_transfers = sum(min(asked.n_images, len(t.images)) for t in gauge.transfers.values())
    on_target = min(asked.n_images, len(gauge.target.test)) if gauge.target_name else 0
    blocks = on_transfers * about_blocks(walk, asked, on_transfer=True)
    blocks += on_target * about_blocks(walk, asked, on_transfer=False)
    passes = blocks / walk.n_blocks
    return Price(on_transfers + on_target, passes, each * passes)


def about_blocks(walk: Walk, asked: Asked, *, on_transfer: bool) -> int:
    """Blocks that run for one image where every tensor of the encoder moved.

    An edit of block b runs blocks b to L, its controls too, but that elsewhere, which is counted as
    if it lay there as well; one of the embeddings runs them all.
    """
    n = walk.n_blocks
    found = 2 * n + patch_passes(patches(walk, asked.what, each_block=on_transfer), n)
    if not asked.of_weights:
        return found
    behind = n * (n + 1) // 2
    beside = asked.draws if on_transfer else 0
    each = 2 * (1 + beside + (on_transfer and "elsewhere" in asked.what))
    found += 2 * (1 + beside) * n + n**2 + each * behind
    if "kinds" in asked.what:
        return found + len(KINDS) * each * behind
    looked_into = min(LOOKED_INTO, n)
    return found + len(KINDS) * each * looked_into * (n + 1) // 2
