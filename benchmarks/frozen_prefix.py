"""Epochs of methods with a frozen part, which is computed once, against naive epochs.

    python benchmarks/frozen_prefix.py [--tiny]

ViT-B/32 at 224 pixels with random weights, 128 images in batches of 64. Naive: eager attention,
float32, every image through the whole network in every epoch; its epoch is the median step times
the number of steps. Ours: `clipdrift.training.loop.train`, epochs after the first, medians of five.
"""

from __future__ import annotations

import statistics
import sys

from shapes import TINY, VIT_B32, machine, naive_step, noise, random_model, seconds

from clipdrift.machine.devices import supports_bfloat16
from clipdrift.machine.memory import peak_memory_bytes
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

BATCH, IMAGES, EPOCHS = 64, 128, 6


def main() -> None:
    shape, batch, n = (TINY, 8, 16) if "--tiny" in sys.argv else (VIT_B32, BATCH, IMAGES)
    precision = "bfloat16" if supports_bfloat16("cpu") else "float32"
    print(f"{machine()}, {precision}")
    for method in ("linear_probe", "last_blocks"):
        eager = random_model(shape, method, attention="eager")
        naive = seconds(naive_step(eager, batch, shape.side), 5) * n / batch
        epochs = [
            done.seconds
            for done in train(
                random_model(shape, method), noise(n, shape.side, different=n),
                schedule=ScheduleSpec(epochs=EPOCHS, batch_size=batch), learning_rate=1e-6,
                head_rate=1e-6, seed=7, precision=precision,
            )
        ]  # fmt: skip
        later = statistics.median(epochs[1:])
        print(
            f"{method:12} naive epoch {naive:6.2f} s; ours: first {epochs[0]:.2f} s, later "
            f"{later:.4f} s, {naive / later:,.1f} x naive; peak memory of all so far "
            f"{peak_memory_bytes('cpu') / 1e9:.1f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
