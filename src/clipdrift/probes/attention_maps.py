"""Reading the attention of a vision tower while it runs, a piece of one block's map at a time.

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

from clipdrift.probes.attention import entropy_bits, patch_entropy_bits

IMPLEMENTATION = "clipdrift_probe"

PIECE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Size of the piece of a map that exists at once: a share of a CPU's cache, but enough to keep a
GPU busy. A piece is at least one head of one image."""


@dataclass(frozen=True)
class BlockAttention:
    """What is kept of one block's attention A [B, H, T, T], whose rows sum to 1; float32.

    Of a tower with learned prompts A is the attention of the original tokens among themselves,
    renormalised: what is told is of CLS and patches, as for any other tower.
    """

    cls: Tensor
    """[B, H, T] the row of token 0 over all tokens, itself included; CLS where there is one."""
    mean: Tensor
    """[B, T, T] mean over heads."""
    patch_entropy_bits: Tensor
    """[B, H] as `probes.attention.patch_entropy_bits` defines it; without a CLS token every token
    is a patch, and it is the mean entropy of all rows."""


Sink = Callable[[int, BlockAttention], None]

_SINKS: dict[nn.Module, tuple[Callable[[BlockAttention], None], bool, int]] = {}
"""Attention modules that are being read now: where its readings go, whether token 0 is CLS, and how
many tokens after it are prompts."""


def tower_blocks(vision_model: nn.Module) -> list[Any]:
    """The blocks of a CLIP or SigLIP vision tower, first to last.

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


def has_cls_token(vision_model: nn.Module) -> bool:
    """Whether token 0 is CLS; else every token is a patch."""
    return hasattr(vision_model.embeddings, "class_embedding")


def added_tokens(vision_model: nn.Module) -> int:
    """How many learned prompts stand between CLS and the patches; 0 but for prompt tuning."""
    prompts = getattr(vision_model, "prompts", None)
    return 0 if prompts is None else int(prompts.n_tokens)


def original_tokens(maps: Tensor, added: int, dim: int) -> Tensor:
    """A map or a row without the prompts, which are tokens 1 to `added` of a dimension."""
    if not added:
        return maps
    first, _, rest = maps.tensor_split((1, 1 + added), dim=dim)
    return torch.cat([first, rest], dim=dim)


@contextmanager
def attention_sink(vision_model: nn.Module, sink: Sink) -> Iterator[None]:
    """While open, every block tells `sink(block, attention)` of the weights it goes on with.

    Args:
        vision_model: the tower; its config is restored on leaving, also after an error.
        sink: called in order of the blocks, numbered from 0.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attend_and_tell)
    has_cls, added = has_cls_token(vision_model), added_tokens(vision_model)
    modules = [block.self_attn for block in tower_blocks(vision_model)]
    # The blocks read the config when they run. By identity: configs compare by content.
    configs = list({id(module.config): module.config for module in modules}.values())
    before = [config._attn_implementation for config in configs]
    try:
        for number, module in enumerate(modules):
            _SINKS[module] = (partial(sink, number), has_cls, added)
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
    tell, has_cls, added = _SINKS[module]
    n, n_heads, n_tokens, width = query.shape
    out = query.new_empty(n, n_tokens, n_heads, width)
    n_told = n_tokens - added
    told = BlockAttention(
        cls=query.new_empty(n, n_heads, n_told, dtype=torch.float32),
        mean=query.new_zeros(n, n_told, n_told, dtype=torch.float32),
        patch_entropy_bits=query.new_empty(n, n_heads, dtype=torch.float32),
    )
    for images, heads in _pieces(n, n_heads, n_tokens, query.device.type):
        scores = query[images, heads] @ key[images, heads].transpose(-1, -2)
        attn = torch.softmax(scores.mul_(scaling), dim=-1, dtype=torch.float32)
        del scores  # a second map of the same size
        out[images, :, heads] = (attn.to(value.dtype) @ value[images, heads]).transpose(1, 2)
        if added:
            attn = original_tokens(original_tokens(attn, added, -2), added, -1)
            attn = attn / attn.sum(dim=-1, keepdim=True)
        told.cls[images, heads] = attn[:, :, 0]
        told.mean[images] += attn.sum(dim=1)
        told.patch_entropy_bits[images, heads] = (
            patch_entropy_bits(attn) if has_cls else entropy_bits(attn).mean(dim=-1)
        )
    told.mean.div_(n_heads)
    tell(told)
    return out, None


def _pieces(n: int, n_heads: int, n_tokens: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Images and heads of the pieces of a map [n, n_heads, n_tokens, n_tokens] of float32."""
    maps = max(1, PIECE_BYTES.get(device, PIECE_BYTES["cuda"]) // (4 * n_tokens**2))
    many, some = max(1, maps // n_heads), min(maps, n_heads)
    for image in range(0, n, many):
        for head in range(0, n_heads, some):
            yield slice(image, image + many), slice(head, head + some)
