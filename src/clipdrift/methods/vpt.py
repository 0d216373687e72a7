"""Visual prompt tuning (Jia et al. 2022): learned tokens beside the patches, a frozen tower.

`prompts` tokens stand between CLS and the patches from the first block on, behind the embeddings
and, where a CLIP has one, their layer norm. Shallow: they go through the tower like any token (the
paper's equations 4 and 5). Deep: each block is given tokens of its own in their place (6 and 7).

Any token that is attended to changes what the tower makes of an image: the encoder differs from the
baseline before the first step, and epoch 0 is read as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder
from clipdrift.errors import Fault, MethodError
from clipdrift.spec.methods import VptSpec

FILE = "prompts.safetensors"


class Prompts(nn.Module):
    """Learned tokens [K, n, D]: of the first block alone (K = 1), or of every block."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(values)

    @property
    def n_tokens(self) -> int:
        """n, how many tokens there are beside the original ones."""
        return int(self.tokens.shape[1])

    def put(self, hidden: Tensor, block: int) -> Tensor:
        """What a block is given [B, 1 + n + P, D]; the first one comes without prompts."""
        own = self.tokens[block].to(hidden.dtype).expand(len(hidden), -1, -1)
        patches = hidden[:, 1 + (self.n_tokens if block else 0) :]
        return torch.cat([hidden[:, :1], own, patches], dim=1)


def adapt(encoder: ImageEncoder, spec: VptSpec, seed: int) -> None:
    """Put prompts into the tower, in place, drawn as the paper draws them.

    U(-v, v) with v^2 = 6 / (3 S^2 + D), S the side of a patch.

    Raises:
        MethodError: if the backbone has no CLS token for them to stand behind.
    """
    tower: Any = encoder.tower
    if not hasattr(tower.embeddings, "class_embedding"):
        raise MethodError(
            Fault(
                f"method {spec.name}",
                "a backbone with a CLS token, which reads the prompts",
                "one whose pooling head would read prompts as patches",
                "Choose another method or backbone",
            )
        )
    blocks, config = tower.encoder.layers, tower.config
    bound = (6 / (3 * config.patch_size**2 + config.hidden_size)) ** 0.5
    shape = (len(blocks) if spec.depth == "deep" else 1, spec.prompts, config.hidden_size)
    draw = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 * bound - bound
    tower.prompts = Prompts(draw.to(encoder.mean.device))
    for number, block in enumerate(blocks[: shape[0]]):
        block.register_forward_pre_hook(_Put(tower.prompts, number))


class _Put:
    """Hook before a block: its prompts are put into what it is given."""

    def __init__(self, prompts: Prompts, block: int) -> None:
        self.prompts, self.block = prompts, block

    def __call__(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.prompts.put(given[0], self.block), *given[1:])


def effective_state(encoder: ImageEncoder) -> None:
    """No plain weights amount to a tower with more tokens."""
