"""The part of the network that does not train, computed once per image and flip.

A linear probe trains behind the whole tower, last blocks behind all others. What goes into the
first trained block is the same in every epoch but for the flip, so it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipdrift.data.images import Images
from clipdrift.machine.memory import free_memory_bytes
from clipdrift.methods.adapted import AdaptedModel

LOG = logging.getLogger(__name__)
MOST_BYTES = 4 * 2**30
"""Of kept activations in one process, which also never take more than a quarter of free memory."""
CHUNK = 64
"""Images computed together, always the same: the bits do not depend on where training began."""


@dataclass(frozen=True)
class Kept:
    """Inputs of the trained part for every image: [F, N, ...], F = 2 with flips, else 1."""

    activations: Tensor

    def take(self, chosen: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
        """[B, ...] for positions [B], of the mirrored image where it says so."""
        device = self.activations.device
        flip, position = torch.from_numpy(mirrored.astype(np.int64)), torch.from_numpy(chosen)
        return self.activations[flip.to(device), position.to(device)]


def frozen_blocks(model: AdaptedModel) -> int | None:
    """How many blocks lie before everything that trains; None if the tower is frozen throughout.

    0 where there is nothing to keep, also where the frozen part draws dropout.
    """
    tower: Any = model.encoder.tower
    if getattr(tower.config, "attention_dropout", 0.0):
        return 0
    if not _trained(tower):
        return None
    blocks = tower.encoder.layers
    behind = [blocks, *(m for n in ("post_layernorm", "head") if (m := getattr(tower, n, None)))]
    known = {id(p) for module in behind for p in module.parameters()}
    if any(p.requires_grad for p in tower.parameters() if id(p) not in known):
        return 0
    return [*(_trained(block) for block in blocks), True].index(True)


def keep(
    model: AdaptedModel,
    images: Images,
    *,
    flips: bool,
    images_to_see: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Kept | None:
    """Run the frozen part over all images, if that saves work and fits.

    Args:
        flips: keep mirrored images too.
        images_to_see: in the whole training; keeping pays if it is more than there are to compute.
    """
    blocks = frozen_blocks(model)
    copies = 2 if flips else 1
    if blocks == 0 or images_to_see <= copies * len(images):
        return None
    run = _FrozenPart(model, blocks, autocast)
    one = run(images.take(slice(0, 1)))
    needed = copies * len(images) * one.numel() * one.element_size()
    if needed > (limit := min(MOST_BYTES, free_memory_bytes(one.device) // 4)):
        LOG.warning(
            "the frozen part is computed in every epoch: keeping it takes %.1f GB of the %.1f GB "
            "that it may have", needed / 1e9, limit / 1e9,
        )  # fmt: skip
        return None
    kept = one.new_empty((copies, len(images), *one.shape[1:]))
    for copy in range(copies):
        for start in range(0, len(images), CHUNK):
            part = slice(start, min(start + CHUNK, len(images)))
            pixels = images.take(part)
            kept[copy, part] = run(pixels if copy == 0 else pixels[:, :, ::-1].copy())
    return Kept(kept)


def trained_part(model: AdaptedModel) -> Callable[[Tensor], Tensor]:
    """Kept activations [B, ...] -> embeddings [B, E], by the modules of the model itself."""
    blocks = frozen_blocks(model)
    encoder, tower = model.encoder, model.encoder.tower

    def on_pooled(pooled: Tensor) -> Tensor:
        embeddings: Tensor = encoder.projection(pooled)
        return embeddings

    def on_hidden(hidden: Tensor) -> Tensor:
        with _reduced(tower, slice(blocks, None), skip_embeddings=True):
            return encoder.encode(hidden)

    return on_pooled if blocks is None else on_hidden


class _FrozenPart:
    """uint8 [B, S, S, 3] -> what the trained part starts from."""

    def __init__(
        self,
        model: AdaptedModel,
        blocks: int | None,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._encoder, self._blocks, self._autocast = model.encoder, blocks, autocast

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        tower: Any = self._encoder.tower
        batch = torch.from_numpy(pixels).to(self._encoder.mean.device)
        with self._autocast():
            values = self._encoder.normalise(batch)
            if self._blocks is None:
                pooled: Tensor = tower(pixel_values=values).pooler_output
                return pooled
            return self._hidden(tower, values)

    def _hidden(self, tower: Any, values: Tensor) -> Tensor:
        found: list[Tensor] = []
        hook = tower.encoder.register_forward_hook(
            lambda module, given, out: found.append(out.last_hidden_state)
        )
        try:
            with _reduced(tower, slice(0, self._blocks), skip_embeddings=False):
                tower(pixel_values=values)
        finally:
            hook.remove()
        return found[0]


class _AsGiven(nn.Module):
    """Stands for embeddings whose result is already there."""

    def forward(self, pixel_values: Tensor, **_: Any) -> Tensor:
        return pixel_values


@contextmanager
def _reduced(tower: Any, part: slice, *, skip_embeddings: bool) -> Iterator[None]:
    """The tower with some of its blocks only, for one pass; put back also after an error."""
    whole = tower.encoder.layers
    norm = "pre_layrnorm"  # transformers' own spelling; not every tower has one
    before = {name: getattr(tower, name) for name in ("embeddings", norm) if hasattr(tower, name)}
    try:
        tower.encoder.layers = whole[part]
        if skip_embeddings:
            for name in before:
                setattr(tower, name, _AsGiven() if name == "embeddings" else nn.Identity())
        yield
    finally:
        tower.encoder.layers = whole
        for name, module in before.items():
            setattr(tower, name, module)


def _trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
