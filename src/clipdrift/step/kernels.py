"""Element-wise kernels for a CPU that torch has only slower ones for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**16
"""Of the drop probability: random words of 16 bits are compared with it."""


class FastDropout(nn.Module):
    """Dropout that draws four decisions from each 64-bit number of torch's generator.

    torch draws one per number, which costs as much as a matrix product of the same input. The
    probability is rounded to 1/65536, and the scale is that of the rounded one. Draws differ from
    `nn.Dropout`'s, and are as much a function of the generator's state.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = round(p * LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= self.dropped - LEVELS // 2
        return x * kept * (LEVELS / (LEVELS - self.dropped))


class QuickGelu(nn.Module):
    """x sigmoid(1.702 x), by way of SiLU, whose gradient is one pass over the data instead of five.

    Reference: Hendrycks & Gimpel 2016, sec. 2; as in OpenAI's CLIP.
    """

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _QuickGelu.apply(x)  # type: ignore[no-untyped-call]
        return out


class _QuickGelu(torch.autograd.Function):
    SLOPE = 1.702

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scaled = x * _QuickGelu.SLOPE
        ctx.save_for_backward(scaled)
        return nn.functional.silu(scaled).mul_(1 / _QuickGelu.SLOPE)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # d/dx silu(a x) / a = silu'(a x)
        grad: Tensor = torch.ops.aten.silu_backward(grads[0], ctx.saved_tensors[0])
        return grad
