"""Made-up studies whose truth is known: seeds, images and learning rates, many studies at a time.

A study of `photographs` is made image by image. Run of method m at rate r and seed g gets image i
right where mu[m, r] + u[g] + v[m, r, g] + b[i] + c[m, i] + e[m, r, g, i] > 0, all but mu normal.
So its accuracy over all seeds and images there are is Phi(mu / S), S^2 the sum of the variances;
over all seeds on the images at hand it is the mean over them of Phi((mu + b + c) / s).

A `Kind` says what the accuracies are, and how far seeds lie apart.

A study of `readings` has numbers that no image is behind: drift and retention of every run are a
mean of its cell with an error of the seed and one of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from clipdrift.analysis.statistics.influence import Images

Floats = NDArray[np.float64]
METHODS, RATES = ("bitfit", "full_ft", "lora"), (1e-6, 5e-6, 1e-5, 5e-5)
SEED_SD, IMAGE_SD, METHOD_IMAGE_SD, NOISE_SD = 0.04, 1.0, 0.4, 1.0
TARGET = np.array([[0.75, 0.84, 0.88, 0.86], [0.80, 0.86, 0.90, 0.915], [0.70, 0.82, 0.89, 0.91]])
TRANSFER = np.array([[0.60, 0.57, 0.50, 0.40], [0.59, 0.53, 0.43, 0.28], [0.61, 0.60, 0.56, 0.47]])
UNTOUCHED = 0.62


class Kind(NamedTuple):
    """Accuracy of each method at each rate on target and transfer set; SD between runs."""

    target: Floats
    transfer: Floats
    run_sd: float
    doses: Floats

    @property
    def of_seeds(self) -> float:
        """Variance of a run on one image."""
        return NOISE_SD**2 + SEED_SD**2 + self.run_sd**2

    @property
    def of_all(self) -> float:
        return self.of_seeds + IMAGE_SD**2 + METHOD_IMAGE_SD**2


DOSES = -0.3 * np.arange(len(METHODS))
USUAL = Kind(TARGET, TRANSFER, 0.08, DOSES)
ALIKE = Kind(np.tile(TARGET[:1], (3, 1)), np.tile(TRANSFER[:1], (3, 1)), 0.08, 0 * DOSES)
"""No method differs from another: what is told apart is told wrongly."""
APART = Kind(TARGET, TRANSFER, 0.53, DOSES)
"""An accuracy of 90 % has an SD of 6 points over seeds, skewed."""
KEPT, ACCURACY, BASELINE = (
    f"transfer.photos.{field}" for field in ("retention_pct", "accuracy", "baseline_accuracy")
)
VAL, TEST = "val_accuracy", "test_accuracy"
MOVED = "drift.weight_drift_rel"
CHUNK = 20_000_000
"""Images judged at a time."""


class Photographs(NamedTuple):
    """Studies, each a target of one frame; and the same with means over all seeds in place of runs.

    frame: one row per run. images: which images each run was right on. of_seeds: one row per cell,
    its means over all seeds on the images at hand. of_all: over all seeds and all images.
    """

    frame: pd.DataFrame
    images: Images
    of_seeds: pd.DataFrame
    of_all: pd.DataFrame


def photographs(
    rng: np.random.Generator, studies: int, seeds: int, images: int, kind: Kind = USUAL
) -> Iterator[Photographs]:
    """Studies of three methods at four rates, with as many validation, test and transfer images.

    Some of them at a time, so that all their images fit into memory.
    """
    step = max(1, CHUNK // (len(METHODS) * len(RATES) * seeds * images))
    for start in range(0, studies, step):
        yield _photographs(rng, range(start, min(start + step, studies)), seeds, images, kind)


Columns = dict[str, Floats]


def _photographs(
    rng: np.random.Generator, studies: range, seeds: int, images: int, kind: Kind
) -> Photographs:
    shape = (len(studies), len(METHODS), len(RATES), seeds)
    lean = SEED_SD * rng.normal(size=(*shape[:1], 1, 1, seeds))
    lean = lean + kind.run_sd * rng.normal(size=shape)
    moved = _movement(rng, shape, kind.doses)
    read: Columns = {MOVED: moved.values}
    known: Columns = {MOVED: moved.of_cells}
    everything: Columns = {MOVED: moved.of_cells}
    hits: dict[str, NDArray[np.bool_]] = {}
    for name, accuracy in ((VAL, kind.target), (TEST, kind.target), (ACCURACY, kind.transfer)):
        right, chance, hard = _read(rng, lean, accuracy, images, kind)
        hits[name] = right
        read[name], known[name] = right.mean(axis=-1), chance
        everything[name] = np.broadcast_to(accuracy[..., None], known[name].shape)
        if name == ACCURACY:
            before = _untouched(rng, hard)
            hits[BASELINE] = np.broadcast_to(before, right.shape)
            base = np.maximum(before.mean(axis=-1), 1 / images)
            for columns, over in ((read, base), (known, base), (everything, UNTOUCHED)):
                columns[KEPT] = 100 * columns[name] / over
    return Photographs(
        _frame(read, studies), _images(hits), _frame(known, studies), _frame(everything, studies)
    )


def _read(
    rng: np.random.Generator, lean: Floats, accuracy: Floats, images: int, kind: Kind
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Which images each run gets right, (*runs, images); mean of each cell; how easy images are."""
    studies = len(lean)
    easy = IMAGE_SD * rng.normal(size=(studies, 1, 1, images))
    own = METHOD_IMAGE_SD * rng.normal(size=(studies, len(METHODS), 1, images))
    middle = (ndtri(accuracy) * np.sqrt(kind.of_all))[..., None] + easy + own
    chance = ndtr(middle / np.sqrt(kind.of_seeds)).mean(axis=-1, keepdims=True)
    noise = rng.standard_normal((*lean.shape, images), dtype=np.float32)
    return noise > -(middle[..., None, :] + lean[..., None]).astype(np.float32), chance, easy


def _untouched(rng: np.random.Generator, easy: Floats) -> NDArray[np.bool_]:
    """Which images the untouched model gets right: one more method, without seeds."""
    own = METHOD_IMAGE_SD * rng.normal(size=easy.shape) + NOISE_SD * rng.normal(size=easy.shape)
    spread = np.sqrt(IMAGE_SD**2 + METHOD_IMAGE_SD**2 + NOISE_SD**2)
    return (ndtri(UNTOUCHED) * spread + easy + own > 0)[..., None, :]


def _images(hits: dict[str, NDArray[np.bool_]]) -> Images:
    """As `Images` makes them from records."""
    flat = {name: right.reshape(-1, right.shape[-1]) for name, right in hits.items()}
    found = Images()
    found._results = {
        str(i): SimpleNamespace(
            correct={
                name: SimpleNamespace(n=len(one[i]), hits=one[i]) for name, one in flat.items()
            },
            transfer={},
        )
        for i in range(len(next(iter(flat.values()))))
    }
    return found


class Movement(NamedTuple):
    values: Floats
    of_cells: Floats


def _movement(rng: np.random.Generator, shape: tuple[int, ...], doses: Floats) -> Movement:
    """Relative weight movement, log-normal around a dose that grows with the rate."""
    dose = -3 + 0.5 * np.arange(len(RATES)) + doses[:, None]
    sd = 0.05 * np.log(10)
    of_cells = np.broadcast_to((10**dose * np.exp(sd**2 / 2))[..., None], (*shape[:-1], 1))
    return Movement(10 ** dose[..., None] * np.exp(sd * rng.normal(size=shape)), of_cells)


def _frame(columns: Columns, studies: range) -> pd.DataFrame:
    """Columns of shape (studies, methods, rates, seeds) as a frame of runs."""
    shape = next(iter(columns.values())).shape
    study, method, rate, seed = (index.ravel() for index in np.indices(shape))
    names = [f"study {i:05d}" for i in studies]
    keys = {
        "run_id": [str(i) for i in range(study.size)],
        "backbone": "made up",
        "target": np.array(names)[study],
        "method": np.array(METHODS)[method],
        "role": "matched",
        "leak": False,
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
    return _frame({"val_accuracy": accuracy, "test_accuracy": accuracy, **read}, range(studies))
