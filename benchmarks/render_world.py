"""How many images a second one core draws: median of five runs, world and land cover.

OMP_NUM_THREADS=1 python benchmarks/render_world.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES, render_land_cover
from clipdrift.data.drawn.world import WORLD_CLASSES, render_world

COUNT = 4096


def images_per_second(render: Callable[..., NDArray[np.uint8]], n_classes: int) -> float:
    """Median over five seeds, after one call that warms the caches."""
    labels = np.arange(COUNT, dtype=np.int64) % n_classes
    render(labels, seed=0)
    rates = []
    for seed in range(1, 6):
        started = time.perf_counter()
        render(labels, seed=seed)
        rates.append(COUNT / (time.perf_counter() - started))
    return statistics.median(rates)


if __name__ == "__main__":
    for name, render, classes in (
        ("world", render_world, WORLD_CLASSES),
        ("land cover", render_land_cover, LAND_COVER_CLASSES),
    ):
        print(f"{name:12}{images_per_second(render, len(classes)):8,.0f} images/s")
