"""Weights that are no whole model, put onto one: what they lack is that model's.

An image tower alone, a state dict of WiSE-FT's with half a text tower, an adapter of CLIP-LoRA's.
What no weight holds, such as heads and activation, is the whole model's too, but for a folder of a
tower, whose configuration says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.errors import BackboneError, Fault
from clipdrift.formats.clip_lora import is_clip_lora, merged_state
from clipdrift.formats.rows import moved, rows_of
from clipdrift.formats.source import folder_tensors
from clipdrift.formats.state import State, clip_state, read_content

ACTING = {
    "hidden_act": "activation",
    "num_attention_heads": "heads",
    "layer_norm_eps": "layer norm epsilon",
    "eos_token_id": "end-of-text id",
}
"""Keys of a tower's configuration that act without any weight, in words."""
OWN = "Name its own model (--baseline, --model), or convert a whole one: clipdrift convert FILE OUT"
CONVOLUTION = re.compile(r"(conv1|patch_embed\.proj|patch_embedding)\.weight")
BLOCK = re.compile(r"(?:visual\..*?blocks|vision_model\..*?layers)\.(\d{1,6})\.")
PROJECTION = "visual_projection.weight"


@dataclass(frozen=True)
class Put:
    """tensors: by transformers' names, to be taken in place of the whole model's. own_text: whether
    a text tower is among them. acting: keys of the vision configuration that the weights come with.
    beside: tensors that a CLIP does not have. said: what it is, in words.
    """

    tensors: dict[str, Tensor]
    own_text: bool
    acting: dict[str, Any]
    beside: dict[str, Tensor]
    precision: str
    said: tuple[str, ...]


def put_onto(path: Path, whole: Mapping[str, Tensor], config: Mapping[str, Any]) -> Put:
    """Read a file of weights, or a folder with an image tower alone, for a whole model.

    Args:
        whole, config: weights and configuration of the model, as transformers names them.

    Raises:
        BackboneError: if it cannot be read safely, or is of another architecture.
    """
    acting: dict[str, Any] = {}
    if path.is_dir():
        own, tensors = tower_of(path)
        acting = {key: getattr(own, key) for key in ACTING if hasattr(own, key)}
        state = State("transformers", tensors, {}, ("an image tower",))
    elif is_clip_lora(content := read_content(path)):
        tensors, said = merged_state(content, whole, config, str(path))
        state = State("transformers", tensors, {}, (said,))
    else:
        state = clip_state(content, str(path))
    tensors, own_text, beside = _taken(state, whole, config, path)
    dtypes = {str(value.dtype).removeprefix("torch.") for value in state.tensors.values()}
    left = {**state.beside, **beside}
    return Put(tensors, own_text, acting, left, ", ".join(sorted(dtypes)), state.said)


def tower_of(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of a folder of CLIPVisionModel and such, named as in a whole CLIP.

    Raises:
        BackboneError: if they cannot be read.
    """
    tensors, own = folder_tensors(folder), configuration(folder)
    prefix = "" if any(name.startswith("vision_model.") for name in tensors) else "vision_model."
    return getattr(own, "vision_config", own), {f"{prefix}{n}": t for n, t in tensors.items()}


def configuration(folder: Path) -> Any:
    """The configuration of a folder, defaults included, as transformers reads it.

    Raises:
        BackboneError: if it does not.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and its checks of types have many
        got, step = " ".join(str(error).split())[:160], "Restore config.json"
        expected = "a configuration that transformers loads"
        raise BackboneError(Fault(str(folder), expected, got, step)) from None


def _taken(
    state: State, whole: Mapping[str, Tensor], config: Mapping[str, Any], path: Path
) -> tuple[dict[str, Tensor], bool, dict[str, Tensor]]:
    """Weights by transformers' names, whether a text tower is among them, and what is not read.

    Raises:
        BackboneError: if the image tower is not whole, or one of other sizes.
    """
    _require_sizes(state, config, path)
    rows = rows_of(config, state.tensors)
    left = {name: t for name, t in state.tensors.items() if not name.endswith("position_ids")}
    found: dict[str, Tensor] = {}
    parts: set[str] = set()
    for part, group in (("image", rows.image), ("text", rows.text), ("scale", rows.scale)):
        names = [name for row in group for name in row.names(state.layout)]
        own = {name: left.pop(name) for name in names if name in left}
        if part != "image" and len(own) < len(names):
            left |= own  # half a tower is none; of the image tower what is missing is named
        elif state.layout == "transformers":
            found, parts = {**found, **own}, {*parts, part}
        else:
            made = moved(own, group, "transformers", str(path), OWN)
            found, parts = {**found, **made}, {*parts, part}
    _require_shapes(found, whole, path)
    return found, "text" in parts, left


def _require_sizes(state: State, config: Mapping[str, Any], path: Path) -> None:
    """The image tower is of the model's kind and sizes, in the words of people."""
    vision, kind = config["vision_config"], {"clip": "CLIP"}.get(config["model_type"], "SigLIP")
    same = (vision["num_hidden_layers"], vision["hidden_size"], vision["patch_size"])
    found = _sizes(state.tensors)
    siglip = any(name.startswith("visual.trunk.") for name in state.tensors)
    if found != same or (state.layout == "open_clip" and siglip != (kind == "SigLIP")):
        said = [
            f"{n} blocks of width {width} on patches of {patch}"
            for n, width, patch in (same, found)
        ]
        of = " of a SigLIP" if siglip else ""
        expected = f"the architecture of the model that it is put onto ({said[0]}, {kind})"
        raise BackboneError(Fault(str(path), expected, f"{said[1]}{of}", OWN))


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Blocks, width and side of a patch of an image tower, from its weights."""
    blocks = {int(m[1]) for name in tensors if (m := BLOCK.match(name))}
    first = next((t for name, t in tensors.items() if CONVOLUTION.search(name)), None)
    sized = first is not None and first.ndim == 4
    width, patch = (first.shape[0], first.shape[-1]) if first is not None and sized else (0, 0)
    return max(blocks, default=-1) + 1, width, patch


def _require_shapes(found: Mapping[str, Tensor], whole: Mapping[str, Tensor], path: Path) -> None:
    """The whole image tower, and nothing of another shape than the model's."""
    missing = [name for name in whole if name.startswith("vision_model.") and name not in found]
    odd = [n for n, t in found.items() if n not in whole or whole[n].shape != t.shape]
    if missing or odd:
        said = f"{len(missing)} missing, {len(odd)} of another shape, first {(missing + odd)[0]!r}"
        raise BackboneError(
            Fault(str(path), "weights of the shapes of the model that it is put onto", said, OWN)
        )
