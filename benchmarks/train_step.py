"""A training step against the naive one, and against the machine's own rate of matrix products.

    python benchmarks/train_step.py [--tiny]

ViT-B/32 at 224 pixels with random weights, batches of 64. Naive: eager attention, float32, torch's
default AdamW. Ours: the training loop itself; with torch's dropout and QuickGELU in place of the
kernels of `step/kernels.py`; and with its blocks compiled. All ratios are within one run; medians
of five steps after warm-up.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from unittest.mock import patch

import torch
from shapes import TINY, VIT_B32, Shape, machine, naive_step, noise, random_model, seconds

from clipdrift.machine.devices import supports_bfloat16
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step import fast
from clipdrift.training.loop import train

BATCH, STEPS, WARM_UP = 64, 5, 2

VARIANTS: dict[str, tuple[str, object]] = {
    "": ("WORTH_COMPILING", float("inf")),
    "torch's kernels": ("own_kernels", nullcontext),
    "compiled": ("WORTH_COMPILING", 0),
}
"""Of our step: what of `clipdrift.step.fast` is something else meanwhile. The first is as it is."""


def matrix_rate(shape: Shape, dtype: torch.dtype, batch: int) -> float:
    """GFLOP/s of the MLP's three products: forward, gradient of inputs, gradient of weights."""
    rows, width, hidden = batch * shape.tokens, shape.width, 4 * shape.width
    x, weight, grad = (
        torch.randn(*size).to(dtype) for size in ((rows, width), (hidden, width), (rows, hidden))
    )
    products = (lambda: x @ weight.t(), lambda: grad @ weight, lambda: grad.t() @ x)
    spent = [seconds(product, 15, warm_up=3) for product in products]
    return 2 * rows * width * hidden * len(spent) / sum(spent) / 1e9


def our_step(shape: Shape, method: str, precision: str, batch: int, variant: str) -> float:
    """Median seconds of a step of the real training loop."""
    model, moments = random_model(shape, method), []
    steps = WARM_UP + STEPS

    def tick() -> bool:
        moments.append(time.perf_counter())
        return False

    schedule = ScheduleSpec(epochs=1, batch_size=batch)
    with patch.object(fast, *VARIANTS[variant]):
        for _ in train(
            model, noise(steps * batch, shape.side), schedule=schedule, learning_rate=1e-6,
            head_rate=1e-6, seed=7, precision=precision, stop=tick,
        ):  # fmt: skip
            pass
    apart = [b - a for a, b in pairwise(moments)]
    return statistics.median(apart[-STEPS:])


def main() -> None:
    shape, batch = (TINY, 8) if "--tiny" in sys.argv else (VIT_B32, BATCH)
    precision = "bfloat16" if supports_bfloat16("cpu") else "float32"
    print(machine())
    print(
        "products of the MLP's shape are timed beside every figure: the speed of a machine changes"
    )
    ours_in = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for method in ("full_ft", "lora"):
        eager = random_model(shape, method, attention="eager")
        naive = seconds(naive_step(eager, batch, shape.side), STEPS)
        rate = matrix_rate(shape, torch.float32, batch)
        print(
            f"{method:8} naive                    {batch / naive:7.2f} images/s; float32 products "
            f"{rate:.0f} GFLOP/s",
            flush=True,
        )
        for variant in VARIANTS:
            if method == "lora" and variant == "compiled":
                continue  # never with dropout
            ours = our_step(shape, method, precision, batch, variant)
            rate = matrix_rate(shape, ours_in, batch)
            share = shape.training_gflop(method) * batch / ours / rate
            print(
                f"{method:8} {precision} {variant:15} "
                f"{batch / ours:7.2f} images/s, {naive / ours:.2f} x naive, "
                f"{share:.0%} of the matrix rate of {rate:.0f} GFLOP/s",
                flush=True,
            )
        bound = rate / shape.training_gflop(method) * naive / batch
        print(f"{method:8} at the matrix rate it would be {bound:.2f} x naive", flush=True)


if __name__ == "__main__":
    main()
