"""Full fine-tuning: every weight of a tower trains, or those of some blocks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from clipdrift.backbone import Encoder
from clipdrift.errors import MethodError
from clipdrift.methods.targets import BLOCKS, blocks_of
from clipdrift.methods.tower_weights import effective_state
from clipdrift.spec.methods import FullFtSpec

FILE = "vision.safetensors"
BEFORE = ("embeddings", "pre_layrnorm")
"""What a tower reads before its blocks; the second is transformers' own spelling."""

__all__ = ["FILE", "adapt", "effective_state", "rate_factors"]


def adapt(encoder: Encoder, spec: FullFtSpec, seed: int) -> None:
    """Let the whole tower train, or the blocks that `layers` names.

    Raises:
        MethodError: if the tower does not have these blocks.
    """
    if spec.layers is None:
        encoder.tower.requires_grad_(True)
        return
    chosen, faults = blocks_of(encoder.tower, spec.layers, where=f"method {spec.name}")
    if faults:
        raise MethodError(faults)
    blocks = encoder.tower.get_submodule(BLOCKS)
    for place in chosen:
        blocks.get_submodule(str(place)).requires_grad_(True)


def rate_factors(encoder: Encoder, decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """Factors of layer-wise rates and what trains at each, from the output to the input.

    1 behind the blocks, the projection included; decay^k for the k-th block from the output, of n;
    decay^(n + 1) for what lies before them.

    Reference: Clark et al. 2020, "ELECTRA", appendix A; Bao et al. 2022, "BEiT", appendix H.
    """
    tower = encoder.tower
    blocks = list(tower.get_submodule(BLOCKS).children())
    before = [module for name in BEFORE if (module := getattr(tower, name, None)) is not None]
    parts = [*([block] for block in reversed(blocks)), before]
    inside = {id(p) for part in parts for module in part for p in module.parameters()}
    yield 1.0, [p for p in encoder.parameters() if id(p) not in inside]
    for depth, part in enumerate(parts, start=1):
        yield decay**depth, [p for module in part for p in module.parameters()]
