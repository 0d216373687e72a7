"""CLIP vision towers of published shapes with random weights, and what a step on them costs."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder
from clipdrift.data.images import Images
from clipdrift.machine.devices import available_cores
from clipdrift.machine.provenance import provenance
from clipdrift.methods import FAMILIES
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import FullFtSpec, LastBlocksSpec, LinearProbeSpec, LoraSpec

METHODS: dict[str, MethodBase] = {
    "full_ft": FullFtSpec(kind="full_ft", name="full_ft"),
    "lora": LoraSpec(kind="lora", name="lora"),
    "last_blocks": LastBlocksSpec(kind="last_blocks", name="last_blocks"),
    "linear_probe": LinearProbeSpec(kind="linear_probe", name="linear_probe"),
}


@dataclass(frozen=True)
class Shape:
    """A vision tower; the default is ViT-B/32 at 224 pixels."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 32
    side: int = 224

    @property
    def tokens(self) -> int:
        return (self.side // self.patch) ** 2 + 1

    def forward_gflop(self) -> float:
        """Of one image, a multiply-add counted as two: linear layers, attention, patches."""
        linear = 12 * self.width**2 * self.tokens
        attention = 2 * self.tokens**2 * self.width
        patches = 3 * self.patch**2 * self.width * (self.tokens - 1)
        return 2 * (self.layers * (linear + attention) + patches) / 1e9

    def training_gflop(self, method: str) -> float:
        """Forward, and as much again for the gradients of activations and of trained weights."""
        return self.forward_gflop() * {"full_ft": 3, "lora": 2}[method]

    def with_(self, **changes: int) -> Shape:
        return replace(self, **changes)


VIT_B32 = Shape()
TINY = Shape(layers=2, width=64, heads=2, patch=16, side=64)


def random_model(
    shape: Shape, method: str, *, attention: str = "sdpa", classes: int = 10
) -> AdaptedModel:
    """A model under a method, as training takes it."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=shape.width, intermediate_size=4 * shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, image_size=shape.side, patch_size=shape.patch,
        attn_implementation=attention,
    )  # fmt: skip
    whole = CLIPVisionModel(config)
    tower = getattr(whole, "vision_model", whole)
    projection = nn.Linear(shape.width, 512, bias=False)
    encoder = ImageEncoder(tower, projection, [0.5] * 3, [0.25] * 3).requires_grad_(False).eval()
    spec = METHODS[method]
    FAMILIES[method].adapt(encoder, spec, 7)
    encoder.projection.requires_grad_(spec.projection == "trained")
    return AdaptedModel(encoder, nn.Linear(512, classes), spec)


def noise(n: int, side: int, *, different: int = 64) -> Images:
    """n images, of which `different` are stored: time does not depend on what they show."""
    pixels = np.random.default_rng(0).integers(0, 256, (different, side, side, 3), dtype=np.uint8)
    index = np.arange(n) % different
    return Images(pixels, index, np.arange(n) % 10)


def naive_step(model: AdaptedModel, batch: int, side: int) -> Callable[[], None]:
    """A step as it is usually written: float32, whatever attention the model has, all anew."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-6)
    pixels = torch.from_numpy(noise(batch, side).take(slice(0, batch)))
    target = torch.arange(batch) % 10

    def step() -> None:
        loss: Tensor = nn.functional.cross_entropy(model(pixels), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()

    return step


def seconds(work: Callable[[], object], times: int, *, warm_up: int = 1) -> float:
    """Median of wall seconds."""
    spent = []
    for _ in range(warm_up + times):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[warm_up:])


def machine() -> str:
    """What the figures were measured on."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = provenance(device)["device"]
    load = os.getloadavg()[0]
    return (
        f"{name}, {available_cores()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, {platform.system()}, load {load:.1f} before the start"
    )
