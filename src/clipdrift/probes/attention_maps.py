"""Reading the attention maps of a CLIP vision tower while it runs, one block at a time.

transformers' fused attention returns no weights. Here an attention function of our own is in place
for the duration, in a tower that peft may have adapted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

IMPLEMENTATION = "clipdrift_probe"
Sink = Callable[[int, Tensor], None]

_SINKS: dict[nn.Module, Callable[[Tensor], None]] = {}
"""Attention modules that are being read now, each with where its maps go."""


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
    """While open, every block hands its attention map to `sink(block, attn)`.

    `attn` is [B, H, T, T] float32, the weights that the block itself goes on with. It is freed when
    the block is done unless the sink keeps it.

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
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scaling)
    if attention_mask is not None:
        scores += attention_mask
    attn = torch.softmax(scores, dim=-1, dtype=torch.float32)
    del scores  # a second map of the same size
    if module in _SINKS:  # a tower that shares the config is not read, but must still work
        _SINKS[module](attn)
    return torch.matmul(attn.to(value.dtype), value).transpose(1, 2).contiguous(), None
