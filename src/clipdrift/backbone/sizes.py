"""What a model's config.json asks for, held against what its weights can fill.

A few digits in a small file can ask for any amount of memory. Before a model is built, its
configuration is therefore held against the bytes of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipdrift.errors import Fault
from clipdrift.formats.source import PICKLED

SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("projection_dim", "image_size", "patch_size", "num_channels", "vocab_size"),
    "max_position_embeddings",
)


def size_faults(config: Mapping[str, Any], folder: Path, where: str) -> list[Fault]:
    """Sizes that are no whole numbers above 0, or more parameters than the weights have bytes.

    Args:
        config: the content of config.json.
        folder: holds the weights, in one file or in shards.
        where: what errors call the model.
    """
    faults = [
        Fault(
            f"{where} config.json {place}",
            "a whole number above 0",
            repr(value),
            "Restore the file",
        )
        for place, value in _sizes(config)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1
    ]
    if faults:
        return faults
    asked = sum(_parameters(tower) for _, tower in _towers(config))
    files = list(folder.glob("*.safetensors")) or list(folder.glob(PICKLED))
    held = sum(path.stat().st_size for path in files)
    # The smallest number takes a byte; a folder without weights is told of as such by the loader.
    if not held or asked <= held:
        return []
    got = f"sizes of {asked:,} parameters or more for weights of {held:,} bytes"
    step = "Restore config.json; it belongs to another model"
    return [Fault(f"{where} config.json", "the sizes of its own weights", got, step)]


def _towers(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ("vision_config", "text_config"):
        if isinstance(config.get(name), Mapping):
            yield name, config[name]


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for place, part in (("", config), *((f"{name}.", tower) for name, tower in _towers(config))):
        for key in SIZES:
            if part.get(key) is not None:
                yield f"{place}{key}", part[key]


def _parameters(tower: Mapping[str, Any]) -> int:
    """A lower bound: attention and MLP of each block, and the embeddings; left out sizes are 1."""
    width, hidden = tower.get("hidden_size") or 1, tower.get("intermediate_size") or 1
    blocks = (tower.get("num_hidden_layers") or 1) * width * (4 * width + 2 * hidden)
    patch = tower.get("patch_size")
    pixels = 3 * patch**2 + ((tower.get("image_size") or 1) // patch) ** 2 if patch else 0
    tokens = (tower.get("vocab_size") or 0) + (tower.get("max_position_embeddings") or 0)
    return int(blocks + width * (pixels + tokens + (tower.get("projection_dim") or 0)))
