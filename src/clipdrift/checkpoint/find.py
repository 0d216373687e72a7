"""What lies in a folder of weights, before any of it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clipdrift.checkpoint.foreign import foreign_fault, is_of_training
from clipdrift.errors import Fault, RecordError
from clipdrift.formats.source import CONFIG as OPEN_CLIP_CONFIG
from clipdrift.formats.source import INDEX as CLIP_INDEX
from clipdrift.formats.source import PICKLED as CLIP_OLD
from clipdrift.formats.source import find, is_transformers, weight_files
from clipdrift.formats.state import TENSORS, flat_tensors
from clipdrift.paths import read_file, unfit_model_files

Kind = Literal["run", "adapter", "clip", "weights"]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_OLD = "adapter_model.bin"
"""How peft saved adapters before it took to safetensors."""
CLIP_CONFIG, CLIP_WEIGHTS = "config.json", "model.safetensors"
ORIGIN_FILE = "clipdrift.json"
"""Beside weights that we exported: the run and the baseline's content they come from."""
MAX_JSON = 20_000_000
TWINS = ("pytorch_model", "adapter_model.")
"""Beginnings of names under which the libraries save the same weights in another format."""


def kind_of(folder: Path) -> Kind:
    """A run of ours, a peft adapter, a whole CLIP in transformers format, or weights of another's.

    Raises:
        ClipdriftError: if it is none of them, a file of it is a link to somewhere else, a shard is
            missing, or the weights of a transformers folder are pickled.
    """
    if not os.path.isdir(folder):
        if find(folder) is not None:
            return "weights"
        raise RecordError(_not_a_folder(folder))
    if links := unfit_model_files(folder):
        raise RecordError(links)
    if (folder / "record.json").is_file():
        return "run"
    if (folder / ADAPTER_CONFIG).is_file():
        _require_weights(folder, ADAPTER_WEIGHTS, ADAPTER_OLD)
        return "adapter"
    if (folder / ADAPTER_WEIGHTS).is_file():
        step = "Copy it too: it says how the adapter acts"
        raise RecordError(Fault(str(folder / ADAPTER_CONFIG), "a file", "nothing there", step))
    if (folder / CLIP_CONFIG).is_file() and not _is_open_clip(folder):
        if (folder / CLIP_INDEX).is_file():
            _require_shards(folder)
        else:
            _require_weights(folder, CLIP_WEIGHTS, CLIP_OLD)
        return "clip"
    if fault := foreign_fault(folder):
        raise RecordError(fault)
    if find(folder) is not None:
        return "weights"
    if several := _loose(folder):
        names = ", ".join(several[:5])
        step = f"Name one, such as {folder / several[-1]}"
        raise RecordError(Fault(str(folder), "one file of weights", names, step))
    raise RecordError(
        Fault(
            str(folder),
            f"a run (record.json), a peft adapter ({ADAPTER_CONFIG}), a CLIP ({CLIP_CONFIG}) or "
            f"one of open_clip's ({OPEN_CLIP_CONFIG})",
            "none of these files",
            "Name the folder or the file that holds the weights",
        )
    )


def adapter_weights(folder: Path) -> Path:
    """The file of an adapter's weights."""
    new = folder / ADAPTER_WEIGHTS
    return new if new.is_file() else folder / ADAPTER_OLD


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RecordError: if it is missing, damaged or something else.
    """
    try:
        value = json.loads(read_file(path, MAX_JSON))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RecordError(Fault(str(path), "a JSON object", "a damaged file", "Restore the file"))
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of torch's, in the precision they were saved in.

    Raises:
        ClipdriftError: if it is missing or damaged, or holds values that are not finite.
    """
    require_finite(tensors := flat_tensors(path), path)
    return tensors


def require_finite(tensors: Mapping[str, Tensor], where: Path) -> None:
    """Refuse weights of a training that broke down.

    Raises:
        RecordError: naming the first tensor with a NaN or an infinity.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RecordError(
                Fault(
                    f"{where} {name}",
                    "finite values",
                    "NaN or infinity",
                    "Take a checkpoint from before training broke down",
                )
            )


def _is_open_clip(folder: Path) -> bool:
    """Whether its config.json is not transformers' but timm's, as beside weights of open_clip."""
    return (folder / OPEN_CLIP_CONFIG).is_file() and not is_transformers(folder)


def _require_weights(folder: Path, *names: str) -> None:
    """One of several names is there."""
    if any((folder / name).is_file() for name in names):
        return
    got, step = "nothing there", "Restore the file or save it anew"
    if others := _loose(folder):
        got, step = ", ".join(others[:3]), f"Call the file of weights so, or {names[-1]}"
    raise RecordError(Fault(str(folder / names[0]), "weights", got, step))


def unread_weights(folder: Path, read: Iterable[str]) -> list[str]:
    """Files that may hold tensors and are not among those that are read.

    The same weights in the other format of a library, by its name for them, are none.
    """
    return [n for n in _loose(folder) if n not in {*read} and not n.startswith(TWINS)]


def _require_shards(folder: Path) -> None:
    names = weight_files(folder)
    if not names:
        raise RecordError(
            Fault(str(folder / CLIP_INDEX), "a weight_map", "none", "Restore the file")
        )
    faults = [
        Fault(f"{CLIP_INDEX} {name}", "the name of a file in the folder", "a path", "Mend it")
        if Path(name).name != name
        else Fault(str(folder / name), "a shard of the weights", "nothing there", "Copy it too")
        for name in names
        if Path(name).name != name or not os.path.isfile(folder / name)  # also of a name too long
    ]
    if faults:
        raise RecordError(faults)


def _not_a_folder(path: Path) -> Fault:
    if path.is_file():
        expected = "a folder, or a file of weights (.safetensors, .pt, .pth, .bin, .ckpt)"
        return Fault(str(path), expected, "another file", "Name the folder or the file of weights")
    return Fault(str(path), "a folder or file of weights", "nothing there", "Check the path")


def _loose(folder: Path) -> list[str]:
    """Files that may hold weights; those that Trainer goes on from do not."""
    found = (path for path in folder.iterdir() if path.suffix in TENSORS)
    return sorted(path.name for path in found if not is_of_training(path))
