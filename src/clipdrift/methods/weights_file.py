"""Saving and restoring named tensors with exact key accounting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records.writing import as_usual, writing_to


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; the run's record is written after, so a torn file never counts.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing_to(path):
        path.parent.mkdir(exist_ok=True)
        try:
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, path)
            as_usual(path)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        RecordError: if it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(read_file(path))
        return tensors
    except (OSError, SafetensorError, ValueError) as error:
        raise RecordError(
            Fault(
                str(path),
                "saved weights in safetensors format",
                " ".join(str(error).split())[:120],
                "Run the study again to redo this run",
            )
        ) from None


@torch.no_grad()
def assign(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], *, where: str) -> None:
    """Copy saved values into parameters of exactly the same names and shapes.

    Raises:
        RecordError: naming the keys that are missing, left over or of another shape.
    """
    missing, extra = sorted(parameters.keys() - saved.keys()), sorted(saved.keys() - parameters)
    shapes = [k for k in parameters.keys() & saved.keys() if parameters[k].shape != saved[k].shape]
    if missing or extra or shapes:
        raise RecordError(
            Fault(
                where,
                f"exactly the {len(parameters)} tensors that the method trains",
                f"{len(missing)} missing, {len(extra)} left over, {len(shapes)} of another shape"
                f" (first: {[*missing, *extra, *sorted(shapes)][0]!r})",
                "Use the backbone and method options that the run was trained with",
            )
        )
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])
