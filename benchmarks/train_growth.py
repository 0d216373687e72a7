"""How the cost of a training step grows with batch, layers, tokens and processes.

    python benchmarks/train_growth.py [--tiny]

ViT-B of 768 wide with random weights, full fine-tuning in bfloat16 (float32 without the hardware).
Every point is a process of its own, so that its peak memory is its own; medians of five steps.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import torch
from shapes import TINY, VIT_B32, Shape, machine, noise, random_model

from clipdrift.machine.devices import available_cores, supports_bfloat16
from clipdrift.machine.memory import peak_memory_bytes
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

STEPS, WARM_UP = 5, 2
MINI = Shape(layers=6, width=64, heads=4, patch=4, side=28)
"""Of the embedded `mini-clip`: what a batch of stacked runs could gain shows in its curve."""


def points(tiny: bool) -> dict[str, list[tuple[Shape, int, int]]]:
    """Curve -> (shape, batch, processes) of its points."""
    base, sizes = (TINY, (2, 4)) if tiny else (VIT_B32.with_(layers=4), (4, 16, 32, 64, 128))
    patches = (32, 16) if tiny else (32, 16, 14)
    layers = (1, 2) if tiny else (1, 2, 4, 8, 12)
    few = sizes[-3:][0] if not tiny else 2
    return {
        "batch": [(base, size, 1) for size in sizes],
        "layers": [(base.with_(layers=n), few, 1) for n in layers],
        "tokens": [(base.with_(patch=patch), 16 if not tiny else 2, 1) for patch in patches],
        "processes": [(base, few, n) for n in (1, 2)],
        "small": [(MINI, size, 2) for size in sizes[-4:]],
    }


def measure(shape: Shape, batch: int, threads: int) -> None:
    """Print the median seconds of a step and the peak memory of this process, as JSON."""
    torch.set_num_threads(threads)
    model, moments = random_model(shape, "full_ft"), []

    def tick() -> bool:
        moments.append(time.perf_counter())
        return False

    for _ in train(
        model, noise((STEPS + WARM_UP) * batch, shape.side),
        schedule=ScheduleSpec(epochs=1, batch_size=batch), learning_rate=1e-6, head_rate=1e-6,
        seed=7, precision="bfloat16" if supports_bfloat16("cpu") else "float32", stop=tick,
    ):  # fmt: skip
        pass
    step = statistics.median(b - a for a, b in pairwise(moments[-STEPS - 1 :]))
    print(json.dumps({"step": step, "peak": peak_memory_bytes("cpu")}))


def together(shape: Shape, batch: int, processes: int) -> tuple[float, float]:
    """Images a second of all processes together, and the sum of their peak memory."""
    threads = max(1, available_cores() // processes)
    given = json.dumps([vars(shape), batch, threads])
    command = [sys.executable, __file__, "--one", given]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in started]
    return sum(batch / f["step"] for f in found), sum(f["peak"] for f in found)


def main() -> None:
    if "--one" in sys.argv:
        shape, batch, threads = json.loads(sys.argv[-1])
        measure(Shape(**shape), batch, threads)
        return
    print(machine())
    print("curve      layers tokens batch processes  images/s  ms/image  GFLOP/s  peak GB")
    for curve, rows in points("--tiny" in sys.argv).items():
        for shape, batch, processes in rows:
            speed, peak = together(shape, batch, processes)
            print(
                f"{curve:10} {shape.layers:6} {shape.tokens:6} {batch:5} {processes:9} "
                f"{speed:9.2f} {1000 / speed:9.2f} {speed * shape.training_gflop('full_ft'):8.0f} "
                f"{peak / 1e9:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
