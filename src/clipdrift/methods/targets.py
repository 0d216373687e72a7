"""Which layers of a tower adapters go into, from the names and blocks of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from clipdrift.errors import Fault
from clipdrift.spec.method_base import LayersSpec

BLOCKS = "encoder.layers"
IN_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
POOLING_HEAD = "head"
"""Of a tower that pools by attention and not at a CLS token: its layers bear the blocks' names, and
its fused attention reads past an adapter on its output layer."""


@dataclass(frozen=True)
class Targets:
    """Layers by full name in the tower, and what was wrong with what was asked for."""

    layers: dict[str, nn.Module]
    faults: list[Fault]

    @property
    def pattern(self) -> str:
        """A regular expression that matches these names of the tower and no others.

        Not of a whole CLIP, whose text tower has layers of the same last names.
        """
        within = [found for name in self.layers if (found := IN_BLOCK.fullmatch(name))]
        places = sorted({found[1] for found in within}, key=int)
        names = dict.fromkeys(re.escape(found[2]) for found in within)
        parts = (
            [rf"{re.escape(BLOCKS)}\.({'|'.join(places)})\.({'|'.join(names)})"] if within else []
        )
        parts += [re.escape(name) for name in self.layers if not IN_BLOCK.fullmatch(name)]
        return "|".join(parts)


def find_targets(
    tower: nn.Module,
    modules: Sequence[str],
    layers: LayersSpec | None,
    kinds: tuple[type[nn.Module], ...],
    *,
    where: str,
) -> Targets:
    """Layers of the given kinds whose last name is among `modules`, in the blocks asked for.

    Layers outside the blocks (the norms before and after) belong to no block and are found only
    where `layers` is None.
    """
    faults: list[Fault] = []
    chosen = None
    if layers is not None:
        chosen, faults = blocks_of(tower, layers, where=where)
    there = {name: module for name, module in _candidates(tower, kinds) if _in(name, chosen)}
    known = sorted({name.rpartition(".")[2] for name in there})
    step = "Name linear layers" if kinds == (nn.Linear,) else "Name layer norms"
    faults += [_unknown(where, module, known, step) for module in modules if module not in known]
    found = {n: m for n, m in there.items() if n.rpartition(".")[2] in modules}
    return Targets(found, faults)


def blocks_of(tower: nn.Module, layers: LayersSpec, *, where: str) -> tuple[set[int], list[Fault]]:
    """Numbers of the blocks that are asked for, from 0, and the fault of a tower with fewer."""
    n_blocks = len(tower.get_submodule(BLOCKS))  # type: ignore[arg-type]
    if layers.blocks_needed() <= n_blocks:
        return set(layers.places(n_blocks)), []
    got = ", ".join(f"{k} {v}" for k, v in layers.model_dump(exclude_none=True).items())
    step = "Name blocks that are there"
    expected = f"among the {n_blocks} blocks of the backbone"
    return set(layers.places(n_blocks)), [Fault(f"{where} layers", expected, got, step)]


def _candidates(
    tower: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> list[tuple[str, nn.Module]]:
    return [
        (name, module)
        for name, module in tower.named_modules()
        if isinstance(module, kinds) and name.partition(".")[0] not in {POOLING_HEAD, "embeddings"}
    ]


def _in(name: str, chosen: set[int] | None) -> bool:
    if chosen is None:
        return True
    within = IN_BLOCK.fullmatch(name)
    return within is not None and int(within[1]) in chosen


def _unknown(where: str, module: str, known: Sequence[str], step: str) -> Fault:
    expected = f"names among {', '.join(known)}"
    if module.startswith("text_"):
        step = f"{step}; tower says in which tower"
        return Fault(f"{where} modules", expected, f"{module!r}, of the text tower", step)
    return Fault(f"{where} modules", expected, repr(module), step)


def rank_faults(targets: Targets, rank: int, *, where: str) -> list[Fault]:
    """A rank above the smaller side of a layer adds nothing but weights."""
    linears = [m for m in targets.layers.values() if isinstance(m, nn.Linear)]
    width = min((min(m.in_features, m.out_features) for m in linears), default=rank)
    if rank <= width:
        return []
    return [Fault(where, f"at most the layer width {width}", str(rank), "Lower it")]
