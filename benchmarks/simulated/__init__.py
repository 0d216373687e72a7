"""Made-up studies whose truth is known: seeds, images and learning rates, many studies at a time.

A study of `photographs` is made image by image. Run of method m at rate r and seed g gets image i
right where mu[m, r] + u[g] + v[m, r, g] + b[i] + c[m, i] + e[m, r, g, i] > 0, all but mu normal.
So its accuracy over all seeds and images there are is Phi(mu / S), S^2 the sum of the variances;
over all seeds on the images at hand it is the mean over them of Phi((mu + b + c) / s).

A study of `readings` has numbers that no image is behind: drift and retention of every run are a
mean of its cell with an error of the seed and one of the run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
METHODS, RATES = ("bitfit", "full_ft", "lora"), (1e-6, 5e-6, 1e-5, 5e-5)
SEED_SD, RUN_SD, IMAGE_SD, METHOD_IMAGE_SD, NOISE_SD = 0.04, 0.08, 1.0, 0.4, 1.0
OF_SEEDS = NOISE_SD**2 + SEED_SD**2 + RUN_SD**2
OF_ALL = OF_SEEDS + IMAGE_SD**2 + METHOD_IMAGE_SD**2
TARGET = np.array([[0.75, 0.84, 0.88, 0.86], [0.80, 0.86, 0.90, 0.915], [0.70, 0.82, 0.89, 0.91]])
TRANSFER = np.array([[0.60, 0.57, 0.50, 0.40], [0.59, 0.53, 0.43, 0.28], [0.61, 0.60, 0.56, 0.47]])
UNTOUCHED = 0.62
KEPT = "transfer.photos.retention_pct"
MOVED = "drift.weight_drift_rel"
CHUNK = 30_000_000
"""Images judged at a time."""


class Photographs(NamedTuple):
    """Studies, each a target of one frame; and the same with means over all seeds in place of runs.

    frame: one row per run. of_seeds: one row per cell, its means over all seeds on the images at
    hand. of_all: over all seeds and all images.
    """

    frame: pd.DataFrame
    of_seeds: pd.DataFrame
    of_all: pd.DataFrame


def photographs(rng: np.random.Generator, studies: int, seeds: int, images: int) -> Photographs:
    """Studies of three methods at four rates, with as many validation, test and transfer images."""
    step = max(1, CHUNK // (len(METHODS) * len(RATES) * seeds * images))
    blocks = [
        _block(rng, min(step, studies - start), seeds, images) for start in range(0, studies, step)
    ]
    read, known = (
        {name: np.concatenate([block[part][name] for block in blocks]) for name in blocks[0][part]}
        for part in (0, 1)
    )
    shape = (studies, len(METHODS), len(RATES), 1)
    moved = _movement(rng, studies, seeds)
    everything = {
        "val_accuracy": np.broadcast_to(TARGET[..., None], shape),
        "test_accuracy": np.broadcast_to(TARGET[..., None], shape),
        KEPT: np.broadcast_to(100 * TRANSFER[..., None] / UNTOUCHED, shape),
    }
    known[MOVED] = everything[MOVED] = np.broadcast_to(moved.mean_of_cell[..., None], shape)
    return Photographs(_frame({**read, MOVED: moved.values}), _frame(known), _frame(everything))


Columns = dict[str, Floats]


def _block(
    rng: np.random.Generator, studies: int, seeds: int, images: int
) -> tuple[Columns, Columns]:
    """Accuracies (studies, methods, rates, seeds), and their means over all seeds."""
    shape = (studies, len(METHODS), len(RATES), seeds)
    lean = SEED_SD * rng.normal(size=(studies, 1, 1, seeds)) + RUN_SD * rng.normal(size=shape)
    read: Columns = {}
    known: Columns = {}
    for name, accuracy in (("val_accuracy", TARGET), ("test_accuracy", TARGET), (KEPT, TRANSFER)):
        hard = IMAGE_SD * rng.normal(size=(studies, 1, 1, images))
        own = METHOD_IMAGE_SD * rng.normal(size=(studies, len(METHODS), 1, images))
        middle = (ndtri(accuracy) * np.sqrt(OF_ALL))[..., None] + hard + own
        chance = ndtr(middle / np.sqrt(OF_SEEDS)).mean(axis=-1, keepdims=True)
        noise = rng.standard_normal((*shape, images), dtype=np.float32)
        right = noise > -(middle[..., None, :] + lean[..., None]).astype(np.float32)
        scale = 1.0
        if name == KEPT:
            # The untouched model is one more method, without seeds.
            alone = METHOD_IMAGE_SD * rng.normal(size=hard.shape) + rng.normal(size=hard.shape)
            spread = np.sqrt(IMAGE_SD**2 + METHOD_IMAGE_SD**2 + NOISE_SD**2)
            before = (ndtri(UNTOUCHED) * spread + hard + alone > 0).mean(axis=-1, keepdims=True)
            scale = 100 / np.maximum(before, 1 / images)
        read[name], known[name] = scale * right.mean(axis=-1), scale * chance
    return read, known


class Movement(NamedTuple):
    values: Floats
    mean_of_cell: Floats


def _movement(rng: np.random.Generator, studies: int, seeds: int) -> Movement:
    """Relative weight movement, log-normal around a dose that grows with the rate."""
    dose = -3 + 0.5 * np.arange(len(RATES)) - 0.3 * np.arange(len(METHODS))[:, None]
    sd = 0.05 * np.log(10)
    noise = rng.normal(size=(studies, len(METHODS), len(RATES), seeds))
    return Movement(10 ** dose[..., None] * np.exp(sd * noise), 10**dose * np.exp(sd**2 / 2))


def _frame(columns: Columns) -> pd.DataFrame:
    """Columns of shape (studies, methods, rates, seeds) as a frame of runs."""
    shape = next(iter(columns.values())).shape
    study, method, rate, seed = (index.ravel() for index in np.indices(shape))
    names = [f"study {i:05d}" for i in range(shape[0])]
    keys = {
        "run_id": [str(i) for i in range(study.size)],
        "backbone": "made up",
        "target": np.array(names)[study],
        "method": np.array(METHODS)[method],
        "role": "matched",
        "learning_rate": np.array(RATES)[rate],
        "seed": seed,
    }
    return pd.DataFrame({**keys, **{name: values.ravel() for name, values in columns.items()}})


ENTROPY, CKA = "drift.cls_entropy_pct", "drift.cka_mean"


def readings(rng: np.random.Generator, studies: int, seeds: int) -> pd.DataFrame:
    """Studies of two targets; entropy and CKA move with the dose, retention falls with both."""
    shape = (studies, len(METHODS), len(RATES), seeds)
    dose = np.arange(len(RATES)) - 0.7 * np.arange(len(METHODS))[:, None]
    dose = np.broadcast_to(dose[..., None], shape)
    of_seed = rng.normal(size=(studies, 1, 1, seeds))

    def noise() -> Floats:
        return 0.4 * of_seed + rng.normal(size=shape)

    entropy, cka = -1.0 * dose + 1.5 * noise(), 0.95 - 0.05 * dose - 0.03 * noise()
    kept = 90 - 8 * dose + 2 * entropy + 4 * noise()
    moved = 10 ** (-3 + 0.4 * dose + 0.05 * noise())
    accuracy = 0.9 + 0.01 * dose + 0.005 * noise()
    read = {ENTROPY: entropy, CKA: cka, KEPT: kept, MOVED: moved}
    return _frame({"val_accuracy": accuracy, "test_accuracy": accuracy, **read})
