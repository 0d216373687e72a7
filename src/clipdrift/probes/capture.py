"""One pass over the probe set that reads everything, a block at a time.

What a block attends to is turned into its few numbers as soon as it is known and then dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.machine.devices import for_float64
from clipdrift.probes.attention import (
    cls_patch_attention,
    entropy_bits,
    entropy_nats,
    erf95,
    gini,
    head_diversity,
)
from clipdrift.probes.attention_maps import (
    BlockAttention,
    attention_sink,
    has_cls_token,
    tower_blocks,
)
from clipdrift.probes.rollout import rollout_cls, rollout_step


@dataclass(frozen=True, kw_only=True)
class ProbeReading:
    """Everything from one pass over N probe images through L blocks; float32 on the CPU.

    What is read at the CLS token is None for a tower that has none.
    """

    cls_entropy_nats: Tensor | None = None
    """[N, L] mean over heads, as are all [N, L] below but `head_diversity`."""
    erf95: Tensor | None = None
    """[N, L] fraction of patches."""
    gini: Tensor | None = None
    """[N, L]"""
    head_diversity: Tensor | None = None
    """[N, L] over the heads of one image."""
    head_diversity_paper: Tensor | None = None
    """[L] over the heads' maps averaged over the whole probe set."""
    patch_entropy_bits: Tensor
    """[N, L]"""
    rollout_entropy_bits: Tensor | None = None
    """[N]"""
    rollout_erf95: Tensor | None = None
    """[N] fraction of patches."""
    rollout_gini: Tensor | None = None
    """[N]"""
    cls_activations: Tensor | None = None
    """[L, N, D] CLS hidden state after each block, before the post-layernorm."""
    embeddings: Tensor
    """[N, E] image embeddings, projected where there is a projection, un-normalised."""

    def __post_init__(self) -> None:
        at_cls = [getattr(self, field.name) for field in fields(self) if field.default is None]
        if len({value is None for value in at_cls}) > 1:
            raise TypeError("ProbeReading: expected all that is read at CLS or none of it")

    def tensors(self) -> dict[str, Tensor]:
        """What was read, by name: the arguments of an equal reading."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def read_probe(
    encode: Callable[[Tensor], Tensor], vision_model: nn.Module, batches: Iterable[Tensor]
) -> ProbeReading:
    """Read every drift quantity of a vision tower as it is now, adapters and all.

    Runs in eval mode, float32, without autocast or gradients. The tower's mode and attention
    implementation are put back afterwards, also after an error.

    Args:
        encode: [B, 3, S, S] -> embeddings [B, E], through `vision_model` exactly once.
        vision_model: transformers' CLIP or SigLIP vision tower, its linear layers possibly wrapped
            by peft.
        batches: the probe images in order, each batch [B, 3, S, S] float32; sizes may differ.

    Returns:
        The reading. Batch sizes do not matter beyond float32 rounding.

    Raises:
        ValueError: if weights or images are not float32, there are no images, or `encode` does not
            pass through `vision_model` once: what is scored would not be what is read.

    Reference: the quantities are those of arXiv 2604.16410; head diversity is read per image as
    well, and every block is kept where the paper reports means.

    >>> read_probe(lambda x: x, nn.Linear(1, 1), [])
    Traceback (most recent call last):
    ...
    ValueError: vision_model: expected a CLIP vision tower with encoder.layers, got Linear. Pass \
the tower itself.
    """
    blocks = tower_blocks(vision_model)
    _require_float32("weights", (p for p in vision_model.parameters() if p.is_floating_point()))
    collector = _Collector(len(blocks), has_cls=has_cls_token(vision_model))
    with ExitStack() as stack:
        stack.enter_context(eval_mode(vision_model))
        stack.enter_context(attention_sink(vision_model, collector.attention))
        for number, block in enumerate(blocks):
            handle = block.register_forward_hook(partial(_pass_cls, collector, number))
            stack.callback(handle.remove)
        for pixels in batches:
            _require_float32("images", [pixels])
            with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
                collector.finish_batch(encode(pixels), len(pixels))
    return collector.reading()


class _Collector:
    """Turns attention and hidden states into the columns of a reading, batch by batch."""

    def __init__(self, n_blocks: int, *, has_cls: bool) -> None:
        self.n_blocks, self.has_cls = n_blocks, has_cls
        self.columns: dict[str, list[Tensor]] = {}
        self.head_maps: list[Tensor] = []
        self._start_batch()

    def _start_batch(self) -> None:
        self._blocks: list[dict[str, Tensor]] = []
        self._cls: list[Tensor] = []
        self._rollout: Tensor | None = None

    def attention(self, block: int, attention: BlockAttention) -> None:
        """Read one block."""
        if block != len(self._blocks):
            raise _not_once()
        patch_entropy = attention.patch_entropy_bits.mean(dim=1)
        if not self.has_cls:
            self._blocks.append({"patch_entropy_bits": patch_entropy})
            return
        a = cls_patch_attention(attention.cls[:, :, None])
        self._blocks.append(
            {
                "cls_entropy_nats": entropy_nats(a).mean(dim=1),
                "erf95": erf95(a).mean(dim=1),
                "gini": gini(a).mean(dim=1),
                "head_diversity": head_diversity(a),
                "patch_entropy_bits": patch_entropy,
            }
        )
        self._rollout = rollout_step(self._rollout, attention.mean)
        # Sums over the whole probe set in float64, so that its order and batches leave no trace.
        maps = for_float64(a).sum(dim=0, dtype=torch.float64)
        if block < len(self.head_maps):
            self.head_maps[block] += maps
        else:
            self.head_maps.append(maps)

    def hidden(self, block: int, state: Tensor) -> None:
        """Keep token 0 of one block's output [B, T, D], a copy: a view would keep it all."""
        if block != len(self._cls):
            raise _not_once()
        self._cls.append(state[:, 0].clone())

    def finish_batch(self, embeddings: Tensor, n_images: int) -> None:
        """Move a batch's columns off the device."""
        if not len(self._cls) == len(self._blocks) == self.n_blocks:
            raise _not_once()
        if embeddings.ndim != 2 or len(embeddings) != n_images:
            got = f"{list(embeddings.shape)} for {n_images} images"
            raise ValueError(
                f"encode: expected embeddings [B, E], got {got}. Return one per image."
            )
        batch = {k: torch.stack([b[k] for b in self._blocks], dim=1) for k in self._blocks[0]}
        if self._rollout is not None:
            a = rollout_cls(self._rollout)
            batch["rollout_entropy_bits"] = entropy_bits(a)
            batch["rollout_erf95"] = erf95(a)
            batch["rollout_gini"] = gini(a)
            batch["cls_activations"] = torch.stack(self._cls, dim=1)
        batch["embeddings"] = embeddings
        for name, values in batch.items():
            self.columns.setdefault(name, []).append(values.float().cpu())
        self._start_batch()

    def reading(self) -> ProbeReading:
        """All batches together."""
        if not self.columns:
            raise ValueError("batches: expected probe images, got none. Check the probe set.")
        whole = {name: torch.cat(parts) for name, parts in self.columns.items()}
        if not self.has_cls:
            return ProbeReading(**whole)
        whole["cls_activations"] = whole["cls_activations"].transpose(0, 1).contiguous()
        # Cosines do not see the scale: the sum over images serves as well as the mean.
        paper = head_diversity(torch.stack(self.head_maps)).float().cpu()
        return ProbeReading(head_diversity_paper=paper, **whole)


def _pass_cls(
    collector: _Collector, number: int, block: nn.Module, inputs: Any, output: Any
) -> None:
    # Releases of transformers differ in whether a block returns its state alone or in a tuple.
    collector.hidden(number, output[0] if isinstance(output, tuple) else output)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """While open, a model and all in it is in eval mode; then each module in the mode it was."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _require_float32(what: str, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise ValueError(
                f"read_probe {what}: expected torch.float32, got {tensor.dtype}. "
                "Drift of lower precision is the size of the effects; convert first."
            )


def _not_once() -> ValueError:
    return ValueError(
        "encode: expected one pass through vision_model per call, got none, several or a part. "
        "Encode with the very tower that is read."
    )
