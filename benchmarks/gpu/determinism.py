"""How far two equal trainings on a GPU differ, with and without torch's deterministic algorithms.

    python benchmarks/gpu/determinism.py            # needs a GPU
    python benchmarks/gpu/determinism.py --smoke    # tiny, on the CPU, where nothing may differ

Not yet measured on a GPU. ViT-B/32 with random weights, images of noise, batches of 64: the real
training loop and probe. Each row trains the same model twice with the same seed and prints the
largest differences: of trained weights, relative to how far training moved them; of the embeddings,
relative to their size; of a probe set's readings, relative to their values. bfloat16 is what GPUs
train in by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parents[1]))

from shapes import TINY, VIT_B32, machine, noise, random_model

from clipdrift.reading.baseline import probe
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

SMOKE = "--smoke" in sys.argv
DEVICE = "cpu" if SMOKE else "cuda"
SHAPE = TINY if SMOKE else VIT_B32
BATCH, STEPS, PROBED = (8, 4, 8) if SMOKE else (64, 50, 64)
WAYS = ("plain", "deterministic")
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it cuBLAS may sum in another order from call to call; read when CUDA is first used."""


@dataclass(frozen=True)
class Trained:
    """A model after training: its weights, how far they moved, what is read of it."""

    weights: dict[str, Tensor]
    moved: float
    readings: dict[str, Tensor]


def trained(method: str, precision: str) -> Trained:
    model = random_model(SHAPE, method).to(DEVICE)
    before = model.snapshot()
    for _ in train(
        model, noise(STEPS * BATCH, SHAPE.side),
        schedule=ScheduleSpec(epochs=1, batch_size=BATCH), learning_rate=1e-4, head_rate=1e-4,
        seed=7, precision=precision,
    ):  # fmt: skip
        pass
    weights = model.snapshot()
    moved = max(float((weights[name] - was).abs().max()) for name, was in before.items())
    readings = probe(model.encoder.eval(), noise(PROBED, SHAPE.side)).tensors()
    return Trained(weights, moved, readings)


def row(way: str, method: str, precision: str) -> str:
    """One line of the table: two trainings compared."""
    one, two = trained(method, precision), trained(method, precision)
    weights = max(float((one.weights[k] - two.weights[k]).abs().max()) for k in one.weights)
    relative = {name: _relative(value, two.readings[name]) for name, value in one.readings.items()}
    embeddings = relative.pop("embeddings")
    name, largest = max(relative.items(), key=lambda item: item[1])
    return (
        f"| {method} | {precision} | {way} | {weights / one.moved:.1e} | {embeddings:.1e} | "
        f"{largest:.1e} ({name}) |"
    )


def _relative(one: Tensor, two: Tensor) -> float:
    """Largest difference over the largest value; undefined readings are equal to each other."""
    one, two = one.double().nan_to_num(), two.double().nan_to_num()
    size = float(one.abs().max())
    return float((one - two).abs().max()) / size if size else 0.0


def rows(way: str) -> None:
    """All lines of one way, and the operations that torch knows no deterministic form of."""
    torch.use_deterministic_algorithms(way == "deterministic", warn_only=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for method in ("full_ft", "lora"):
            for precision in ("float32", "bfloat16"):
                print(row(way, method, precision), flush=True)
    without = {str(one.message).split(" does not have")[0] for one in told
               if "does not have a deterministic" in str(one.message)}  # fmt: skip
    if without:
        print(f"\nwithout a deterministic form: {', '.join(sorted(without))}")


def main() -> None:
    if "--way" in sys.argv:
        rows(sys.argv[sys.argv.index("--way") + 1])
        return
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("no GPU here: not yet measured on a GPU; --smoke runs it tiny on the CPU")
        return
    print(machine(), "(smoke: figures are those of a CPU)" if SMOKE else "")
    print(f"{STEPS} steps of {BATCH} images, twice; largest differences\n")
    print("| method | precision | algorithms | weights | embeddings | probe readings |")
    print("|---|---|---|---|---|---|", flush=True)
    for way in WAYS:
        settings = WORKSPACE if way == "deterministic" else {}
        command = [sys.executable, __file__, "--way", way, *(["--smoke"] if SMOKE else [])]
        subprocess.run(command, env={**os.environ, **settings}, check=True)


if __name__ == "__main__":
    main()
