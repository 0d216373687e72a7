"""Reading the attention of a CLIP vision tower while it runs, a piece of one block's map at a time.

transformers' fused attention returns no weights. Here an attention function of our own is in place
for the duration, in a tower that peft may have adapted. The maps of 200 images through a
ViT-L/14@336 would take 100 GB, and one block's of a batch is still far more than a cache holds: so
a few heads at a time are computed, read and dropped while they are still in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.probes.attention import patch_entropy_bits

IMPLEMENTATION = "clipdrift_probe"

PIECE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Size of the piece of a map that exists at once: a share of a CPU's cache, but enough to keep a
GPU busy. A piece is at least one head of one image."""


@dataclass(frozen=True)
class BlockAttention:
    """What is kept of one block's attention A [B, H, T, T], whose rows sum to 1; float32."""

    cls: Tensor
    """[B, H, T] the row of CLS (token 0) over all tokens, itself included."""
    mean: Tensor
    """[B, T, T] mean over heads."""
    patch_entropy_bits: Tensor
    """[B, H] as `probes.attention.patch_entropy_bits` defines it."""


Sink = Callable[[int, BlockAttention], None]

_SINKS: dict[nn.Module, Callable[[BlockAttention], None]] = {}
"""Attention modules that are being read now, each with where its readings go."""


def tower_blocks(vision_model: nn.Module) -> list[Any]:
    """The blocks of a CLIP vision tower, first to last.

    Raises:
        ValueError: if it has none.
    """
    blocks = getattr(getattr(vision_model, "encoder", None), "layers", None)
    if blocks is None:
        raise ValueError(
            "vision_model: expected a CLIP vision tower with encoder.layers, got "
            f"{type(vision_model).__name__}. Pass the tower itself."
        )
    return list(blocks)


@contextmanager
def attention_sink(vision_model: nn.Module, sink: Sink) -> Iterator[None]:
    """While open, every block tells `sink(block, attention)` of the weights it goes on with.

    Args:
        vision_model: the tower; its config is restored on leaving, also after an error.
        sink: called in order of the blocks, numbered from 0.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attend_and_tell)
    modules = [block.self_attn for block in tower_blocks(vision_model)]
    # The blocks read the config when they run. By identity: configs compare by content.
    configs = list({id(module.config): module.config for module in modules}.values())
    before = [config._attn_implementation for config in configs]
    try:
        for number, module in enumerate(modules):
            _SINKS[module] = partial(sink, number)
        for config in configs:
            config._attn_implementation = IMPLEMENTATION
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
        for module in modules:
            _SINKS.pop(module, None)


def _attend_and_tell(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [B, H, T, D] each -> ([B, T, H, D], no weights).

    softmax(Q K' scaling) V. No dropout: a tower is read in eval mode.
    """
    if attention_mask is not None:
        raise ValueError("attention: expected a vision tower without a mask, got one. Remove it.")
    if module not in _SINKS:  # a tower that shares the config is not read, but must still work
        out = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return out.transpose(1, 2).contiguous(), None
    n, n_heads, n_tokens, width = query.shape
    out = query.new_empty(n, n_tokens, n_heads, width)
    told = BlockAttention(
        cls=query.new_empty(n, n_heads, n_tokens, dtype=torch.float32),
        mean=query.new_zeros(n, n_tokens, n_tokens, dtype=torch.float32),
        patch_entropy_bits=query.new_empty(n, n_heads, dtype=torch.float32),
    )
    for images, heads in _pieces(n, n_heads, n_tokens, query.device.type):
        scores = query[images, heads] @ key[images, heads].transpose(-1, -2)
        attn = torch.softmax(scores.mul_(scaling), dim=-1, dtype=torch.float32)
        del scores  # a second map of the same size
        out[images, :, heads] = (attn.to(value.dtype) @ value[images, heads]).transpose(1, 2)
        told.cls[images, heads] = attn[:, :, 0]
        told.mean[images] += attn.sum(dim=1)
        told.patch_entropy_bits[images, heads] = patch_entropy_bits(attn)
    told.mean.div_(n_heads)
    _SINKS[module](told)
    return out, None


def _pieces(n: int, n_heads: int, n_tokens: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Images and heads of the pieces of a map [n, n_heads, n_tokens, n_tokens] of float32."""
    maps = max(1, PIECE_BYTES.get(device, PIECE_BYTES["cuda"]) // (4 * n_tokens**2))
    many, some = max(1, maps // n_heads), min(maps, n_heads)
    for image in range(0, n, many):
        for head in range(0, n_heads, some):
            yield slice(image, image + many), slice(head, head + some)


__all__ = ["BlockAttention", "attention_sink", "tower_blocks"]
