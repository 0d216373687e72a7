"""Files of other libraries: torch's archives of weights, open_clip's configurations."""

from __future__ import annotations

import io
import json
import pickletools
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fuzz.models import _baseline
from fuzz.strategies import as_json, edited
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors.torch import save
from torch import Tensor, nn

from clipdrift.backbone.loading import load_model
from clipdrift.backbone.preprocessing import preprocessing
from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.formats import config, images, known
from clipdrift.formats.rows import moved, rows_of
from clipdrift.formats.source import Source, find
from clipdrift.formats.state import clip_state, read_content
from clipdrift.formats.write import write_transformers
from clipdrift.spec.parts import BackboneSpec

MARK = "visual.conv1.weight"
OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]
CLASSES = ["os.system", "torch.HalfStorage", "__torch__.M", "collections.OrderedDict"]
CLASSES += ["torch._utils._rebuild_tensor_v2", "torch.Size", "torch.jit._pickle.build_intlist"]
PIECES = [b"c" + "\n".join(name.rsplit(".", 1)).encode() + b"\n" for name in CLASSES]
PIECES += [*OPCODES, b")R", b"}u.", b"K\x00", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 8]
PIECES += [b"X\xff\xff\xff\x7f", b"h\x00", b"q\x00", b"(" * 50, b"\x85" * 50]
SHOWN = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}
SHOWN |= {"resize_mode": "squash", "size": 12}


def feed_archive(data: bytes, folder: Path) -> None:
    """Whatever is read is what torch reads, where torch reads it; looking for a CLIP ends."""
    path = folder / "model.pt"
    path.write_bytes(data)
    content = read_content(path)
    try:
        theirs = torch.load(path, weights_only=True)
    except Exception:  # of what torch refuses more than is refused here, or reads another way
        theirs = content
    ours = dict(_tensors(content))
    assert all(_same(ours[name], tensor) for name, tensor in _tensors(theirs) if name in ours)
    assert clip_state(content, "model.pt").tensors


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor):
                yield str(name), value
            elif isinstance(value, Mapping) and value is not content:
                yield from ((f"{name}.{own}", t) for own, t in value.items() if _is(t))


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _same(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype) == (other.shape, other.dtype)
    return alike and one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()


@cache
def archives() -> list[bytes]:
    """A state dict, a checkpoint of training, and a module of TorchScript."""
    torch.manual_seed(0)
    weights = {MARK: torch.randn(2, 3, 2, 2), "visual.proj": torch.randn(4, 2).T.half()}
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    training = {"epoch": 1, "state_dict": wrapped, "optimizer": {"lr": 0.1, "on": True}}
    found = []
    for content in (weights, training):
        torch.save(content, out := io.BytesIO())
        found.append(out.getvalue())
    module = nn.Module()
    module.visual = nn.Sequential()
    module.visual.add_module("conv1", nn.Conv2d(3, 2, 2))
    torch.jit.save(torch.jit.script(module), out := io.BytesIO())
    return [*found, out.getvalue()]


@st.composite
def edited_archives(draw: DrawFn) -> bytes:
    """Zips whose pickle has other instructions, before the same bytes of tensors."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(archives())))) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(part for part in parts if part.endswith("data.pkl"))
    pickled = bytearray(parts[name])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(pickled)))
        length = draw(st.integers(0, min(12, len(pickled) - start)))
        pickled[start : start + length] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    how = draw(st.sampled_from([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as made:
        for part, data in {**parts, name: bytes(pickled)}.items():
            made.writestr(part, data)
    return out.getvalue()


@cache
def _small() -> dict[str, Any]:
    """A configuration of a CLIP of a few thousand weights."""
    cfg = json.loads(json.dumps(known.model("ViT-B-32").model_cfg))
    cfg["embed_dim"] = 8
    sizes = {"layers": 1, "width": 8, "head_width": 4, "patch_size": 4, "image_size": 12}
    cfg["vision_cfg"] |= sizes
    text = {"layers": 1, "width": 8, "heads": 2, "vocab_size": 64, "context_length": 8}
    cfg["text_cfg"] |= text
    return cfg


@cache
def _weights() -> bytes:
    """The weights of that CLIP, by open_clip's names."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    made = CLIPConfig(**config.to_transformers(_small(), "small"))
    state = CLIPModel(made).state_dict()
    return save(moved(state, rows_of(made.to_dict()), "open_clip", "small", ""))


def config_seeds() -> list[bytes]:
    return [as_json({"model_cfg": _small(), "preprocess_cfg": SHOWN})]


def known_seeds() -> list[bytes]:
    names = ("ViT-B-32-quickgelu", "ViT-B-16-SigLIP", "ViT-H-14", "RN50", "EVA02-B-16")
    configs = [known.model(name).model_cfg for name in names]
    return [*config_seeds(), *(as_json({"model_cfg": one}) for one in configs)]


def feed_config(data: bytes, folder: Path) -> None:
    """The configuration beside good weights: a model that fits them, or a refusal."""
    (folder / "open_clip_config.json").write_bytes(data)
    (folder / "open_clip_model.safetensors").write_bytes(_weights())
    source = find(folder)
    assert isinstance(source, Source)
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        patch("clipdrift.formats.write.write_tokenizer", lambda *_: None),
    ):
        write_transformers(source, Path(out), "model")
        made = json.loads((Path(out) / "config.json").read_text())
        spec = BackboneSpec(id=out)
        _, _, kind = load_model(Path(out), spec)
        preprocessing(Path(out), made["vision_config"]["image_size"], kind, spec)


def feed_known(data: bytes, folder: Path) -> None:
    """The configuration alone, of all kinds of models."""
    (folder / "open_clip_config.json").write_bytes(data)
    (folder / "open_clip_model.safetensors").write_bytes(b"")
    source = find(folder)
    assert source is not None
    made = config.to_transformers(source.described("model")[0], "model")
    size, kind = made["vision_config"]["image_size"], made["model_type"]
    images.to_transformers(source.preprocess_cfg, size, kind, "model")


def lora_tree() -> dict[str, Any]:
    """A file of CLIP-LoRA's for the baseline of the other targets, factors as lists."""
    tower = _baseline().model.config.vision_config
    n, width = tower.num_hidden_layers, tower.hidden_size
    factors = {"w_lora_A": [[0.1] * width], "w_lora_B": [[0.1]] * width}
    said = {"r": 1, "alpha": 1, "encoder": "vision", "params": ["q"], "position": "all"}
    return {
        "weights": {f"layer_{i}": {"q_proj": dict(factors)} for i in range(n)},
        "metadata": said,
    }


def feed_lora(data: bytes, folder: Path) -> None:
    """A JSON tree whose lists of lists are made into tensors, saved by torch."""
    try:
        tree = _with_tensors(json.loads(data))
    except (ValueError, RecursionError):
        return
    path = folder / "lora.pt"
    torch.save(tree, path)
    assert load_checkpoint(path, _baseline()).findings


def _with_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tensors(one) for key, one in value.items()}
    if isinstance(value, list):
        try:
            return torch.tensor(value, dtype=torch.float32)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            return value
    return value


def edited_json(trees: Any) -> Any:
    return lambda: edited([json.loads(one) for one in trees()]).map(as_json)


def lora_seeds() -> list[bytes]:
    return [as_json(lora_tree())]


def shaped_archives() -> SearchStrategy[bytes]:
    return edited_archives()


TARGETS = [
    Target("weights, file of torch's", feed_archive, archives, shaped_archives),
    Target("open_clip_config.json alone", feed_known, config_seeds, edited_json(known_seeds)),
    Target("open_clip_config.json, with weights", feed_config, config_seeds,
           edited_json(config_seeds), examples=12, share=0.04),
    Target("adapter of CLIP-LoRA", feed_lora, lora_seeds, edited_json(lora_seeds), examples=12,
           share=0.04),
]  # fmt: skip
