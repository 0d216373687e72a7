"""How soon a process trains: from its start to the end of its first step, images prepared before.

    python benchmarks/first_step.py             # two to three minutes on two cores, 5 GB of disk

A new process each time: the interpreter, imports, backbone, prepared images (held to their
checksum) and one step of full fine-tuning; what a run reads before it trains is left out. The
quickstart's `mini-clip`, and a ViT-B/32 with random weights over a folder of EuroSAT's size.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from shapes import machine

QUICK = "--quick" in sys.argv
TIMES = 1 if QUICK else 5
CLASSES, PER_CLASS, DIFFERENT = 10, 60 if QUICK else 2700, 20
QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"


def write_tiles(folder: Path) -> None:
    """JPEG files of 64 pixels in class folders, a few different ones many times over."""
    import numpy as np
    from PIL import Image

    from clipdrift.data.drawn.landcover import render_land_cover

    for label in range(CLASSES):
        home = folder / f"class {label}"
        home.mkdir(parents=True)
        for number, image in enumerate(render_land_cover(np.full(DIFFERENT, label), seed=1)):
            Image.fromarray(image).resize((64, 64)).save(home / f"{number}.jpg")
        for number in range(DIFFERENT, PER_CLASS):
            shutil.copy(home / f"{number % DIFFERENT}.jpg", home / f"{number}.jpg")


def large_study(root: Path) -> Path:
    """The quickstart's study file on a ViT-B/32 and one folder of images."""
    from preset_cost import write_backbone

    write_tiles(root / "tiles")
    study: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    study["backbone"] = {"id": str(write_backbone(root / "clip", {}))}
    study["targets"] = [{"name": "tiles", "folder": str(root / "tiles")}]
    study["transfers"] = [{"name": "world", "builtin": "world", "n_images": 1000}]
    study["splits"] = {"val_per_class": 10, "test_per_class": 10}
    (root / "study.yaml").write_text(yaml.safe_dump(study))
    return root / "study.yaml"


def one_step(study: str, cache: str) -> None:
    """What a worker does until its first step is done."""
    import torch

    from clipdrift.materials import load_materials
    from clipdrift.methods.adapted import build
    from clipdrift.spec import expand, load_spec
    from clipdrift.training.loop import Stopped, train

    torch.set_num_threads(1)
    spec = load_spec(Path(study))
    materials = load_materials(spec, cache_dir=Path(cache))
    config = expand(spec, precision="float32")[0]
    target = materials.targets[config.target.name]
    model = build(
        materials.backbone, config.method, len(target.prompts), seed=config.seed, text_features=None
    )
    started = time.perf_counter()
    try:
        for _ in train(
            model, target.train, schedule=config.schedule, learning_rate=1e-5, head_rate=1e-5,
            seed=config.seed, precision=config.precision, stop=lambda: True,
        ):  # fmt: skip
            pass
    except Stopped:
        print(len(target.train), time.perf_counter() - started)


def measure(title: str, study: Path, cache: Path) -> None:
    spent, steps = [], []
    for turn in range(TIMES + 1):  # the first one prepares the images
        started = time.perf_counter()
        command = [sys.executable, __file__, "--one", str(study), str(cache)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        spent.append(time.perf_counter() - started)
        images, step = done.stdout.split()
        steps.append(float(step))
        if turn == 0:
            print(f"{title}, {int(images):,} training images: prepared in a first process "
                  f"of {spent[0]:.1f} s", flush=True)  # fmt: skip
    warm = sorted(spent[1:])
    print(f"  to the end of the first step: {statistics.median(warm):.1f} s "
          f"({warm[0]:.1f} to {warm[-1]:.1f}), of which the step itself takes "
          f"{statistics.median(steps[1:]):.1f} s", flush=True)  # fmt: skip


def main() -> None:
    if "--one" in sys.argv:
        one_step(*sys.argv[2:])
        return
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        measure("mini-clip", QUICKSTART, Path(name) / "cache")
        measure("ViT-B/32, batch 32", large_study(Path(name)), Path(name) / "cache")


if __name__ == "__main__":
    main()
