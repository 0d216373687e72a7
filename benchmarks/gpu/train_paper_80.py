"""Training speed on a GPU, and the whole shape of paper-80 extrapolated from it.

    python benchmarks/gpu/train_paper_80.py            # needs a GPU
    python benchmarks/gpu/train_paper_80.py --smoke    # tiny, on the CPU: only that it runs

Not yet measured on a GPU. Goals: one run at 12,000 images/s or more in training; 21.7 million
training images with their evaluations and probes within 25 minutes on one H200.

ViT-B/32 with random weights, images of noise, batches of 64, bfloat16: the real training loop, the
real evaluation pass in float32, the real probe. Sample: 300 steps, 20,000 images, one probe set;
runs side by side on the GPU are processes, each of which trains the same sample.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from unittest.mock import patch

import torch

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parents[1]))

from shapes import TINY, VIT_B32, machine, noise, random_model

from clipdrift.backbone import ImageEncoder
from clipdrift.data.images import Images
from clipdrift.reading.baseline import probe
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step import fast
from clipdrift.training.loop import in_batches, train

SMOKE = "--smoke" in sys.argv
DEVICE = "cpu" if SMOKE else "cuda"
SHAPE = TINY if SMOKE else VIT_B32
BATCH, STEPS, WARM_UP = (8, 4, 2) if SMOKE else (64, 300, 50)
EVALUATED, PROBED = (32, 8) if SMOKE else (20_000, 200)
TOGETHER = (1, 2) if SMOKE else (1, 2, 4)

RUNS_PER_TARGET = 40  # 2 methods x 4 learning rates x 5 seeds
TARGETS = {"eurosat": (21_600, 2_700, 20), "pets": (3_680, 3_669, 30)}  # train, test, epochs
TRANSFER, EPOCH_TRANSFER = 10_000, 1_000


@torch.inference_mode()
def embed(encoder: ImageEncoder, images: Images) -> None:
    """Embeddings of all images, in float32, batch by batch."""
    for batch in in_batches(images, 256):
        encoder(batch.to(encoder.mean.device))


def train_speed(method: str, *, compiled: bool) -> float:
    """Images a second over the last steps of the sample."""
    model, moments = random_model(SHAPE, method).to(DEVICE), []

    def tick() -> bool:
        if len(moments) in (WARM_UP, WARM_UP + STEPS - 1) and DEVICE == "cuda":
            torch.cuda.synchronize()
        moments.append(time.perf_counter())
        return False

    with patch.object(fast, "WORTH_COMPILING", 0 if compiled else float("inf")):
        for _ in train(
            model, noise((WARM_UP + STEPS) * BATCH, SHAPE.side),
            schedule=ScheduleSpec(epochs=1, batch_size=BATCH), learning_rate=1e-6, head_rate=1e-6,
            seed=7, precision="bfloat16", stop=tick,
        ):  # fmt: skip
            pass
    return (STEPS - 1) * BATCH / (moments[-1] - moments[WARM_UP])


def timed(work: partial[object]) -> float:
    """Median seconds of three."""
    spent = []
    for _ in range(4):
        started = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def side_by_side(n: int) -> float:
    """Images a second of n processes together, each one run of full fine-tuning."""
    command = [sys.executable, __file__, "--one", *(["--smoke"] if SMOKE else [])]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    return sum(float(process.communicate()[0].split()[-1]) for process in started)


def main() -> None:
    if "--one" in sys.argv:
        print(train_speed("full_ft", compiled=False))
        return
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("no GPU here: not yet measured on a GPU; --smoke runs it tiny on the CPU")
        return
    print(machine(), "(smoke: figures mean nothing)" if SMOKE else "")
    best = {}
    for method in ("full_ft", "lora"):
        for compiled in (False, True) if method == "full_ft" else (False,):  # never with dropout
            speed = train_speed(method, compiled=compiled)
            best[method] = max(best.get(method, 0.0), speed)
            print(f"{method} {'compiled' if compiled else 'eager'}: {speed:,.0f} training images/s")
    for n in TOGETHER:
        print(f"{n} runs side by side: {side_by_side(n):,.0f} training images/s together")
    encoder = random_model(SHAPE, "full_ft").to(DEVICE).encoder.eval()
    evaluated = noise(EVALUATED, SHAPE.side)
    score = EVALUATED / timed(partial(embed, encoder, evaluated))
    probed = timed(partial(probe, encoder, noise(PROBED, SHAPE.side)))
    print(f"evaluation {score:,.0f} images/s in float32; a probe of {PROBED} images {probed:.2f} s")
    extrapolate(best, score, probed)


def extrapolate(speed: dict[str, float], score: float, probed: float) -> None:
    """One run at a time: training, the test part and 1,000 transfer images an epoch, probes."""
    trained = read = probes = 0
    for n_train, n_test, epochs in TARGETS.values():
        trained += RUNS_PER_TARGET * epochs * n_train
        read += RUNS_PER_TARGET * (epochs * (n_test + EPOCH_TRANSFER) + n_test + TRANSFER)
        probes += RUNS_PER_TARGET * (epochs + 1)
    training = trained / 2 * sum(1 / value for value in speed.values())
    total = training + read / score + probes * probed
    print(
        f"paper-80, extrapolated: {trained / 1e6:.1f} M training images {training / 60:.1f} min, "
        f"{read / 1e6:.1f} M evaluated {read / score / 60:.1f} min, {probes:,} probes "
        f"{probes * probed / 60:.1f} min: {total / 60:.1f} min with one run at a time"
    )


if __name__ == "__main__":
    main()
