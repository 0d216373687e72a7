"""Faster ways to the same bfloat16 step, in place while training and gone when anything is read.

Nothing here touches a float32 step. The modules stay the model's own: what trains is what is probed
and scored. Two things, each measured in docs/performance.md:

- on a CPU, attention is computed in float32, which is faster there than torch's bfloat16 kernel and
  more exact, and dropout and QuickGELU have kernels of their own;
- blocks are compiled where a compiler is found and the work is long enough to pay for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.machine.devices import can_compile
from clipdrift.step.kernels import FastDropout, QuickGelu

LOG = logging.getLogger(__name__)
Forward = Callable[..., Any]
ATTENTION = "clipdrift_float32_sdpa"
WORTH_COMPILING = 2e14
"""Multiply-adds of all forward passes of a training from which compiling pays. It takes some 20
seconds and saves 2 to 6 % of a step; on two cores this many take an hour."""


@contextmanager
def fast_kernels(blocks: nn.ModuleList, *, compiled: Sequence[Forward] = ()) -> Iterator[None]:
    """Transformer blocks compute bfloat16 autocast steps faster until this is left, in any way.

    Args:
        compiled: what `compile_blocks` gave, to run in place of them.
    """
    device = next(blocks.parameters()).device
    with ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(float32_attention(blocks))
            if not compiled:  # a compiler makes kernels of its own
                stack.enter_context(own_kernels(blocks))
        stack.enter_context(_in_place_of(blocks, compiled))
        yield


@contextmanager
def float32_attention(blocks: nn.ModuleList) -> Iterator[None]:
    """Attention in float32 between bfloat16 projections, for blocks that use torch's SDPA."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend_in_float32)
    attentions: list[Any] = [block.self_attn for block in blocks]
    found = {id(attention.config): attention.config for attention in attentions}
    configs = [config for config in found.values() if config._attn_implementation == "sdpa"]
    try:
        for config in configs:
            config._attn_implementation = ATTENTION
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


def _attend_in_float32(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [B, H, T, D] each -> ([B, T, H, D], no weights)."""
    with torch.autocast(query.device.type, enabled=False):
        out = nn.functional.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask=attention_mask,
            dropout_p=dropout,
            scale=scaling,
        )
    return out.transpose(1, 2).to(query.dtype).contiguous(), None


@contextmanager
def own_kernels(blocks: nn.ModuleList) -> Iterator[None]:
    """Dropout and QuickGELU by `kernels`."""
    from transformers.activations import QuickGELUActivation

    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in blocks.modules():
        for name, module in parent.named_children():
            own: nn.Module | None = None
            if type(module) is nn.Dropout and module.p > 0:
                own = FastDropout(module.p)
            elif isinstance(module, QuickGELUActivation):
                own = QuickGelu()
            if own is not None:
                replaced.append((parent, name, module))
                setattr(parent, name, own.train(module.training))
    try:
        yield
    finally:
        for parent, name, module in replaced:
            setattr(parent, name, module)


def compile_blocks(blocks: nn.ModuleList, batch_size: int) -> list[Forward]:
    """Blocks compiled one by one, so that all share one piece of code, for batches of one size.

    Others, like the last of an epoch, run uncompiled, and so do all if the compiler fails, which
    shows at the first batch.
    """
    compiler = _Compiler(batch_size)
    return [compiler.forward_of(block) for block in blocks]


class _Compiler:
    def __init__(self, batch_size: int) -> None:
        from torch._dynamo.exc import TorchDynamoException  # half a second, so only here

        self._batch_size, self._works, self._failure = batch_size, True, TorchDynamoException

    def forward_of(self, block: nn.Module) -> Forward:
        plain, fast = block.forward, torch.compile(block.forward, dynamic=False)

        def forward(hidden: Tensor, *args: Any, **options: Any) -> Any:
            if self._works and len(hidden) == self._batch_size:
                try:
                    return fast(hidden, *args, **options)
                except self._failure as error:
                    self._works = False
                    LOG.warning("training goes on uncompiled: %s", str(error).strip()[:200])
            return plain(hidden, *args, **options)

        return forward


@contextmanager
def _in_place_of(blocks: nn.ModuleList, forwards: Sequence[Forward]) -> Iterator[None]:
    try:
        for block, forward in zip(blocks, forwards, strict=False):
            block.forward = forward
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def pays_to_compile(blocks: nn.ModuleList, tokens: int, images_to_see: int) -> bool:
    """Whether a whole training is long enough; a matter of numbers, never of a clock.

    So a run that goes on after a stop decides as it did before.
    """
    if any(isinstance(m, nn.Dropout) and m.p > 0 for m in blocks.modules()):
        return False  # the compiler's draws cost as much as it saves elsewhere
    weights = sum(p.numel() for block in blocks for p in block.parameters())
    device = next(blocks.parameters()).device
    return weights * tokens * images_to_see > WORTH_COMPILING and can_compile(device)
