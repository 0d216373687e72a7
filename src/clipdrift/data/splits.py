"""Train, validation and probe images out of a target's training part, and its test images.

Every draw is per class, from a generator keyed by (seed, purpose, class): the images of one class
do not depend on how many another class has. With `draw: in_turn` one generator draws all sets, see
`in_turn`; images of the test part are keyed all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.drawn.in_turn import SETS, InTurn, draw_in_turn
from clipdrift.errors import DataError, Fault
from clipdrift.spec.carving import Draw, ProbeSpec, SplitSpec

Positions = NDArray[np.int64]

DEFAULT_PROBE_IMAGES = 200
DEFAULT_VAL_FRACTION = 0.15

_PROBE, _PROBE_SHARES, _TRAINING, _TEST, _SUBSET = range(1, 6)


@dataclass(frozen=True)
class Splits:
    """Sorted positions: train and val in the training part, test in the test part.

    val: in the validation part, where the data has one. probe: in the part that `probe_part` names.
    sha256: hex, over all of them.
    """

    train: Positions
    val: Positions
    probe: Positions
    test: Positions
    probe_part: Literal["train", "test"]
    sha256: str


def carve(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    splits: SplitSpec,
    probe: ProbeSpec,
    n_classes: int,
    *,
    where: str,
    class_names: Sequence[str] = (),
) -> Splits:
    """Disjoint, stratified sets, drawn in the order probe, validation, train.

    With `splits.draw` "in_turn" the order is validation, probe, train, and of `probe.n_images` what
    does not go evenly into the classes comes from all images that are left.

    Probe: `per_class`, or `n_images` in all with counts that differ by at most one; by default 200
    in all, of no class more than a quarter (rounded down, one at least). It depends on `probe.seed`
    and the labels alone. Validation: `val_per_class`, or `val_fraction` (default 0.15) of what
    remains of a class, rounded, one at least unless the fraction is 0. Train: `train_per_class`, or
    all that remain. Test: `test_per_class`, or the whole test part.

    With `probe.source` "test" the probe is drawn from the test part and may share images with the
    test set, as in the paper; train and validation are still disjoint from both.

    Args:
        train_labels, test_labels: int64 [N] in 0..n_classes-1.
        where: the name of the dataset, for messages.
        class_names: to name classes in messages; else "class 3".

    Raises:
        DataError: every class with too few images.
    """
    names = list(class_names) or [f"class {label}" for label in range(n_classes)]
    training, testing = _by_class(train_labels, n_classes), _by_class(test_labels, n_classes)
    pools = training if probe.source == "train" else testing
    probe_counts = _probe_counts(np.array([len(pool) for pool in pools]), probe)
    if splits.draw == "in_turn" and probe.n_images is not None:  # any class may give one more
        probe_counts[:] = -(-probe.n_images // n_classes)
    sizes = [
        _sizes(len(training[label]), len(testing[label]), int(probe_counts[label]), splits, probe)
        for label in range(n_classes)
    ]
    faults: list[Fault] = []
    for label, size in enumerate(sizes):
        faults += _too_few(where, names[label], len(training[label]), len(testing[label]), size)
    if faults:
        raise DataError(faults)
    if splits.draw == "in_turn":
        counts = {name: np.array([getattr(size, name) for size in sizes]) for name in SETS}
        if splits.train_per_class is None:
            counts["train"] = np.full(n_classes, len(train_labels))
        sets = draw_in_turn(train_labels, test_labels, counts, splits.seed, probe)
    else:
        drawn = [
            _draw(label, training[label], size, splits.seed, pools[label], probe)
            for label, size in enumerate(sizes)
        ]
        sets = {name: np.sort(np.concatenate([one[name] for one in drawn])) for name in drawn[0]}
    tests = [
        _shuffled(testing[label], splits.seed, _TEST, label)[: size.test]
        for label, size in enumerate(sizes)
    ]
    sets["test"] = np.sort(np.concatenate(tests))
    return splits_of(sets, probe.source)


def splits_of(sets: dict[str, Positions], probe_part: Literal["train", "test"]) -> Splits:
    """The four sets with the hash over them."""
    return Splits(**sets, probe_part=probe_part, sha256=_digest(sets, probe_part))


@dataclass(frozen=True)
class _Sizes:
    """How many images of one class each set takes."""

    probe: int
    probe_in_train: int
    val: int
    train: int
    test: int


def _sizes(n_train: int, n_test: int, n_probe: int, splits: SplitSpec, probe: ProbeSpec) -> _Sizes:
    in_train = n_probe if probe.source == "train" else 0
    rest = max(0, n_train - in_train)
    fraction = DEFAULT_VAL_FRACTION if splits.val_fraction is None else splits.val_fraction
    val = splits.val_per_class or (max(1, round(fraction * rest)) if fraction else 0)
    return _Sizes(
        probe=n_probe,
        probe_in_train=in_train,
        val=val,
        train=splits.train_per_class or max(1, rest - val),
        test=splits.test_per_class or max(1, n_test),
    )


def _too_few(where: str, name: str, n_train: int, n_test: int, size: _Sizes) -> list[Fault]:
    faults = []
    needed = size.probe_in_train + size.val + size.train
    if needed > n_train:
        parts = f"{size.probe_in_train} probe + {size.val} validation + {size.train} train"
        faults.append(
            Fault(
                f"{where}, training part, {name}",
                f"{needed} images ({parts})",
                f"{n_train}",
                "Lower splits.train_per_class, splits.val_per_class or the probe, or add images",
            )
        )
    needed = max(size.test, size.probe - size.probe_in_train)
    if needed > n_test:
        faults.append(
            Fault(
                f"{where}, test part, {name}",
                f"{needed} images",
                f"{n_test}",
                "Lower splits.test_per_class or a probe from the test part, or add images",
            )
        )
    return faults


def _draw(
    label: int, train: Positions, size: _Sizes, seed: int, pool: Positions, probe: ProbeSpec
) -> dict[str, Positions]:
    """Of one class. pool: where its probe images come from."""
    probed = _shuffled(pool, probe.seed, _PROBE, label)[: size.probe]
    rest = np.setdiff1d(train, probed) if probe.source == "train" else train
    order = _shuffled(rest, seed, _TRAINING, label)
    return {
        "train": order[size.val : size.val + size.train],
        "val": order[: size.val],
        "probe": probed,
    }


def _probe_counts(available: NDArray[np.int64], probe: ProbeSpec) -> NDArray[np.int64]:
    if probe.per_class is not None:
        return np.full(len(available), probe.per_class, dtype=np.int64)
    rng = np.random.default_rng([probe.seed, _PROBE_SHARES])
    if probe.n_images is not None:
        return _even_counts(np.full(len(available), probe.n_images), probe.n_images, rng)
    even = _even_counts(np.full(len(available), DEFAULT_PROBE_IMAGES), DEFAULT_PROBE_IMAGES, rng)
    return np.minimum(even, np.maximum(1, available // 4))


def balanced_subset(
    labels: NDArray[np.int64],
    n: int,
    seed: int,
    *,
    draw: Draw = "by_class",
    where: str = "n_images",
) -> Positions:
    """Sorted positions of `n` images, as many of each class as of any other, give or take one.

    A class that has fewer than its share gives all it has, and the others share what is missing.

    Args:
        draw: as in `TransferSpec`.
        where: the key of the study that asks for `n`, for messages.

    Raises:
        DataError: more images asked for than there are, or none.

    >>> balanced_subset(np.array([0, 0, 0, 1, 1, 1]), 2, seed=0).size
    2
    """
    if not 1 <= n <= len(labels):
        raise DataError(
            Fault(where, f"1 to {len(labels):,}, the images there are", f"{n:,}", "Change it")
        )
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if draw == "in_turn":
        return InTurn(places, len(classes), seed).balanced(n)
    shares = _even_counts(counts, n, np.random.default_rng([seed, _SUBSET]))
    chosen = [
        _shuffled(np.flatnonzero(labels == label), seed, _SUBSET, int(label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _even_counts(
    available: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Counts that sum to `n` <= sum(available), equal within one unless a class runs out."""
    level = int(np.searchsorted(_totals(available), n, side="right")) - 1
    counts = np.minimum(available, level)
    open_classes = np.flatnonzero(available > level)
    extra = rng.permutation(open_classes)[: n - int(counts.sum())]
    counts[extra] += 1
    return counts


def _totals(available: NDArray[np.int64]) -> NDArray[np.int64]:
    """What all classes give together when none gives more than 0, 1, 2, ... images."""
    giving = np.bincount(available, minlength=1)[::-1].cumsum()[::-1][1:]
    return np.concatenate([[0], np.cumsum(giving)]).astype(np.int64)


def _by_class(labels: NDArray[np.int64], n_classes: int) -> list[Positions]:
    return [np.flatnonzero(labels == label) for label in range(n_classes)]


def _shuffled(positions: Positions, seed: int, purpose: int, label: int) -> Positions:
    # Labels count from 1 here: a trailing 0 would not change what the generator is seeded with.
    return np.random.default_rng([seed, purpose, label + 1]).permutation(positions)


def _digest(sets: dict[str, Positions], probe_part: str) -> str:
    digest = hashlib.sha256(probe_part.encode())
    for name, positions in sorted(sets.items()):
        digest.update(f"{name} {len(positions)} ".encode())
        digest.update(positions.astype("<i8").tobytes())
    return digest.hexdigest()
