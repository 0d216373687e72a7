"""What lies in a folder of weights, before any of it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clipdrift.checkpoint.foreign import foreign_fault, is_of_training
from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file, unfit_model_files

Kind = Literal["run", "adapter", "clip"]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CLIP_CONFIG, CLIP_WEIGHTS = "config.json", "model.safetensors"
ORIGIN_FILE = "clipdrift.json"
"""Beside weights that we exported: the run and the baseline's content they come from."""
CLIP_INDEX = f"{CLIP_WEIGHTS}.index.json"
MAX_JSON = 20_000_000
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
CONVERT = "Save it anew with safetensors, where you trust the file: save_pretrained does"


def kind_of(folder: Path) -> Kind:
    """A run of ours, a peft adapter, or a whole CLIP in transformers format.

    Raises:
        RecordError: if it is none of them, a file of it is a link to somewhere else, a shard is
            missing, or the weights are pickled: reading a pickle runs whatever code its maker put
            into it.
    """
    if not os.path.isdir(folder):
        raise RecordError(_not_a_folder(folder))
    if links := unfit_model_files(folder):
        raise RecordError(links)
    if (folder / "record.json").is_file():
        return "run"
    if (folder / ADAPTER_CONFIG).is_file():
        _require_weights(folder, ADAPTER_WEIGHTS)
        return "adapter"
    if (folder / CLIP_CONFIG).is_file():
        if (folder / CLIP_INDEX).is_file():
            _require_shards(folder)
        else:
            _require_weights(folder, CLIP_WEIGHTS)
        return "clip"
    if fault := foreign_fault(folder):
        raise RecordError(fault)
    if pickled := _pickled(folder):
        raise RecordError(_pickle_fault(folder, pickled))
    raise RecordError(
        Fault(
            str(folder),
            f"a run (record.json), a peft adapter ({ADAPTER_CONFIG}) or a CLIP ({CLIP_CONFIG})",
            "none of these files",
            "Name the folder that holds the weights",
        )
    )


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
    """All tensors of a safetensors file, in the precision they were saved in.

    Raises:
        RecordError: if it is missing or damaged, or holds values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        got = " ".join(str(error).split())[:120]
        raise RecordError(
            Fault(str(path), "weights in safetensors format", got, "Restore the file")
        ) from None
    require_finite(tensors, path)
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


def _require_weights(folder: Path, name: str) -> None:
    if (folder / name).is_file():
        return
    if pickled := _pickled(folder):
        raise RecordError(_pickle_fault(folder, pickled))
    raise RecordError(
        Fault(str(folder / name), "weights", "nothing there", "Restore the file or save it anew")
    )


def _require_shards(folder: Path) -> None:
    shards = read_json(folder / CLIP_INDEX).get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    if not names:
        raise RecordError(
            Fault(str(folder / CLIP_INDEX), "a weight_map", "none", "Restore the file")
        )
    faults = [
        Fault(f"{CLIP_INDEX} {name}", "the name of a file in the folder", "a path", "Mend it")
        if Path(name).name != name
        else Fault(str(folder / name), "a shard of the weights", "nothing there", "Copy it too")
        for name in names
        if Path(name).name != name or not (folder / name).is_file()
    ]
    if faults:
        raise RecordError(faults)


def _not_a_folder(path: Path) -> Fault:
    if path.is_file() and path.suffix in PICKLES:
        return _pickle_fault(path, [path.name])
    if path.is_file():
        return Fault(
            str(path), "a folder", "a file", "Name the folder that holds it and its configuration"
        )
    return Fault(str(path), "a folder of weights", "nothing there", "Check the path")


def _pickled(folder: Path) -> list[str]:
    """Files that may hold weights; those that Trainer goes on from do not."""
    found = (path for path in folder.iterdir() if path.suffix in PICKLES)
    return sorted(path.name for path in found if not is_of_training(path))


def _pickle_fault(where: Path, names: list[str]) -> Fault:
    return Fault(
        str(where),
        "weights as safetensors",
        f"{', '.join(names[:3])}, a pickle, which runs its maker's code when it is read",
        CONVERT,
    )


__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "ORIGIN_FILE",
    "Kind",
    "kind_of",
    "read_json",
    "read_tensors",
    "require_finite",
]
