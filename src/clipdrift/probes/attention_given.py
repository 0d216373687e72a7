"""Attention weights taken from a block, and put in the place of its own.

Where `attention_maps` tells of the weights that a block goes on with, a rule here decides them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

IMPLEMENTATION = "clipdrift_given"
Rule = Callable[[Tensor], Tensor]
"""A block's own attention weights [B, H, T, T], rows of which sum to 1 -> those it goes on with."""

_RULES: dict[nn.Module, Rule] = {}


@contextmanager
def attention_rule(block: Any, rule: Rule) -> Iterator[None]:
    """While open, one block of a vision tower goes on with what the rule makes of its attention.

    Args:
        block: of transformers' CLIP or SigLIP; its configuration is restored on leaving, also
            after an error. Other blocks must not run meanwhile.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attend)
    module = block.self_attn
    before = module.config._attn_implementation
    try:
        _RULES[module] = rule
        module.config._attn_implementation = IMPLEMENTATION
        yield
    finally:
        module.config._attn_implementation = before
        _RULES.pop(module, None)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """transformers' attention interface: rule(softmax(Q K' scaling)) V, without dropout."""
    if attention_mask is not None:
        raise ValueError("attention: expected a vision tower without a mask, got one. Remove it.")
    weights = torch.softmax((query @ key.transpose(-1, -2)) * scaling, dim=-1, dtype=torch.float32)
    weights = _RULES[module](weights).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights
