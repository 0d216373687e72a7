"""What reading costs: drift probes against a plain forward pass, evaluation against the usual way.

    python benchmarks/reading_cost.py               # about four minutes on two cores
    python benchmarks/reading_cost.py evaluation    # or probes, memory, ... panel: one part
    python benchmarks/reading_cost.py --quick       # smaller samples, to see that it works

Random weights, rendered images: time and memory are real, accuracies mean nothing. Ratios are of
medians of turns within one process. Not yet measured on a GPU.
"""

from __future__ import annotations

import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder, load_backbone
from clipdrift.data.drawn.world import render_world
from clipdrift.data.images import Images
from clipdrift.machine.devices import available_cores, supports_bfloat16
from clipdrift.machine.memory import peak_memory_bytes
from clipdrift.probes.gradient import gradient_energy
from clipdrift.probes.panel import activation_signals, text_span
from clipdrift.probes.spectra import Spectrum
from clipdrift.probes.traces import GRADIENT_IMAGES, read_traces
from clipdrift.probes.weight_updates import weight_updates
from clipdrift.reading.baseline import PROBE_BATCH, probe, score, score_in_full
from clipdrift.reading.panel import ELSEWHERE, elsewhere
from clipdrift.reading.pictures import save_pictures
from clipdrift.reading.screening import Predictor
from clipdrift.records.lost_images import MOST
from clipdrift.spec.parts import BackboneSpec

B32 = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
       "num_hidden_layers": 12, "image_size": 224, "patch_size": 32}  # fmt: skip
L14 = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
       "num_hidden_layers": 4, "image_size": 336, "patch_size": 14}  # fmt: skip
"""ViT-L/14@336 but for its depth: blocks are alike, and the ratio is that of one."""

QUICK = "--quick" in sys.argv
TURNS = 2 if QUICK else 5
CLASSES = 100


def random_encoder(shape: dict[str, int], attention: str = "sdpa") -> ImageEncoder:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config: Any = CLIPVisionConfig(**shape, attn_implementation=attention)
    model: Any = CLIPVisionModel(config)
    tower = getattr(model, "vision_model", model)
    projection = nn.Linear(shape["hidden_size"], 512, bias=False)
    encoder = ImageEncoder(tower, projection, [0.48, 0.46, 0.41], [0.27, 0.26, 0.28])
    return encoder.requires_grad_(False).eval()


def rendered(n: int, side: int) -> Images:
    """Drawings of the procedural world, enlarged."""
    labels = np.arange(n) % CLASSES
    small = render_world(labels, seed=1)
    large = [np.asarray(Image.fromarray(image).resize((side, side))) for image in small]
    return Images(np.stack(large), np.arange(n), labels)


def medians(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, taken in turns so that the machine's moods fall on all of them."""
    spent: list[list[float]] = [[] for _ in works]
    for turn in range(TURNS + 1):
        for number, work in enumerate(works):
            started = time.perf_counter()
            work()
            if turn:
                spent[number].append(time.perf_counter() - started)
    return [statistics.median(times) for times in spent]


@torch.inference_mode()
def plain(encoder: ImageEncoder, images: Images) -> None:
    for start in range(0, len(images), PROBE_BATCH):
        encoder(torch.from_numpy(images.take(slice(start, start + PROBE_BATCH))))


def rough(encoder: ImageEncoder, images: Images) -> None:
    """`plain` in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain(encoder, images)


def probes() -> None:
    print("\n## Drift probes, float32\n")
    print("| tower | images | plain forward, ms an image | with all probes | ratio |")
    print("|---|---|---|---|---|", flush=True)
    shapes = (("ViT-B/32, 50 tokens", B32, 50), ("ViT-L/14@336, 577 tokens, 4 blocks", L14, 4))
    for name, shape, n in shapes:
        encoder, images = random_encoder(shape), rendered(n, shape["image_size"])
        before, with_probes = medians(
            lambda e=encoder, i=images: plain(e, i), lambda e=encoder, i=images: probe(e, i)
        )
        one, all_ = (1e3 * seconds / n for seconds in (before, with_probes))
        print(f"| {name} | {n} | {one:.1f} | {all_:.1f} | {all_ / one:.2f} |", flush=True)


def probe_memory() -> None:
    """Each in a process of its own, where the peak is its own."""
    print("\n| tower | 4 images: peak above that of a plain forward pass, MB | all maps would be |")
    print("|---|---|---|", flush=True)
    for tokens, side, layers in ((197, 196, 4), (577, 336, 2), (577, 336, 4), (577, 336, 8)):
        peaks = []
        for work in ("plain", "probe"):
            command = [sys.executable, __file__, "--peak", work, str(side), str(layers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(float(done.stdout.split()[-1]))
        maps = 4 * layers * 16 * tokens**2 * 4 / 1e6
        name = f"width 1024, {tokens} tokens, {layers} blocks"
        print(f"| {name} | {max(0.0, peaks[1] - peaks[0]):.0f} | {maps:.0f} |", flush=True)


def peak(work: str, side: int, layers: int) -> None:
    encoder = random_encoder({**L14, "image_size": side, "num_hidden_layers": layers})
    images = rendered(4, side)
    (plain if work == "plain" else probe)(encoder, images)
    print(peak_memory_bytes("cpu") / 1e6)


def naive(encoder: ImageEncoder, files: list[bytes], text: Callable[[], Tensor]) -> Tensor:
    """Decode, resize and normalise one by one; eager attention; text features each time."""
    with torch.no_grad():
        features = nn.functional.normalize(text(), dim=-1)
        found = []
        for start in range(0, len(files), 64):
            pixels = []
            for data in files[start : start + 64]:
                image = Image.open(io.BytesIO(data)).convert("RGB")
                image = image.resize((224, 224), Image.Resampling.BICUBIC)
                array = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
                pixels.append((array - encoder.mean[0]) / encoder.std[0])
            embedded = nn.functional.normalize(encoder.encode(torch.stack(pixels)), dim=-1)
            found.append((embedded @ features.T).argmax(dim=1))
    return torch.cat(found)


def text_tower() -> Callable[[], Tensor]:
    """Features of a hundred classes through a text tower of ViT-B/32's size."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection(CLIPTextConfig()).eval()
    tokens = torch.randint(1, 400, (CLASSES, 12))
    return lambda: model(input_ids=tokens).text_embeds


def evaluation() -> None:
    """Class embeddings are the directions in which the classes' own images lie apart."""
    n = 256 if QUICK else 1000
    encoder, eager, text = random_encoder(B32), random_encoder(B32, "eager"), text_tower()
    images = rendered(n, 224)
    with torch.inference_mode():
        found = torch.cat([encoder(torch.from_numpy(images.take(slice(i, i + 100))))
                           for i in range(0, n, 100)])  # fmt: skip
    centred = nn.functional.normalize(found, dim=-1)
    centred = centred - centred.mean(dim=0)
    classes = torch.stack([centred[images.labels == c].mean(dim=0) for c in range(CLASSES)])
    classes = nn.functional.normalize(classes, dim=-1)
    few = 64
    files = []
    for image in images.take(slice(0, few)):
        out = io.BytesIO()
        Image.fromarray(image).resize((300, 300)).save(out, format="JPEG")
        files.append(out.getvalue())
    part = images.select(np.arange(few))
    screened = Predictor(250, screened=True)

    usual, text_only, exact, bf16 = medians(
        lambda: naive(eager, files, text),
        text,
        lambda: plain(encoder, part),
        lambda: rough(encoder, part),
    )
    started = time.perf_counter()
    score(encoder, images, classes, screened)
    ours = (time.perf_counter() - started) / n
    image = (usual - text_only) / few
    print("\n## Zero-shot evaluation, ViT-B/32, 10,000 images\n")
    print("| path | ms an image | 10,000 images, s | against naive |\n|---|---|---|---|")
    naive_s = text_only + 1e4 * image
    for name, seconds in (
        ("naive: decoded and resized, eager, float32, text each time", naive_s),
        ("prepared images, float32", 1e4 * exact / few),
        ("bfloat16 alone (for comparison: not what is reported)", 1e4 * bf16 / few),
        ("screened in bfloat16, settled in float32", 1e4 * ours),
    ):
        print(f"| {name} | {seconds / 10:.1f} | {seconds:.0f} | {naive_s / seconds:.1f}x |")
    print(f"\nSettled in float32: {screened.settled_fraction:.1%} of {n:,} images.", flush=True)


def precisions() -> None:
    """From which size of a tower bfloat16 pays: what `screening.WORTH_SCREENING` rests on."""
    print("\n## A forward pass in both precisions, 50 tokens\n")
    print("| width | blocks | multiply-adds an image | float32, ms an image | bfloat16 | ratio |")
    print("|---|---|---|---|---|---|", flush=True)
    for width, blocks, n in (
        (64, 6, 640),
        (128, 8, 320),
        (256, 8, 160),
        (512, 8, 96),
        (768, 12, 32),
    ):
        heads = max(4, width // 64)
        shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads,
                 "num_hidden_layers": blocks, "image_size": 28, "patch_size": 4}  # fmt: skip
        encoder, images = random_encoder(shape), rendered(n, 28)
        exact, bf16 = medians(
            lambda e=encoder, i=images: plain(e, i), lambda e=encoder, i=images: rough(e, i)
        )
        adds = 12 * width**2 * blocks * 50
        print(
            f"| {width} | {blocks} | {adds:.1e} | {1e3 * exact / n:.2f} | {1e3 * bf16 / n:.2f} "
            f"| {exact / bf16:.2f} |",
            flush=True,
        )


def full() -> None:
    """What `evaluation.in_full` adds to plain passes over many sets of a small model.

    Of 30 sets of 1,000 images one is read and its time taken 30 times: they are alike.
    """
    backbone = load_backbone(BackboneSpec(id="mini-clip"))
    encoder, images = backbone.encoder(), rendered(1000, 28)
    text = torch.randn(CLASSES, 64)

    def pictures() -> None:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i}.png" for i in range(MOST)]
            save_pictures(encoder, backbone, images.take(slice(0, MOST)), paths)

    def whole() -> None:
        score_in_full(encoder, images, text, 100.0, 250)
        pictures()

    passes, scored, drawn, read = medians(
        lambda: plain(encoder, images),
        lambda: score(encoder, images, text, Predictor(250)),
        pictures,
        whole,
    )
    print("\n## Reading in full, mini-clip, 30 sets of 1,000 images of 100 classes\n")
    print("| plain passes, s | zero-shot | in full, pictures and all | of it pictures | ratio |")
    print("|---|---|---|---|---|")
    seconds = " | ".join(f"{30 * one:.1f}" for one in (passes, scored, read, drawn))
    print(f"| {seconds} | {read / passes:.2f} |", flush=True)


def panel() -> None:
    """What `evaluation.panel` adds for a ViT-B/32 with 200 probe images: seconds of the CPU, so
    that a busy machine can say it too. Blocks are alike: three of the twelve are read."""
    blocks, n = 3, 50
    encoder, images = random_encoder({**B32, "num_hidden_layers": blocks}), rendered(n, 224)
    before = dict(encoder.tower.named_parameters())
    moved = {name: w + 1e-4 * torch.randn_like(w) for name, w in before.items()}
    found = probe(encoder, images)
    states = torch.randn(blocks, 200, 768)
    found = replace(found, cls_activations=states, embeddings=torch.randn(200, 512))
    other = replace(found, cls_activations=states + 0.01 * torch.randn_like(states))
    span = text_span({"classes": torch.randn(CLASSES, 512)})
    few = encoder.normalise(torch.from_numpy(images.take(slice(0, GRADIENT_IMAGES))))
    known: dict[str, Spectrum] = {}
    parts: dict[str, tuple[float, Callable[[], object]]] = {
        "all probes (for comparison)": (200 / n, lambda: probe(encoder, images)),
        "activations, embeddings": (1, lambda: activation_signals(other, found, span)),
        "weight updates, every matrix moved, first": (1, lambda: weight_updates(moved, before)),
        "weight updates, again": (1, lambda: weight_updates(moved, before, known)),
        "gradients": (1, lambda: gradient_energy(encoder.encode, few, 32)),
        "flow and gradients": (1, lambda: read_traces(encoder.encode, encoder.tower, few)),
        f"{ELSEWHERE} transfer images": (ELSEWHERE / n, lambda: elsewhere(encoder, [images])),
    }
    print("\n## The panel, ViT-B/32, 200 probe images\n")
    print("| part | seconds of the CPU |\n|---|---|", flush=True)
    for name, (times, work) in parts.items():
        work()
        spent = time.process_time()
        work()
        whole = (time.process_time() - spent) * times * B32["num_hidden_layers"] / blocks
        print(f"| {name} | {whole:.1f} |", flush=True)


def main() -> None:
    if "--peak" in sys.argv:
        peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    has = "with" if supports_bfloat16("cpu") else "without"
    print(f"{platform.machine()}, {available_cores()} cores, {has} bfloat16 products", flush=True)
    parts = {
        "probes": probes,
        "memory": probe_memory,
        "evaluation": evaluation,
        "precision": precisions,
        "full": full,
        "panel": panel,
    }
    for name in [name for name in parts if name in sys.argv] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
