"""What the presets cost on this machine: one short run of each end to end, and its extrapolation.

    python benchmarks/preset_cost.py [preset ...]       # default: all three; prints rows of a table

The backbone has the size of the preset's and random weights; images are noise of the right size, in
the right numbers. So time and memory are real, and accuracies mean nothing. The run and the
estimate have a process each, so that the peak memory is the run's. What was measured is in
docs/preset-cost.md; for a GPU there is gpu/load_leakage_free_66.py.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from clipdrift.data.catalogue import catalogue
from clipdrift.data.parts import DatasetParts, ImagePart
from clipdrift.data.prepared import PreparedPart
from clipdrift.machine.devices import available_cores
from clipdrift.machine.signals import StopRequest
from clipdrift.reading.baseline import score
from clipdrift.reading.screening import Predictor
from clipdrift.records import StudyFolder, read_record
from clipdrift.run.state import CHECKPOINT_SECONDS
from clipdrift.spec import StudySpec, expand, load_spec
from clipdrift.spec.datasets import DatasetSpec
from clipdrift.study.estimate import estimate
from clipdrift.study.worker import Worker, strict_float32

STUDIES = Path(__file__).parents[1] / "studies"
PRESETS = ("paper-80", "leakage-free-66", "leakage-free-b16")
SIDE = 224
STEPS = 3
EVALUATED = 250  # before training, and again after
TIMED = 64
TRIAL_IMAGES = 16  # at once; on a CPU batches of 64 train about a fifth more images a second
IMAGES = {  # in the published parts: train, test
    "tanganke/eurosat": (21_600, 2_700),
    "timm/oxford-iiit-pet": (3_680, 3_669),
    "uoft-cs/cifar100": (50_000, 10_000),
    "uoft-cs/cifar10": (50_000, 10_000),
}
NO_GPU = "not yet measured on a GPU"
HEAD = (
    "| preset | backbone, precision | runs | images trained | training images/s "
    "| evaluated images/s | peak memory of a run | the whole preset here | weights on disk "
    "| on a GPU |"
)


def write_backbone(folder: Path, vision: dict[str, int], text_width: int = 512) -> Path:
    """A CLIP with random weights in transformers format, with the embedded tokenizer.

    Args:
        vision: sizes that differ from those of a ViT-B at 224 px.
        text_width: 512 in a ViT-B.
    """
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    base = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    base |= {"num_attention_heads": 12, "image_size": SIDE, "patch_size": 32, **vision}
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width}
    text |= {"num_attention_heads": 8, "num_hidden_layers": base["num_hidden_layers"]}
    text |= {"vocab_size": 403, "bos_token_id": 0, "eos_token_id": 4}
    config = CLIPConfig(vision_config=base, text_config=text, projection_dim=text_width)
    CLIPModel(config).half().save_pretrained(folder)
    embedded = Path(str(files("clipdrift").joinpath("assets", "mini-clip")))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded / name, folder / name)
    return folder


def on_backbone(spec: StudySpec, folder: Path) -> StudySpec:
    """The study on a backbone of ours."""
    return spec.model_copy(
        update={"backbone": spec.backbone.model_copy(update={"id": str(folder)})}
    )


def noise_part(dataset: DatasetSpec, part: str, pixels: np.ndarray) -> PreparedPart:
    """A part whose images are at hand, with the classes of the catalogue in turn."""
    entry = catalogue()[str(dataset.builtin)]
    return PreparedPart(
        pixels=pixels,
        labels=np.arange(len(pixels), dtype=np.int64) % entry.n_classes,
        class_names=tuple(entry.class_names),
        sha256=f"noise {dataset.name} {part}",
        bad_images=(),
        names=range(len(pixels)),
        prints=np.arange(len(pixels), dtype=np.uint64)[:, None] * np.uint64([1, 0, 0])
        + np.uint64([0, zlib.crc32(f"{dataset.name} {part}".encode()), 0]),
    )


def opened_noise(dataset: DatasetSpec, **_: Any) -> DatasetParts:
    """What is known of such parts before they are prepared."""
    names = tuple(catalogue()[str(dataset.builtin)].class_names)
    return DatasetParts(
        {
            part: ImagePart(np.arange(n) % len(names), range(n), names, id, part)
            for part, n in parts_of(dataset).items()
        }
    )


@contextmanager
def in_their_place(prepared: Callable[..., dict[str, PreparedPart]]) -> Iterator[None]:
    """Images of ours in the place of those that a study names."""
    where = "clipdrift.materials.loading"
    with patch(f"{where}.open_dataset", opened_noise), patch(f"{where}.prepare", prepared):
        yield


def parts_of(dataset: DatasetSpec) -> dict[str, int]:
    """The published parts of a dataset of the catalogue and their numbers of images."""
    entry = catalogue()[str(dataset.builtin)]
    sizes = zip(("train", "test"), IMAGES[str(entry.hub)], strict=True)
    return {part: n for part, n in sizes if getattr(entry.splits, part) is not None}


def one_image(dataset: DatasetSpec, **_: Any) -> dict[str, PreparedPart]:
    """Parts of the published sizes, all of them one image of noise, which costs no memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    return {
        part: noise_part(dataset, part, np.broadcast_to(pixels, (n, SIDE, SIDE, 3)))
        for part, n in parts_of(dataset).items()
    }


def short(spec: StudySpec) -> StudySpec:
    """A few steps on the first target, and every reading once, on few images."""
    spec_dump = spec.model_dump()
    target = {**spec_dump["targets"][0], "epochs": 1, "corrupted": []}
    target["splits"] = {"train_per_class": 32, "val_per_class": 2, "test_per_class": 2}
    target["probe"] = {"per_class": 2, "source": spec.probe.source}
    changes = {
        "targets": [target],
        "transfers": [{**spec_dump["transfers"][0], "n_images": EVALUATED}],
        "schedule": {**spec_dump["schedule"], "epochs": 1, "max_steps": STEPS},
        "methods": [spec_dump["methods"][0]],
        "evaluation": {"epoch_transfer_images": 0},
    }
    return StudySpec.model_validate({**spec_dump, **changes})


def worker_on(spec: StudySpec, folder: StudyFolder, device: str) -> Worker:
    """The library's own worker, in this process."""
    folder.create()
    folder.write_plan(spec, {})
    return Worker(folder, folder.path, device, StopRequest(), CHECKPOINT_SECONDS)


@contextmanager
def on_noise(preset: str) -> Iterator[tuple[StudySpec, Path]]:
    """A preset on random weights and noise, and a folder to work in."""
    strict_float32()
    spec = load_spec(STUDIES / f"{preset}.yaml")
    patch_size = int(spec.backbone.id[-2:])
    with (
        tempfile.TemporaryDirectory() as name,
        in_their_place(one_image),
    ):
        backbone = write_backbone(Path(name) / "clip", {"patch_size": patch_size})
        yield on_backbone(spec, backbone), Path(name)


def one_run(preset: str) -> dict[str, Any]:
    """A short run: seconds from end to end, images a second, peak memory of this process."""
    with on_noise(preset) as (spec, path):
        folder = StudyFolder(path / "study")
        started = time.perf_counter()
        worker = worker_on(short(spec), folder, "cpu")
        run_id = next(iter(worker.runs))
        closing = worker.measure(run_id, lambda event: None)
        wall = time.perf_counter() - started
        timing = read_record(folder.record_path(run_id)).timing
        transfer = next(iter(worker.materials.transfers.values()))
        timed = transfer.images.select(np.arange(TIMED))
        text = worker.materials.backbone.text_features(transfer.prompts)
        encoder = worker.materials.backbone.encoder()
        started = time.perf_counter()
        score(encoder, timed, text, Predictor(TIMED))
        return {
            "status": closing["status"],
            "wall_seconds": wall,
            "train_images_per_second": timing["train_images_per_second"],
            "evaluated_per_second": TIMED / (time.perf_counter() - started),
            "peak_memory_bytes": timing["peak_memory_bytes"],
        }


def whole(preset: str) -> dict[str, Any]:
    """The preset as `clipdrift plan` estimates it, from shorter trials."""
    with on_noise(preset) as (spec, path):
        schedule = spec.schedule.model_copy(update={"batch_size": TRIAL_IMAGES})
        shorter = spec.model_copy(update={"schedule": schedule})
        with patch("clipdrift.study.trial.TRIAL_IMAGES", TRIAL_IMAGES):
            cost = estimate(shorter, device="cpu", cache_dir=path)
        return {
            "runs": len(expand(spec, precision="float32")),
            "images_trained": images_trained(spec),
            "seconds": cost.seconds,
            "disk_bytes": cost.disk_bytes,
        }


PARTS = {"run": one_run, "whole": whole}


def images_trained(spec: StudySpec) -> int:
    """Images through the optimiser over all runs and epochs."""
    per_target = {}
    for target in spec.targets:
        entry, splits = catalogue()[str(target.builtin)], target.splits or spec.splits
        whole = IMAGES[str(entry.hub)][0]
        chosen = splits.train_per_class
        per_target[target.name] = chosen * entry.n_classes if chosen else whole
    return sum(
        run.schedule.epochs * per_target[run.target.name]
        for run in expand(spec, precision="float32")
    )


def row(preset: str, found: dict[str, Any]) -> str:
    """A row under `HEAD`."""
    spec = load_spec(STUDIES / f"{preset}.yaml")
    hours = found["seconds"] / 3600
    cells = [
        f"`{preset}`",
        f"ViT-B/{spec.backbone.id[-2:]}, {spec.precision}",
        found["runs"],
        f"{found['images_trained']:,}",
        f"{found['train_images_per_second']:.1f}",
        f"{found['evaluated_per_second']:.1f}",
        f"{found['peak_memory_bytes'] / 1e9:.1f} GB",
        f"{hours:,.0f} h ({hours / 24:,.1f} days)",
        f"{found['disk_bytes'] / 1e9:.1f} GB",
        NO_GPU,
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def in_a_process(part: str, preset: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, preset]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure the presets that are named."""
    if "--part" in sys.argv:
        print(json.dumps(PARTS[sys.argv[2]](sys.argv[3])))
        return
    print(f"{platform.machine()}, {available_cores()} cores, torch {torch.__version__}\n")
    print(HEAD + "\n|" + "---|" * (HEAD.count("|") - 1), flush=True)
    for preset in sys.argv[1:] or PRESETS:
        run = in_a_process("run", preset)
        print(row(preset, {**run, **in_a_process("whole", preset)}))
        print(f"<!-- its one run: {run['status']} in {run['wall_seconds']:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
