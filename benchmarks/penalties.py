"""What each penalty adds to a training step.

    python benchmarks/penalties.py [--tiny]

ViT-B/32 at 224 pixels with random weights, full fine-tuning, batches of 32; the untouched encoder
is a copy. All in one run, ratios to the step without penalties; medians of four steps after one.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter
from shapes import TINY, VIT_B32, Shape, machine, noise, random_model

from clipdrift.machine.devices import supports_bfloat16
from clipdrift.penalties.held import HeldNear
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.spec.penalties import PenaltySpec
from clipdrift.training.loop import train

STEPS, WARM_UP = 4, 1
KINDS = ("l2_sp", "feature_distillation", "attention_preservation", "entropy_floor")


def step_seconds(shape: Shape, kinds: tuple[str, ...], batch: int, precision: str) -> float:
    """Median seconds of a step of the real training loop under some penalties."""
    model, moments = random_model(shape, "full_ft"), []
    specs: list[Any] = TypeAdapter(list[PenaltySpec]).validate_python(
        [{"kind": kind, "weight": 1e-3} for kind in kinds]
    )
    untouched = copy.deepcopy(model.encoder).requires_grad_(False).eval()
    held = HeldNear(specs, model, untouched) if kinds else None

    def tick() -> bool:
        moments.append(time.perf_counter())
        return False

    steps = WARM_UP + STEPS
    for _ in train(
        model, noise(steps * batch, shape.side), schedule=ScheduleSpec(epochs=1, batch_size=batch),
        learning_rate=1e-6, head_rate=1e-6, seed=7, precision=precision, held=held, stop=tick,
    ):  # fmt: skip
        pass
    return statistics.median([b - a for a, b in pairwise(moments)][-STEPS:])


def main() -> None:
    shape, batch = (TINY, 8) if "--tiny" in sys.argv else (VIT_B32, 32)
    precision = "bfloat16" if supports_bfloat16("cpu") else "float32"
    print(machine())
    plain = step_seconds(shape, (), batch, precision)
    print(f"{precision}, batch {batch}: {plain:.2f} s without penalties", flush=True)
    for kinds in (*((kind,) for kind in KINDS), KINDS):
        ratio = step_seconds(shape, kinds, batch, precision) / plain
        print(
            f"{' + '.join(kinds) if len(kinds) == 1 else 'all four':24} x {ratio:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
