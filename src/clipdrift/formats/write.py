"""A model in the folder of another library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.errors import BackboneError, Fault
from clipdrift.formats import config, images
from clipdrift.formats.clip_lora import is_clip_lora
from clipdrift.formats.onto import PROJECTION, configuration, put_onto
from clipdrift.formats.rows import moved, rows_of
from clipdrift.formats.source import CONFIG, WEIGHTS, WITH_WEIGHTS, Source, folder_tensors
from clipdrift.formats.state import clip_state, read_content
from clipdrift.formats.tokens import write_tokenizer

OTHER = (
    "Name the model that the weights are of, as MODEL/TAG where a tower of them is not whole, or "
    "restore the file"
)
COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model"),
    *("preprocessor_config.json", "processor_config.json"),
)
"""Tokenizer and preprocessing of a model, and nothing else that may lie in its folder."""


def write_transformers(source: Source, out: Path, where: str) -> tuple[str, ...]:
    """Write what transformers loads as its CLIPModel or SiglipModel, weights as they are.

    Args:
        out: a folder that is there.
        where: what faults call the model.

    Returns:
        What was read of the file, and what was not, in words.

    Raises:
        BackboneError: if the file cannot be read safely, holds no CLIP or SigLIP, or one that its
            configuration does not describe weight by weight.
    """
    if source.whole is not None:
        return _write_onto(source, source.whole, out)
    model_cfg, said = source.described(where)
    made = config.to_transformers(model_cfg, said)
    size, kind = made["vision_config"]["image_size"], made["model_type"]
    shown = images.to_transformers(source.preprocess_cfg, size, kind, f"{said} preprocess_cfg")
    write_tokenizer(model_cfg["text_cfg"], source.folder, out, said)
    content = read_content(source.weights)
    if is_clip_lora(content):
        raise BackboneError(Fault(where, "a model", "an adapter of CLIP-LoRA's", WITH_WEIGHTS))
    state = clip_state(content, str(source.weights))
    tensors = state.tensors
    if state.layout == "open_clip":
        rows = rows_of(made, tensors)
        tensors = moved(tensors, rows, "transformers", str(source.weights), OTHER)
    first = tensors["vision_model.embeddings.patch_embedding.weight"]  # norms may be more precise
    made["dtype"] = str(first.dtype).removeprefix("torch.")
    _write_json(out / "config.json", made)
    _write_json(out / "preprocessor_config.json", shown)
    _save(tensors, out / "model.safetensors")
    return (*state.said, *_aside(state.beside))


def _write_onto(source: Source, whole: Path, out: Path) -> tuple[str, ...]:
    """A whole model with the weights of the source in place of its own."""
    made, before = configuration(whole), folder_tensors(whole)
    before = {name: t for name, t in before.items() if not name.endswith("position_ids")}
    found = put_onto(source.weights, before, made.to_dict())
    for key, value in found.acting.items():
        setattr(made.vision_config, key, value)
    made.dtype = next(iter(found.tensors.values())).dtype
    made.save_pretrained(out)
    for path in (whole / name for name in COPIED):
        if path.is_file():
            shutil.copyfile(path, out / path.name)
    _save({**before, **found.tensors}, out / "model.safetensors")
    lacks = [] if found.own_text else ["the text tower"]
    lacks += ["the projection"] if PROJECTION in before.keys() - found.tensors else []
    taken = [f"taken from the model that was named: {', '.join(lacks)}"] if lacks else []
    return (*found.said, *taken, *_aside(found.beside))


def _aside(beside: Mapping[str, Tensor]) -> list[str]:
    """What is said of tensors that lie beside those of a model, such as a head."""
    names = sorted(beside)
    return [f"not read: {', '.join(names[:9])}{', ...' * (len(names) > 9)}"] if names else []


def write_open_clip(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any],
    out: Path,
    where: str,
) -> dict[str, Tensor]:
    """Write open_clip_config.json and open_clip_model.safetensors, weights as they are.

    Args:
        tensors: by transformers' names.
        config: the content of its config.json.

    Returns:
        The weights by open_clip's names.

    Raises:
        BackboneError: naming weights that are missing or left over.
    """
    made = moved(tensors, rows_of(config), "open_clip", where, OTHER)
    _write_json(out / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    _save(made, out / WEIGHTS)
    return made


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"}
    )
