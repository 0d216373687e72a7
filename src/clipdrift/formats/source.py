"""What lies at a path that a model may be read from, and which files of it hold the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.errors import BackboneError, Fault
from clipdrift.formats import known
from clipdrift.formats.state import TENSORS, flat_tensors
from clipdrift.paths import links_out, read_file

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
FILES = (WEIGHTS, "open_clip_pytorch_model.bin")
"""Weights in a folder of open_clip's, the ones to be preferred first."""
ALONE = ("model.safetensors", "pytorch_model.bin")
"""Weights beside an open_clip_config.json, or without any configuration."""
INDEX, PICKLED = "model.safetensors.index.json", "pytorch_model.bin"
"""In a folder of transformers': what names its shards; weights as they were written of old, read
where there are none in safetensors."""
MAX_JSON = 1_000_000
NAME_IT = (
    "Name the model with --model, in a study file backbone.model, as open_clip calls it "
    "(ViT-B-32, ViT-B-32-quickgelu for OpenAI's weights, ...)"
)
WITH_WEIGHTS = (
    "Name the weights that it was made from, in a study file as backbone.model, to convert it as "
    "--model (ViT-B-32/openai, a hub id or a folder): what it lacks is taken from them"
)


@dataclass(frozen=True)
class Source:
    """A file of weights, and what says which model they are of; None where nothing does.

    folder: where its configuration and tokenizer lie, or would. whole: a folder in transformers
    format with the model that the weights are put onto, which has what they lack.
    """

    weights: Path
    folder: Path
    model_cfg: Mapping[str, Any] | None = None
    preprocess_cfg: Any = None
    whole: Path | None = None

    def described(self, where: str) -> tuple[Mapping[str, Any], str]:
        """The model_cfg, and what faults of it name.

        Raises:
            BackboneError: if nothing says which model it is.
        """
        if self.model_cfg is None:
            expected = f"config.json or {CONFIG} beside it: no weight holds heads and activation"
            raise BackboneError(Fault(where, expected, "weights alone", NAME_IT))
        beside = self.folder / CONFIG
        return self.model_cfg, str(beside) if beside.is_file() else where

    def as_model(self, name: str | None, where: str) -> Source:
        """The same, where a bare file is named by open_clip's name of its model.

        Raises:
            BackboneError: no such model, or a file whose configuration says which one it is.
        """
        if name is None:
            return self
        if self.model_cfg is not None:
            got, step = f"{name!r}, and {CONFIG} beside the weights", "Leave the name away"
            raise BackboneError(Fault(where, "a model that is said once", got, step))
        found = known.model(name, where)
        return replace(self, model_cfg=found.model_cfg, preprocess_cfg=found.preprocess_cfg)

    def as_tagged(self, tag: known.Known) -> Source:
        """The same, of weights that open_clip knows by a tag: QuickGELU is what the tag says."""
        cfg = self.model_cfg if self.model_cfg is not None else tag.model_cfg
        shown = self.preprocess_cfg if self.model_cfg is not None else tag.preprocess_cfg
        quick = {"quick_gelu": True} if tag.model_cfg.get("quick_gelu") else {}
        return replace(self, model_cfg={**cfg, **quick}, preprocess_cfg=shown)


def find(path: Path) -> Source | None:
    """The weights at a path that is no folder of transformers'; None if there are none.

    Raises:
        BackboneError: if there are several, or their configuration is damaged.
    """
    if path.is_file():
        return _beside(path, path.parent) if path.suffix in TENSORS else None
    if not path.is_dir() or is_transformers(path):
        return None
    own = (path / CONFIG).is_file()
    named = (*FILES, *ALONE) if own else FILES
    if held := [path / name for name in named if (path / name).is_file()]:
        if links := links_out(held[:1], path):
            raise BackboneError(links)
        return _beside(held[0], path)
    if own or (path / "config.json").is_file():
        return None
    loose = sorted(one for one in path.iterdir() if one.suffix in TENSORS)
    if len(loose) == 1 and loose[0].is_file() and not links_out(loose, path):
        return _beside(loose[0], path)
    return None


def is_transformers(folder: Path) -> bool:
    """Whether a folder has a config.json of transformers'; timm has one of another kind."""
    return isinstance((_json(folder / "config.json") or {}).get("model_type"), str)


def is_tower(folder: Path) -> bool:
    """Whether a transformers folder holds an image tower alone, or one under a classifier."""
    config = _json(folder / "config.json") or {}
    classes = config.get("architectures")
    made = str(classes[0]) if isinstance(classes, list) and classes else ""
    tower = str(config.get("model_type")).endswith("_vision_model")
    return tower or made.endswith("ForImageClassification")


def is_pickled(folder: Path) -> bool:
    """Whether a transformers folder has its weights in a file of torch's alone."""
    return (folder / PICKLED).is_file() and not any(folder.glob("*.safetensors"))


def weight_files(folder: Path) -> list[str]:
    """The files that hold the weights of a transformers folder: one, or shards."""
    if not (folder / INDEX).is_file():
        return [PICKLED if is_pickled(folder) else ALONE[0]]
    shards = (_json(folder / INDEX) or {}).get("weight_map")
    return sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []


def folder_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a transformers folder.

    Raises:
        BackboneError: if a file of them cannot be read.
    """
    found: dict[str, Tensor] = {}
    for name in weight_files(folder):
        found |= flat_tensors(folder / Path(name).name)
    return found


def _beside(weights: Path, folder: Path) -> Source:
    path = folder / CONFIG
    if not path.is_file():
        return Source(weights, folder)
    found = _json(path)
    model_cfg = (found or {}).get("model_cfg")
    if not isinstance(model_cfg, dict):
        got = "none, or a damaged file"
        raise BackboneError(Fault(str(path), "a mapping model_cfg", got, "Restore the file"))
    return Source(weights, folder, model_cfg, (found or {}).get("preprocess_cfg"))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(read_file(path, MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
