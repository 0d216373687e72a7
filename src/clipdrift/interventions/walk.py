"""Passes of one image encoder, block by block, under weights that are lent to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clipdrift.backbone import ImageEncoder
from clipdrift.backbone.encoder import CPU_TOKENS, n_tokens
from clipdrift.data.images import Images
from clipdrift.interventions.parts import Weights, stage
from clipdrift.probes.attention_given import attention_rule
from clipdrift.probes.attention_maps import has_cls_token, tower_blocks
from clipdrift.training.loop import in_batches

Stages = list[dict[str, Tensor]]
"""Weights by the stage in which they act."""
GPU_TOKENS = 8 * CPU_TOKENS
"""Tokens at a time on a GPU: their states before all blocks of a ViT-L, twice, take 2.5 GB."""


class Walk:
    """Passes of one plain encoder under weights that are lent to it, a stage at a time.

    Stage 0 makes tokens of images, 1 to L are the blocks, L + 1 makes embeddings of tokens: what
    transformers' CLIP and SigLIP vision towers do, in their order.

    Args:
        encoder: a copy; its own weights are lost.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.blocks = tower_blocks(encoder.tower)
        self.n_blocks = len(self.blocks)
        self.n_heads: int = encoder.tower.config.num_attention_heads  # type: ignore[union-attr, assignment]
        self.has_cls = has_cls_token(encoder.tower)
        self._owners: dict[str, tuple[dict[str, Any], str]] = {
            f"{place}.{name}": (module._parameters, name)
            for place, module in encoder.named_modules()
            for name in module._parameters
        }

    def staged(self, weights: Weights) -> Stages:
        """Weights of an encoder by stage."""
        found: Stages = [{} for _ in range(self.n_blocks + 2)]
        for name, value in weights.items():
            found[stage(name, self.n_blocks)][name] = value
        return found

    def _lend(self, weights: Mapping[str, Tensor]) -> None:
        """Into the modules as they are: `functional_call` takes a tenth more of a small model."""
        for name, value in weights.items():
            owner, own = self._owners[name]
            owner[own] = value

    def enter(self, weights: Stages, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> the hidden state that enters block 1, [B, T, D]."""
        self._lend(weights[0])
        hidden: Tensor = self.encoder.tower.embeddings(self.encoder.normalise(pixels))  # type: ignore[operator]
        return self.encoder.tower.pre_layrnorm(hidden) if self.has_cls else hidden  # type: ignore[operator]

    def block(self, number: int, weights: Stages, hidden: Tensor) -> Tensor:
        """Through block `number`, from 1: [B, T, D] -> [B, T, D].

        Behind the last one only what is read of it: [B, 1, D] where that is the CLS token.
        """
        self._lend(weights[number])
        block = self.blocks[number - 1]
        if number == self.n_blocks and self.has_cls:
            attended, _ = block.self_attn(hidden_states=block.layer_norm1(hidden))
            cls = (hidden + attended)[:, :1]
            last: Tensor = cls + block.mlp(block.layer_norm2(cls))
            return last
        out = block(hidden, None)
        return out if isinstance(out, Tensor) else out[0]

    def pattern(self, number: int, weights: Stages, hidden: Tensor) -> Tensor:
        """Attention weights [B, H, T, T] of block `number` on the state that enters it."""
        self._lend(weights[number])
        block = self.blocks[number - 1]
        with attention_rule(block, lambda now: now):
            found: Tensor = block.self_attn(hidden_states=block.layer_norm1(hidden))[1]
        return found

    def leave(self, weights: Stages, hidden: Tensor) -> Tensor:
        """What left the last block -> embeddings [B, E]."""
        self._lend(weights[-1])
        tower: Any = self.encoder.tower
        pooled = tower.post_layernorm(hidden[:, 0] if self.has_cls else hidden)
        embeddings: Tensor = self.encoder.projection(pooled if self.has_cls else tower.head(pooled))
        return embeddings

    def go_on(self, weights: Stages, hidden: Tensor, first: int) -> Tensor:
        """From the state that enters block `first` to embeddings."""
        for number in range(first, self.n_blocks + 1):
            hidden = self.block(number, weights, hidden)
        return self.leave(weights, hidden)

    def states(self, weights: Stages, pixels: Tensor) -> list[Tensor]:
        """The states that enter blocks 1 to L, and the one that leaves the last: L + 1 of them."""
        found = [self.enter(weights, pixels)]
        for number in range(1, self.n_blocks + 1):
            found.append(self.block(number, weights, found[-1]))
        return found

    def batches(self, images: Images) -> Iterator[Tensor]:
        """uint8 [B, S, S, 3] of a few images, on the encoder's device."""
        device = self.encoder.mean.device
        tokens = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
        most = max(2, tokens // n_tokens(self.encoder.tower))
        size = -(-len(images) // -(-len(images) // most))  # all about as large
        for pixels in in_batches(images, max(2, size)):
            yield pixels.to(device)
