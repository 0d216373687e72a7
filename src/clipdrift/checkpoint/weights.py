"""A file of weights without a configuration, as the baseline's model with these weights in it.

What no weight holds, such as heads, activation, preprocessing and tokenizer, is the baseline's, and
said to be.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.backbone.content import PICKLED
from clipdrift.checkpoint.alike import ACTING
from clipdrift.checkpoint.clip_lora import is_clip_lora, merged_state
from clipdrift.checkpoint.find import read_tensors, require_finite
from clipdrift.errors import Fault, RecordError
from clipdrift.formats.rows import moved, rows_of
from clipdrift.formats.state import State, clip_state, read_content

OWN = "Name its own --baseline, or convert it first: clipdrift convert FILE OUT --model NAME"
CONVOLUTION = re.compile(r"(conv1|patch_embed\.proj|patch_embedding)\.weight")
BLOCK = re.compile(r"(?:visual\..*?blocks|vision_model\..*?layers)\.(\d{1,6})\.")


@dataclass(frozen=True)
class Loaded:
    """model: the baseline's, with the weights of the file. taken: their names. own_text: whether
    they have a text tower. beside: tensors that a CLIP does not have. said: what it is, in words.
    """

    model: Any
    taken: frozenset[str]
    own_text: bool
    beside: dict[str, Tensor]
    precision: str
    said: tuple[str, ...]


def load_tower(folder: Path, baseline: Backbone) -> Loaded:
    """Read a folder with an image tower alone, as CLIPVisionModel is saved, onto a copy of the
    baseline: its configuration is that of the tower, and texts are read by the baseline.

    Raises:
        ClipdriftError: if it cannot be read safely, or is of another architecture.
    """
    config = copy.deepcopy(baseline.model.config)
    try:
        from transformers import AutoConfig

        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for key in ACTING:
            if hasattr(own := getattr(found, "vision_config", found), key):
                setattr(config.vision_config, key, getattr(own, key))
        model = type(baseline.model)(config).eval()
    except Exception as error:  # transformers and its checks of types have many
        got, step = " ".join(str(error).split())[:160], "Restore config.json"
        expected = "a configuration that transformers loads"
        raise RecordError(Fault(str(folder), expected, got, step)) from None
    new, old = folder / "model.safetensors", folder / PICKLED
    tensors = read_tensors(new if new.is_file() else old)
    prefix = "" if any(name.startswith("vision_model.") for name in tensors) else "vision_model."
    state = State(
        "transformers", {f"{prefix}{n}": t for n, t in tensors.items()}, {}, ("an image tower",)
    )
    return _loaded(state, model, baseline, folder)


def load_weights(path: Path, baseline: Backbone) -> Loaded:
    """Read a file of weights onto a copy of the baseline.

    Raises:
        ClipdriftError: if it cannot be read safely, or is of another architecture.
    """
    content = read_content(path)
    if is_clip_lora(content):
        tensors, said = merged_state(content, baseline, str(path))
        state = State("transformers", tensors, {}, (said,))
    else:
        state = clip_state(content, str(path))
    return _loaded(state, copy.deepcopy(baseline.model), baseline, path)


def _loaded(state: State, model: Any, baseline: Backbone, path: Path) -> Loaded:
    tensors, own_text, beside = _on_baseline(state, baseline, path)
    require_finite(tensors, path)
    every = {**baseline.model.state_dict(), **tensors}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(every[name])
    dtypes = {str(value.dtype).removeprefix("torch.") for value in state.tensors.values()}
    precision = ", ".join(sorted(dtypes))
    frozen = model.to(baseline.model.device).requires_grad_(False)
    left = {**state.beside, **beside}
    return Loaded(frozen, frozenset(tensors), own_text, left, precision, state.said)


def _on_baseline(
    state: State, baseline: Backbone, path: Path
) -> tuple[dict[str, Tensor], bool, dict[str, Tensor]]:
    """Weights by transformers' names, whether a text tower is among them, and what is not read.

    Raises:
        RecordError: if the image tower is not whole, or one of other sizes.
    """
    _require_sizes(state, baseline, path)
    custom = any(name.startswith("text.") for name in state.tensors)
    rows = rows_of(baseline.model.config.to_dict(), custom_text=custom)
    left = {name: t for name, t in state.tensors.items() if not name.endswith("position_ids")}
    found: dict[str, Tensor] = {}
    whole: set[str] = set()
    for part, group in (("image", rows.image), ("text", rows.text), ("scale", rows.scale)):
        names = [name for row in group for name in row.names(state.layout)]
        own = {name: left.pop(name) for name in names if name in left}
        if part != "image" and len(own) < len(names):
            left |= own  # half a tower is none; of the image tower what is missing is named
        elif state.layout == "transformers":
            found, whole = {**found, **own}, {*whole, part}
        else:
            made = moved(own, group, "transformers", str(path), OWN)
            found, whole = {**found, **made}, {*whole, part}
    _require_shapes(found, baseline, path)
    return found, "text" in whole, left


def _require_sizes(state: State, baseline: Backbone, path: Path) -> None:
    """The image tower is of the baseline's kind and sizes, in the words of people."""
    vision = baseline.model.config.vision_config
    same = (vision.num_hidden_layers, vision.hidden_size, vision.patch_size)
    found = _sizes(state.tensors)
    siglip = any(name.startswith("visual.trunk.") for name in state.tensors)
    kinds = state.layout == "open_clip" and siglip != (baseline.architecture.name == "SigLIP")
    if found != same or kinds:
        said = [
            f"{n} blocks of width {width} on patches of {patch}"
            for n, width, patch in (same, found)
        ]
        kind = " of a SigLIP" if siglip else ""
        expected = f"the baseline's architecture ({said[0]}, {baseline.architecture.name})"
        raise RecordError(Fault(str(path), expected, f"{said[1]}{kind}", OWN))


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Blocks, width and side of a patch of an image tower, from its weights."""
    blocks = {int(m[1]) for name in tensors if (m := BLOCK.match(name))}
    first = next(t for name, t in tensors.items() if CONVOLUTION.search(name))
    width, patch = (first.shape[0], first.shape[-1]) if first.ndim == 4 else (0, 0)
    return max(blocks, default=-1) + 1, width, patch


def _require_shapes(found: Mapping[str, Tensor], baseline: Backbone, path: Path) -> None:
    """The whole image tower, and nothing of another shape than the baseline's."""
    own = baseline.model.state_dict()
    tower = (name for name in own if name.startswith("vision_model."))
    missing = [name for name in tower if name not in found]
    odd = [name for name, t in found.items() if name not in own or own[name].shape != t.shape]
    if missing or odd:
        said = f"{len(missing)} missing, {len(odd)} of another shape, first {(missing + odd)[0]!r}"
        raise RecordError(Fault(str(path), "weights of the baseline's shapes", said, OWN))


__all__ = ["Loaded", "load_weights"]
