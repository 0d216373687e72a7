"""A CLIP or SigLIP in the layout of another library, read back and compared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone, backbone_source, load_backbone
from clipdrift.errors import BackboneError, Fault, RecordError
from clipdrift.finished.folders import new_folder
from clipdrift.formats import model_cfg
from clipdrift.formats.rows import Layout, moved, rows_of
from clipdrift.formats.source import Source, folder_tensors
from clipdrift.formats.tokens import is_openai
from clipdrift.formats.write import COPIED, OTHER, write_open_clip, write_transformers
from clipdrift.spec.parts import BackboneSpec


def convert(
    source: str | Path, out: str | Path, *, to: Layout, model: str | None = None
) -> list[str]:
    """Write a model in the layout of a library, its weights as they are, bit by bit.

    Args:
        source: what `backbone.id` of a study file takes.
        out: new folder.
        model: open_clip's name of the model, where a bare file of weights cannot say it.

    Returns:
        What was read, and what of a file was not.

    Raises:
        ClipdriftError: if it cannot be read, or the other library has no such model.
    """
    spec = BackboneSpec(id=str(source), model=model)
    found, where = backbone_source(spec), f"backbone {spec.id}"
    if isinstance(found, Path) and to == "transformers":
        step = "Name a model of open_clip's, or --to open_clip"
        raise BackboneError(Fault(where, "another layout", "transformers already", step))
    said: tuple[str, ...] = ("a folder in transformers format",)
    name = Path(spec.id).name if os.path.exists(spec.id) else spec.id  # no path is published
    with new_folder(Path(out)) as folder:
        if isinstance(found, Path):
            as_open_clip(found, folder, where, name=name)
        elif to == "transformers":
            said = _as_transformers(found, folder, where)
        else:
            with tempfile.TemporaryDirectory(dir=folder.parent) as between:
                said = _as_transformers(found, Path(between), where)
                as_open_clip(Path(between), folder, where, name=name)
    return list(said)


def _as_transformers(source: Source, folder: Path, where: str) -> tuple[str, ...]:
    said = write_transformers(source, folder, where)
    load_backbone(BackboneSpec(id=str(folder)))  # every name and shape is the model's
    return said


def as_open_clip(source: Path, out: Path, where: str, *, name: str = "tokenizer") -> None:
    """Write a folder in transformers format as open_clip's.

    Args:
        out: a folder that is there.
        where: what faults call the model.
        name: of a tokenizer that is not OpenAI's; open_clip takes the one in the folder whatever
            it is called, as long as it is read from the folder.

    Raises:
        BackboneError: if open_clip has no such model.
    """
    backbone = load_backbone(BackboneSpec(id=str(source)))
    backbone.require_texts(where)
    config = backbone.model.config
    cfg = model_cfg.to_open_clip(config, where)
    cfg["text_cfg"] |= _tokenizer(backbone, name)
    tensors = {k: t for k, t in folder_tensors(source).items() if not k.endswith("position_ids")}
    made = write_open_clip(tensors, config.to_dict(), cfg, _shown(backbone, where), out, where)
    _require_same(
        moved(made, rows_of(config.to_dict()), "transformers", where, OTHER), tensors, out
    )
    for path in (source / file for file in COPIED):
        if path.is_file() and "processor" not in path.name:
            shutil.copyfile(path, out / path.name)


def _shown(backbone: Backbone, where: str) -> dict[str, Any]:
    """How images are shown, as `preprocess_cfg` says it."""
    if backbone.resized != backbone.image_size:
        expected = f"images resized to {backbone.image_size}, which open_clip shows whole"
        step = "Keep the model in transformers format"
        raise BackboneError(Fault(where, expected, f"resized to {backbone.resized}", step))
    return {
        "size": backbone.image_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": backbone.interpolation,
        "resize_mode": backbone.resize_mode,
    }


def _tokenizer(backbone: Backbone, name: str) -> dict[str, Any]:
    """What `text_cfg` says of a tokenizer; nothing of OpenAI's, which open_clip takes unsaid."""
    tokenizer = backbone.tokenizer
    if backbone.architecture.name == "CLIP":
        return {} if is_openai(tokenizer) else {"hf_tokenizer_name": name}
    # SigLIP's own takes punctuation away by itself; before any other, case is all that is lowered.
    own = type(tokenizer).__name__.startswith("SiglipTokenizer")
    clean = {"clean": "canonicalize" if own else "lower"}
    return {"hf_tokenizer_name": name, "tokenizer_kwargs": clean}


def _require_same(again: Mapping[str, Tensor], tensors: Mapping[str, Tensor], out: Path) -> None:
    """What was written gives back every tensor, to the last bit."""
    other = [k for k in tensors if k not in again or not torch.equal(again[k], tensors[k])]
    if other:
        got, step = f"{len(other)} others, first {other[0]!r}", "Report this; nothing was written"
        raise RecordError(Fault(str(out), "the same weights read back", got, step))
