"""Small backbones and images for tests: the embedded one, and random ones written to a folder."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.drawn.landcover import render_land_cover
from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import (
    BitFitSpec,
    FullFtSpec,
    LastBlocksSpec,
    LinearProbeSpec,
    LoraSpec,
    LpFtSpec,
)
from clipdrift.spec.parts import BackboneSpec

EMBEDDED = Path(str(files("clipdrift").joinpath("assets", "mini-clip")))

METHODS: dict[str, MethodBase] = {
    "full_ft": FullFtSpec(kind="full_ft", name="full_ft"),
    "lora": LoraSpec(kind="lora", name="lora"),
    "linear_probe": LinearProbeSpec(kind="linear_probe", name="linear_probe"),
    "last_blocks": LastBlocksSpec(kind="last_blocks", name="last_blocks"),
    "bitfit": BitFitSpec(kind="bitfit", name="bitfit"),
    "lp_ft": LpFtSpec(kind="lp_ft", name="lp_ft"),
}


@cache
def mini_clip() -> Backbone:
    """The embedded backbone, loaded once; nothing may change it."""
    return load_backbone(BackboneSpec())


def land_cover(n: int, *, seed: int = 5) -> Images:
    """n images of 28 pixels in ten classes, balanced."""
    labels = np.arange(n) % 10
    return Images(render_land_cover(labels, seed=seed), np.arange(n), labels)


def pixels(n: int = 6) -> Tensor:
    """uint8 [n, 28, 28, 3]."""
    return torch.from_numpy(land_cover(n).pixels)


def assert_same_features(found: Tensor, expected: Tensor) -> None:
    """Embeddings to 1e-5 of their largest coordinate: what float32 gives on another way."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def adapted(method: str | MethodBase, *, seed: int = 7, classes: int = 10) -> AdaptedModel:
    """A fresh model of a family over the embedded backbone."""
    spec = METHODS[method] if isinstance(method, str) else method
    return build(mini_clip(), spec, classes, seed=seed, text_features=None)


def perturb(model: AdaptedModel, size: float = 0.05, *, seed: int = 0) -> AdaptedModel:
    """Move every trained tensor by normal noise, as if it had been trained; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def write_random_clip(folder: Path, *, dtype: torch.dtype = torch.float16) -> Path:
    """A random CLIP of two blocks in transformers format, with the embedded tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(3)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2, "projection_dim": 8}
    config = CLIPConfig(
        vision_config={**tower, "image_size": 12, "patch_size": 4},
        text_config={**tower, "vocab_size": 403, "bos_token_id": 0, "eos_token_id": 4},
        projection_dim=8,
    )
    CLIPModel(config).to(dtype).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder / name)
    return folder
