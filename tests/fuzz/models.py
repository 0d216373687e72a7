"""Folders of models: a CLIP's configuration, weights and tokenizer; an adapter's."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fuzz.strategies import ODD, as_json, edited
from fuzz.target import Feed, Target
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from small_models import write_random_clip

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.checkpoint import bounds
from clipdrift.checkpoint.find import ADAPTER_CONFIG, ADAPTER_WEIGHTS, kind_of
from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.spec.parts import BackboneSpec

WEIGHTS = "model.safetensors"
BACKBONE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
PREPROCESSING = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "do_resize": True}


PATTERNS = (
    "(([a-z._0-9]+)+)+!",
    ".*" * 12 + "!",
    "x)|(([a-z.]+)+)+!|(y",
    "(?:q|v)_proj",
    "[",
    "q(?=",
)


@cache
def _clip() -> dict[str, bytes]:
    """The files of a random CLIP of two blocks."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_random_clip(Path(name), dtype=torch.float32)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@cache
def _baseline() -> Backbone:
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), _clip())
        return load_backbone(BackboneSpec(id=name))


@cache
def _adapter() -> dict[str, bytes]:
    """The files of a rank-2 adapter on the vision tower of that CLIP."""
    import copy

    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = get_peft_model(copy.deepcopy(_baseline().model.vision_model), config)
    with tempfile.TemporaryDirectory() as name:
        wrapped.save_pretrained(name)
        found = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    return {name: found[name] for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _used(backbone: Backbone) -> None:
    """What every study does with a backbone first."""
    assert backbone.text_features([["a photo of a cat"], ["dog", "x" * 400]]).shape[0] == 2
    size = backbone.image_size
    backbone.encoder()(torch.zeros((1, size, size, 3), dtype=torch.uint8))


def backbone_with(name: str) -> Feed:
    """A CLIP folder in which one file is the input."""

    def feed(data: bytes, folder: Path) -> None:
        _write(folder, {**_clip(), name: data})
        _used(load_backbone(BackboneSpec(id=str(folder))))

    return feed


@cache
def _tower() -> dict[str, bytes]:
    """The files of that CLIP's image tower alone."""
    from transformers import CLIPVisionModel

    with tempfile.TemporaryDirectory() as name:
        CLIPVisionModel(_baseline().model.config.vision_config).save_pretrained(name)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def feed_tower(data: bytes, folder: Path) -> None:
    """By itself, and on the CLIP that it is of: both read images."""
    whole, tower = folder / "whole", folder / "tower"
    for place, files in ((whole, _clip()), (tower, {**_tower(), "config.json": data})):
        place.mkdir()
        _write(place, files)
    alone = load_backbone(BackboneSpec(id=str(tower)))
    alone.live_encoder()(alone.trial_images())
    with patch.dict("os.environ", {"CLIPDRIFT_CACHE": str(folder / "cache")}):
        _used(load_backbone(BackboneSpec(id=str(tower), model=str(whole))))


def tower_seeds() -> list[bytes]:
    return [_tower()["config.json"]]


def adapter_with(name: str) -> Feed:
    """An adapter folder in which one file is the input."""

    def feed(data: bytes, folder: Path) -> None:
        baseline = _baseline()
        _write(folder, {**_adapter(), name: data})
        with patch.object(bounds, "SECONDS", 1.0):
            assert load_checkpoint(folder, baseline).findings

    return feed


def feed_index(data: bytes, folder: Path) -> None:
    """The index of a CLIP in shards."""
    _write(folder, {**_clip(), "model.safetensors.index.json": data})
    shutil.move(folder / WEIGHTS, folder / "model-00001-of-00001.safetensors")
    if kind_of(folder) == "clip":
        load_checkpoint(folder, _baseline())


def config_seeds() -> list[bytes]:
    return [_clip()["config.json"]]


def tokenizer_seeds() -> list[bytes]:
    return [_clip()["tokenizer.json"]]


def weight_seeds(files: Callable[[], dict[str, bytes]], name: str) -> Callable[[], list[bytes]]:
    return lambda: [files()[name]]


def index_seeds() -> list[bytes]:
    header, _ = _split(_clip()[WEIGHTS])
    shards = {name: "model-00001-of-00001.safetensors" for name in header if name != "__metadata__"}
    return [as_json({"metadata": {"total_size": 1}, "weight_map": shards})]


def edited_seeds(seeds: Callable[[], list[bytes]]) -> Callable[[], SearchStrategy[bytes]]:
    return lambda: edited([json.loads(seed) for seed in seeds()]).map(as_json)


def adapter_seeds() -> list[bytes]:
    """The adapter's configuration, also with its modules and ranks by patterns."""
    config = json.loads(_adapter()[ADAPTER_CONFIG])
    named = {"modules_to_save": ["post_layernorm"], "layers_to_transform": [0, 1]}
    by_pattern = {"target_modules": r".*\.layers\.\d+\..*q_proj", "rank_pattern": {"q_.*": 2}}
    return [as_json({**config, **other}) for other in ({}, named, by_pattern)]


def edited_adapters() -> SearchStrategy[bytes]:
    trees = [json.loads(seed) for seed in adapter_seeds()]
    return edited(trees, values=(*ODD, *PATTERNS)).map(as_json)


def edited_headers(seeds: Callable[[], list[bytes]]) -> Callable[[], SearchStrategy[bytes]]:
    """Safetensors files whose JSON header is edited, before the same numbers or other ones."""

    def shaped() -> SearchStrategy[bytes]:
        header, body = _split(seeds()[0])
        bodies = st.sampled_from([body, body[:100], b"", body * 2, b"\xff" * len(body)])
        return st.tuples(edited([header]), bodies).map(lambda pair: _joined(*pair))

    return shaped


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header, data[8 + length :]


def _joined(header: Any, body: bytes) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + body


_CLIP_WEIGHTS = weight_seeds(_clip, WEIGHTS)
_LORA_WEIGHTS = weight_seeds(_adapter, ADAPTER_WEIGHTS)
_TOKENIZER_CONFIG = weight_seeds(_clip, "tokenizer_config.json")

TARGETS = [
    Target("backbone, config.json", backbone_with("config.json"), config_seeds,
           edited_seeds(config_seeds), examples=12, share=0.04),
    Target("image tower, config.json", feed_tower, tower_seeds, edited_seeds(tower_seeds),
           examples=8, share=0.04),
    Target("backbone, weights", backbone_with(WEIGHTS), _CLIP_WEIGHTS,
           edited_headers(_CLIP_WEIGHTS), examples=12, share=0.04),
    Target("backbone, tokenizer.json", backbone_with("tokenizer.json"), tokenizer_seeds,
           edited_seeds(tokenizer_seeds), examples=8, share=0.04),
    Target("backbone, tokenizer_config.json", backbone_with("tokenizer_config.json"),
           _TOKENIZER_CONFIG, edited_seeds(_TOKENIZER_CONFIG), examples=8, share=0.04),
    Target("backbone, preprocessor_config.json", backbone_with("preprocessor_config.json"),
           lambda: [as_json(PREPROCESSING)], edited_seeds(lambda: [as_json(PREPROCESSING)]),
           examples=8, share=0.04),
    Target("adapter, adapter_config.json", adapter_with(ADAPTER_CONFIG), adapter_seeds,
           edited_adapters, examples=12, share=0.04),
    Target("adapter, weights", adapter_with(ADAPTER_WEIGHTS), _LORA_WEIGHTS,
           edited_headers(_LORA_WEIGHTS), examples=12, share=0.04),
    Target("CLIP in shards, index", feed_index, index_seeds, edited_seeds(index_seeds),
           examples=8, share=0.04),
]  # fmt: skip
