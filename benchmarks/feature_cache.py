"""Memory and time of a contrastive step that takes its batch in parts, by the size of the batch.

    python benchmarks/feature_cache.py [--tiny]

CLIP ViT-B/32 with random weights, both towers trained, float32, one thread. Every point is a
process of its own, so that its peak memory is its own; seconds are of its CPU, so that others
beside it do not count. The price is the time over that of two forward passes and one backward pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from shapes import machine
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from clipdrift.backbone import Backbone
from clipdrift.backbone.clip import CLIP
from clipdrift.data.images import Images
from clipdrift.machine.memory import peak_memory_bytes
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.spec.methods import FullFtSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.engine import Engine
from clipdrift.step.micro_batches import MicroBatches

PART = 8
POINTS = [(8, None), (16, None), (16, PART), (64, PART)]
"""Images of a batch, and how many at a time; None: all at once."""
TINY: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2
}  # fmt: skip


def tokens(texts: Sequence[str], **_: Any) -> SimpleNamespace:
    """Texts of the full length, each of its own."""
    ids = torch.arange(len(texts))[:, None] + torch.arange(77)[None] * 7 + 3
    ids[:, -1] = 49407
    return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))


def model_of(n: int, tiny: bool) -> AdaptedModel:
    torch.manual_seed(0)
    parts = {"vision_config": TINY, "text_config": TINY} if tiny else {}
    clip = CLIPModel(CLIPConfig(**parts)).requires_grad_(False).eval()
    backbone = Backbone("random", CLIP, clip, tokens, 224, "shortest", CLIP.mean, CLIP.std, "",
                        "float32", 224, "bicubic")  # fmt: skip
    spec = FullFtSpec(kind="full_ft", name="both", loss="contrastive", tower="both")
    captions = [f"text {i}" for i in range(n)]
    return build(backbone, spec, 0, seed=0, text_features=None, captions=captions).train()


def measure(n: int, size: int | None, tiny: bool) -> None:
    """Print CPU seconds of a step, of a forward pass without a gradient, and the peak memory."""
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(n), np.zeros(n, np.int64))
    model = model_of(n, tiny)
    engine = Engine(model, images, ScheduleSpec(batch_size=n), "float32")
    micro = MicroBatches(engine.objective, model.zero_grad, size)
    inputs, target = engine.inputs(np.arange(n), np.zeros(n, bool)), torch.arange(n)

    def forward() -> None:
        with torch.no_grad():
            engine.objective(inputs, target)

    found = {"step": seconds(lambda: micro.backward(inputs, target))}
    found["peak"] = peak_memory_bytes("cpu")
    if size is None:
        found["forward"] = seconds(forward)
    print(json.dumps(found))


def seconds(work: Callable[[], Tensor | None]) -> float:
    """CPU time of the second of two."""
    work()
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    tiny = "--tiny" in sys.argv
    if "--one" in sys.argv:
        n, size = json.loads(sys.argv[-1])
        measure(n, size, tiny)
        return
    print(machine())
    print("batch  at a time  s/image  price  peak GB")
    base = 0.0
    for n, size in POINTS:
        given = [*(["--tiny"] if tiny else []), "--one", json.dumps([n, size])]
        done = subprocess.run([sys.executable, __file__, *given], capture_output=True, text=True,
                              check=True)  # fmt: skip
        found = json.loads(done.stdout)
        if n == PART:
            base = (found["step"] + found["forward"]) / n
        price = f"{found['step'] / n / base:.2f}" if size else ""
        each, peak = found["step"] / n, found["peak"] / 1e9
        print(f"{n:5} {size or 'all':>10} {each:8.2f} {price:>6} {peak:8.2f}", flush=True)


if __name__ == "__main__":
    main()
