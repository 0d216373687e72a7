"""What preparing a dataset of EuroSAT's size costs, and how soon a second start is at work.

    python benchmarks/prepare.py                # about a minute on two cores

JPEG files of 64 pixels in class folders are decoded and resized to 224. Seconds are scaled from a
part of EuroSAT's 27,000 images; what does not grow with them is in the table of a second start.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square
from clipdrift.data.drawn.landcover import render_land_cover
from clipdrift.data.prepared import PreparedPart
from clipdrift.machine.devices import available_cores
from clipdrift.spec.datasets import DatasetSpec

EUROSAT = 27_000
N = 600 if "--quick" in sys.argv else 3000


def write_images(folder: Path) -> None:
    """N files in ten class folders."""
    labels = np.arange(N) % 10
    for number, image in enumerate(render_land_cover(labels, seed=1)):
        home = folder / f"class {labels[number]}"
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((64, 64)).save(home / f"{number}.jpg")


def timed_prepare(images: Path, cache: Path) -> tuple[float, float, dict[str, PreparedPart]]:
    """Wall and CPU seconds, and what was prepared."""
    spec = DatasetSpec(name="tiles", folder=str(images))
    wall, cpu = time.perf_counter(), time.process_time()
    parts = prepare(spec, Square(224, "bicubic"), cache_dir=cache)
    return time.perf_counter() - wall, time.process_time() - cpu, parts


def main() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    print(f"{platform.machine()}, {available_cores()} cores, {N:,} images", flush=True)
    print("\n| cores | images/s | 27,000 images, s | cores busy |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_images(root / "images")
        for used in sorted({1, len(cores) or 1}):
            if cores:
                os.sched_setaffinity(0, cores[:used])
            wall, cpu, _ = timed_prepare(root / "images", root / f"cache {used}")
            row = f"| {used} | {N / wall:.0f} | {EUROSAT * wall / N:.0f} | {cpu / wall:.2f} |"
            print(row, flush=True)
        wall, _, parts = timed_prepare(root / "images", root / f"cache {len(cores) or 1}")
        started = time.perf_counter()
        n_bytes = sum(part.pixels[:].nbytes for part in parts.values())
        for part in parts.values():
            np.add.reduce(part.pixels, axis=None, dtype=np.int64)
        touched = time.perf_counter() - started
        print(f"\nA second start: entries found in {wall:.2f} s, nothing decoded; "
              f"{n_bytes / 1e9:.2f} GB read once in {touched:.2f} s.")  # fmt: skip


if __name__ == "__main__":
    main()
