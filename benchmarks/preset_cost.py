"""What the presets cost on this machine: one short run of each end to end, and its extrapolation.

    python benchmarks/preset_cost.py [preset ...]       # default: leakage-free-66

The backbone has the size of the preset's and random weights; images are noise of the right size, in
the right numbers. So time and memory are real, and accuracies mean nothing. Each preset runs in a
process of its own, so that its peak memory is its own.

leakage-free-66 on two cores, shared with other work: one training image a second, a peak of 4.7 GB,
152 hours for the whole preset. On a GPU: not yet measured.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from clipdrift.data.cache import PreparedPart
from clipdrift.data.catalogue import catalogue
from clipdrift.devices import available_cores
from clipdrift.estimate import estimate
from clipdrift.materials import load_materials
from clipdrift.plan import ensure_baselines, plan_runs, read_baselines
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.run import Run
from clipdrift.spec import StudySpec, load_spec
from clipdrift.spec.datasets import DatasetSpec
from clipdrift.worker import strict_float32

STUDIES = Path(__file__).parents[1] / "studies"
SIDE = 224
STEPS = 2
TRIAL_BATCH = 8  # images a second hardly depend on it on a CPU, and the trials are shorter
IMAGES = {  # in the published parts: train, test
    "tanganke/eurosat": (21_600, 2_700),
    "timm/oxford-iiit-pet": (3_680, 3_669),
    "uoft-cs/cifar100": (50_000, 10_000),
    "uoft-cs/cifar10": (50_000, 10_000),
}
NO_GPU = "not yet measured on a GPU"


def write_backbone(folder: Path, patch_size: int) -> Path:
    """OpenAI's ViT-B with random weights, in transformers format, with the embedded tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    vision |= {"num_attention_heads": 12, "image_size": SIDE, "patch_size": patch_size}
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    text |= {"num_attention_heads": 8, "vocab_size": 403, "bos_token_id": 0, "eos_token_id": 4}
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=512)
    CLIPModel(config).half().save_pretrained(folder)
    embedded = Path(str(files("clipdrift").joinpath("assets", "mini-clip")))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded / name, folder / name)
    return folder


def noise(dataset: DatasetSpec, **_: Any) -> dict[str, PreparedPart]:
    """Parts of the published sizes, all of them one image of noise, which costs no memory."""
    entry = catalogue()[str(dataset.builtin)]
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    parts = {}
    for part, n in zip(("train", "test"), IMAGES[entry.hub], strict=True):
        if getattr(entry.splits, part) is not None:
            parts[part] = PreparedPart(
                pixels=np.broadcast_to(pixels, (n, SIDE, SIDE, 3)),
                labels=np.arange(n, dtype=np.int64) % entry.n_classes,
                class_names=tuple(entry.class_names or ()),
                sha256=f"noise {dataset.name} {part}",
                bad_images=(),
            )
    return parts


def short(spec: StudySpec) -> StudySpec:
    """A few steps on the first target, and every reading once, on few images."""
    spec_dump = spec.model_dump()
    target = {**spec_dump["targets"][0], "epochs": 1, "corrupted": []}
    target["splits"] = {"train_per_class": 32, "val_per_class": 2, "test_per_class": 2}
    target["probe"] = {"per_class": 2, "source": spec.probe.source}
    changes = {
        "targets": [target],
        "transfers": [{**spec_dump["transfers"][0], "n_images": 100}],
        "schedule": {**spec_dump["schedule"], "epochs": 1, "max_steps": STEPS},
        "methods": [spec_dump["methods"][0]],
        "evaluation": {"epoch_transfer_images": 50, "batch_size": 64},
    }
    return StudySpec.model_validate({**spec_dump, **changes})


def run_once(spec: StudySpec, folder: StudyFolder) -> RunRecord:
    """The preset's first run of full fine-tuning, cut short: train, probe, evaluate, record."""
    folder.create()
    materials = load_materials(spec, cache_dir=folder.path)
    ensure_baselines(spec, materials, folder, lambda text: None)
    planned = plan_runs(spec, materials)[0]
    baselines = read_baselines(folder, materials, planned.config.target.name)
    return Run(
        planned.config, materials, baselines, study=spec.name, identity=planned.identity,
        folder=folder, device="cpu", on_epoch=lambda event: None,
    ).record()  # fmt: skip


def measure(preset: str) -> None:
    spec = load_spec(STUDIES / f"{preset}.yaml")
    strict_float32()
    with tempfile.TemporaryDirectory() as name, patch("clipdrift.materials.prepare", noise):
        patch_size = 16 if spec.backbone.id.endswith("16") else 32
        backbone = write_backbone(Path(name) / "clip", patch_size)
        spec = spec.model_copy(
            update={"backbone": spec.backbone.model_copy(update={"id": str(backbone)})}
        )
        started = time.perf_counter()
        record = run_once(short(spec), StudyFolder(Path(name) / "study"))
        wall = time.perf_counter() - started
        timing = record.timing
        print(
            f"{preset} (ViT-B/{patch_size}, {spec.precision}): {record.status} {record.method}, "
            f"{STEPS} steps of {spec.schedule.batch_size} images, end to end in {wall:.0f} s; "
            f"{timing['train_images_per_second'] or 0:.2f} training images/s, "
            f"peak memory {(timing['peak_memory_bytes'] or 0) / 1e9:.1f} GB",
            flush=True,
        )
        schedule = spec.schedule.model_copy(update={"batch_size": TRIAL_BATCH})
        with patch("clipdrift.estimate.TRIAL_IMAGES", TRIAL_BATCH):
            cost = estimate(
                spec.model_copy(update={"schedule": schedule}), device="cpu", cache_dir=Path(name)
            )
    print(
        f"  the whole preset: {(cost.seconds or 0) / 3600:,.0f} hours on {cost.machine}, "
        f"{(cost.disk_bytes or 0) / 1e9:.1f} GB of weights; GPU: {NO_GPU}",
        flush=True,
    )


def main() -> None:
    if "--one" in sys.argv:
        measure(sys.argv[-1])
        return
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {available_cores()} cores, load {load:.1f} before the start",
        flush=True,
    )
    for preset in sys.argv[1:] or ["leakage-free-66"]:
        subprocess.run([sys.executable, __file__, "--one", preset], check=True)


if __name__ == "__main__":
    main()
