"""The tower's weights by name: as they are, and those that train, kept in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.backbone import Encoder, weights_of
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors


def effective_state(encoder: Encoder) -> dict[str, Tensor]:
    """The tower's weights as they are."""
    return weights_of(encoder.tower)


def in_encoder(
    tower: Mapping[str, Tensor], projection: Mapping[str, Tensor], under: str = ""
) -> dict[str, Tensor]:
    """Tensors of a tower and its projection under the names that they have in an encoder."""
    parts = {"tower": tower, "projection": projection}
    return {f"{under}{p}.{name}": v for p, values in parts.items() for name, v in values.items()}


def trained_weights(encoder: Encoder) -> dict[str, Tensor]:
    """Those of the tower's weights that train."""
    return {n: p.detach() for n, p in encoder.tower.named_parameters() if p.requires_grad}


Save = Callable[[Encoder, Path], None]
Restore = Callable[[Encoder, Any, Path], None]


def kept_in(file: str, adapt: Callable[[Encoder, Any, int], None]) -> tuple[Save, Restore]:
    """How a family is saved and restored that needs nothing but the weights that train."""

    def save(encoder: Encoder, folder: Path) -> None:
        save_tensors(trained_weights(encoder), folder / file)

    def restore(encoder: Encoder, spec: Any, folder: Path) -> None:
        adapt(encoder, spec, 0)
        assign(trained_weights(encoder), load_tensors(folder / file), where=str(folder / file))

    return save, restore
