"""The parts of an image encoder: which of its tensors belong to which block and kind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.errors import Fault, MethodError
from clipdrift.machine.devices import for_float64
from clipdrift.methods.adapted import NOT_PLAIN
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.reading.model import Readable
from clipdrift.records.located import Edited, PartKind

Weights = Mapping[str, Tensor]
"""Tensors of an image encoder by name: `tower.*` and `projection.*`."""

BLOCK = re.compile(r"tower\.encoder\.layers\.(\d+)\.(.+)")
BEHIND = ("tower.post_layernorm.", "tower.head.", "projection.")
"""Of a SigLIP the pooling head too."""
SIDES: tuple[Edited, ...] = ("adapted", "untouched")
"""The two ends."""
INSIDE: dict[str, PartKind] = {"self_attn": "attention", "mlp": "mlp", "layer_norm": "norms"}
"""Kinds of module in a block, by how the names of their tensors begin there."""


def other(of: Edited) -> Edited:
    """The other end."""
    return "untouched" if of == "adapted" else "adapted"


@dataclass(frozen=True)
class Part:
    """Tensors that are edited together.

    block: 1 is nearest to the image; None before and behind the blocks.
    kind: block, all of one; attention, mlp, norms, of one block; embeddings, all before the first;
        projection, all behind the last (post-layernorm, pooling head, visual projection).
    names: of its tensors.
    """

    block: int | None
    kind: PartKind
    names: frozenset[str]


def stage(name: str, n_blocks: int) -> int:
    """Where on the way a tensor acts: 0 embeddings, 1 to L the blocks, L + 1 behind them.

    >>> stage("tower.encoder.layers.0.mlp.fc1.weight", 2), stage("projection.weight", 2)
    (1, 3)
    """
    found = BLOCK.fullmatch(name)
    if found:
        return int(found[1]) + 1
    return n_blocks + 1 if name.startswith(BEHIND) else 0


def parts(names: Iterable[str], n_blocks: int) -> list[Part]:
    """The parts of an encoder in the order of its passes, each block followed by its kinds.

    The parts `embeddings`, `block` and `projection` hold every tensor once.

    Args:
        names: of all tensors.
        n_blocks: L.
    """
    at: dict[int, list[str]] = {}
    for name in names:
        at.setdefault(stage(name, n_blocks), []).append(name)
    found = [Part(None, "embeddings", frozenset(at.get(0, [])))]
    for block in range(1, n_blocks + 1):
        own = at.get(block, [])
        found.append(Part(block, "block", frozenset(own)))
        for start, kind in INSIDE.items():
            inside = frozenset(n for n in own if _inside(n).startswith(start))
            found.append(Part(block, kind, inside))
    return [*found, Part(None, "projection", frozenset(at.get(n_blocks + 1, [])))]


def _inside(name: str) -> str:
    found = BLOCK.fullmatch(name)
    return found[2] if found else ""


@dataclass(frozen=True)
class Ends:
    """The untouched and the adapted encoder; tensors that did not move are one object in both."""

    untouched: Weights
    adapted: Weights

    @cached_property
    def moved(self) -> frozenset[str]:
        """Names of tensors that training changed."""
        return frozenset(n for n, v in self.adapted.items() if v is not self.untouched[n])

    def moved_rel(self, part: Part) -> float:
        """||theta_1 - theta_0|| / ||theta_0|| over the tensors of a part; 0 where none moved."""
        names = sorted(part.names)  # sums hang on their order in the last digit
        size = math.sqrt(sum(self._squares[name][0] for name in names))
        apart = math.sqrt(sum(self._squares[name][1] for name in names))
        return apart / size if apart else 0.0

    @cached_property
    def _squares(self) -> dict[str, tuple[float, float]]:
        """Of each tensor the squared norm, and that of its movement."""
        return {
            name: (
                _square(value),
                _square(self.adapted[name] - value) if name in self.moved else 0.0,
            )
            for name, value in self.untouched.items()
        }


def norm(values: Iterable[Tensor]) -> float:
    """Frobenius norm of several tensors together."""
    return math.sqrt(sum(map(_square, values)))


def _square(value: Tensor) -> float:
    return float(for_float64(value).double().square().sum())


def ends(model: Readable, backbone: Backbone, where: str = "model") -> Ends:
    """Both ends of a fine-tuned image encoder as plain weights, adapters merged.

    Raises:
        MethodError: if no plain weights amount to the adapted tower.
    """
    tower = model.vision_state()
    if tower is None:
        got, step = f"a model of which {NOT_PLAIN}", "Choose a run of another method"
        raise MethodError(Fault(where, "plain weights to edit", got, step))
    before = in_encoder(backbone.vision_state(), backbone.projection_state())
    now = in_encoder(tower, model.projection_state())
    return ends_of(before, {name: value.to(before[name].device) for name, value in now.items()})


def ends_of(untouched: Weights, adapted: Weights) -> Ends:
    """Two encoders of equal names and shapes."""
    shared = {
        name: untouched[name] if torch.equal(untouched[name], value) else value.detach().clone()
        for name, value in adapted.items()
    }
    return Ends(untouched, shared)
