"""Splits are disjoint, stratified, independent of each other's seeds, and say what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift.data.splits import balanced_subset, carve
from clipdrift.errors import DataError
from clipdrift.spec.carving import ProbeSpec, SplitSpec


def labels_of(*counts: int) -> np.ndarray:
    """Labels with so many images of each class, in a scrambled order."""
    ordered = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(5).permutation(ordered).astype(np.int64)


def counted(labels: np.ndarray, positions: np.ndarray, n_classes: int) -> list[int]:
    return np.bincount(labels[positions], minlength=n_classes).tolist()


@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    seed=st.integers(0, 9),
    probe_seed=st.integers(0, 9),
    fraction=st.sampled_from([None, 0.0, 0.3]),
)
def test_default_splits_are_disjoint_and_use_every_image(
    counts: list[int], seed: int, probe_seed: int, fraction: float | None
) -> None:
    train, test = labels_of(*counts), labels_of(*[2] * len(counts))
    cut = carve(
        train,
        test,
        SplitSpec(seed=seed, val_fraction=fraction),
        ProbeSpec(seed=probe_seed),
        len(counts),
        where="toy",
    )
    together = np.concatenate([cut.train, cut.val, cut.probe])
    assert sorted(together.tolist()) == list(range(len(train)))
    assert cut.test.tolist() == list(range(len(test)))
    for positions in (cut.train, cut.val, cut.probe, cut.test):
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()
    shares = 200 / len(counts)
    for label, count in enumerate(counts):
        probe = int((train[cut.probe] == label).sum())
        cap = max(1, count // 4)
        assert min(cap, int(shares)) <= probe <= min(cap, int(np.ceil(shares)))
        rest = count - probe
        wanted = 0.15 if fraction is None else fraction
        val = int((train[cut.val] == label).sum())
        assert val == (max(1, round(wanted * rest)) if wanted else 0)


def test_default_probe_is_200_balanced_images() -> None:
    train = labels_of(*[100] * 37)
    cut = carve(train, labels_of(*[1] * 37), SplitSpec(), ProbeSpec(), 37, where="pets")
    shares = counted(train, cut.probe, 37)
    assert sum(shares) == 200
    assert set(shares) == {5, 6}


def test_sizes_per_class_are_kept_exactly() -> None:
    train, test = labels_of(60, 50, 75), labels_of(20, 30, 40)
    rule = SplitSpec(train_per_class=30, val_per_class=7, test_per_class=15)
    cut = carve(train, test, rule, ProbeSpec(per_class=5), 3, where="toy")
    assert counted(train, cut.train, 3) == [30] * 3
    assert counted(train, cut.val, 3) == [7] * 3
    assert counted(train, cut.probe, 3) == [5] * 3
    assert counted(test, cut.test, 3) == [15] * 3
    assert cut.probe_part == "train"


def test_n_images_differ_by_at_most_one_between_classes() -> None:
    train = labels_of(30, 30, 30)
    cut = carve(train, labels_of(1, 1, 1), SplitSpec(), ProbeSpec(n_images=20), 3, where="toy")
    assert sorted(counted(train, cut.probe, 3)) == [6, 7, 7]


def test_the_probe_depends_on_its_own_seed_alone() -> None:
    train, test = labels_of(*[40] * 4), labels_of(*[10] * 4)
    probe = ProbeSpec(per_class=5, seed=42)
    first = carve(train, test, SplitSpec(seed=0), probe, 4, where="toy")
    other = carve(
        train, test, SplitSpec(seed=1, train_per_class=3, val_per_class=9), probe, 4, where="toy"
    )
    assert np.array_equal(first.probe, other.probe)
    assert not np.array_equal(first.val, other.val[: len(first.val)])
    moved = carve(train, test, SplitSpec(seed=0), ProbeSpec(per_class=5, seed=43), 4, where="toy")
    assert not np.array_equal(first.probe, moved.probe)


def test_more_training_images_contain_the_fewer() -> None:
    train, test = labels_of(50, 50), labels_of(5, 5)
    probe = ProbeSpec(per_class=5)
    few, many = (
        carve(train, test, SplitSpec(train_per_class=n, val_per_class=4), probe, 2, where="toy")
        for n in (10, 30)
    )
    assert set(few.train) < set(many.train)
    assert np.array_equal(few.val, many.val)


def test_one_class_does_not_move_the_draw_of_another() -> None:
    base = labels_of(40, 40)
    longer = np.concatenate([base, np.ones(30, dtype=np.int64)])
    rule, probe = SplitSpec(train_per_class=10, val_per_class=5), ProbeSpec(per_class=4)
    test = labels_of(3, 3)
    first = carve(base, test, rule, probe, 2, where="toy")
    second = carve(longer, test, rule, probe, 2, where="toy")
    for name in ("train", "val", "probe"):
        before, after = getattr(first, name), getattr(second, name)
        assert np.array_equal(before[base[before] == 0], after[longer[after] == 0])


def test_equal_inputs_give_equal_hashes_and_any_change_another() -> None:
    train, test = labels_of(40, 40), labels_of(10, 10)

    def digest(seed: int = 0, probe_seed: int = 42, source: str = "train", n_test: int = 5) -> str:
        return carve(
            train,
            test,
            SplitSpec(seed=seed, test_per_class=n_test),
            ProbeSpec(per_class=5, seed=probe_seed, source=source),
            2,
            where="toy",
        ).sha256

    variants = [digest(), digest(1), digest(0, 1), digest(source="test"), digest(n_test=6)]
    assert len(set(variants)) == 5
    assert digest() == variants[0]
    assert len(variants[0]) == 64


def test_a_probe_of_the_test_part_leaves_the_training_part_whole() -> None:
    train, test = labels_of(20, 20), labels_of(15, 15)
    cut = carve(train, test, SplitSpec(), ProbeSpec(per_class=4, source="test"), 2, where="toy")
    assert cut.probe_part == "test"
    assert counted(test, cut.probe, 2) == [4, 4]
    assert len(cut.train) + len(cut.val) == 40
    assert len(cut.test) == 30


def test_every_class_with_too_few_images_is_named_with_its_counts() -> None:
    with pytest.raises(DataError) as raised:
        carve(
            labels_of(30, 9, 1),
            labels_of(8, 2, 8),
            SplitSpec(train_per_class=6, val_per_class=2, test_per_class=5),
            ProbeSpec(per_class=3),
            3,
            where="pets",
            class_names=["beagle", "birman", "sphynx"],
        )
    advice = "Lower splits.train_per_class, splits.val_per_class or the probe, or add images."
    assert str(raised.value).splitlines() == [
        (
            "pets, training part, birman: expected 11 images (3 probe + 2 validation + 6 train), "
            f"got 9. {advice}"
        ),
        (
            "pets, training part, sphynx: expected 11 images (3 probe + 2 validation + 6 train), "
            f"got 1. {advice}"
        ),
        (
            "pets, test part, birman: expected 5 images, got 2. "
            "Lower splits.test_per_class or a probe from the test part, or add images."
        ),
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_class_that_cannot_be_split_is_a_fault(count: int) -> None:
    with pytest.raises(DataError, match=rf"class 1: expected 3 images \(1 probe .* got {count}\."):
        carve(labels_of(9, count), labels_of(3, 3), SplitSpec(), ProbeSpec(), 2, where="toy")


def test_a_class_without_test_images_is_a_fault() -> None:
    with pytest.raises(DataError, match="test part, class 1: expected 1 images, got 0"):
        carve(labels_of(9, 9), labels_of(3, 0), SplitSpec(), ProbeSpec(), 2, where="toy")


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_a_balanced_subset_is_as_even_as_the_data_allow(
    counts: list[int], share: float, seed: int
) -> None:
    labels = labels_of(*counts)
    n = max(1, round(share * len(labels)))
    positions = balanced_subset(labels, n, seed)
    assert len(positions) == n
    assert (np.diff(positions) > 0).all()
    taken = np.array(counted(labels, positions, len(counts)))
    not_used_up = taken[taken < np.array(counts)]
    if not_used_up.size:
        assert taken.max() <= not_used_up.min() + 1
    assert np.array_equal(positions, balanced_subset(labels, n, seed))


def test_a_balanced_subset_changes_with_its_seed() -> None:
    labels = labels_of(50, 50)
    assert not np.array_equal(balanced_subset(labels, 20, 0), balanced_subset(labels, 20, 1))


@pytest.mark.parametrize("n", [0, 7])
def test_a_subset_larger_than_the_data_is_a_fault(n: int) -> None:
    with pytest.raises(DataError, match=f"n_images: expected 1 to 6.*got {n}"):
        balanced_subset(labels_of(3, 3), n, 0)


def taken(labels: np.ndarray, n: int, rng: np.random.RandomState, used: set[int]) -> list[int]:
    """The published rule again: of each class in order, the first n of a shuffled list."""
    picked: list[int] = []
    for label in range(int(labels.max()) + 1):
        pool = [i for i in range(len(labels)) if labels[i] == label and i not in used]
        rng.shuffle(pool)
        picked += pool[:n]
    return sorted(picked)


def test_sets_in_turn_are_validation_then_probe_then_training_from_one_generator() -> None:
    train, test = labels_of(40, 31, 55), labels_of(4, 5, 6)
    rule = SplitSpec(train_per_class=15, val_per_class=6, seed=0, draw="in_turn")
    cut = carve(train, test, rule, ProbeSpec(per_class=4, seed=0), 3, where="toy")
    rng, used = np.random.RandomState(0), set[int]()
    for name, n in (("val", 6), ("probe", 4), ("train", 15)):
        expected = taken(train, n, rng, used)
        used.update(expected)
        assert getattr(cut, name).tolist() == expected
    assert cut.test.tolist() == list(range(15))
    other = carve(train, test, SplitSpec(seed=0), ProbeSpec(per_class=4, seed=0), 3, where="toy")
    assert cut.sha256 != other.sha256


def test_a_probe_in_turn_from_the_test_part_fills_up_from_all_images_that_are_left() -> None:
    """200 images of 37 classes: 5 of each, then 15 of any, as in the published code."""
    train, test = labels_of(*[20] * 37), labels_of(*[30] * 37)
    rule, probe = SplitSpec(val_fraction=0, draw="in_turn"), ProbeSpec(n_images=200, source="test")
    cut = carve(train, test, rule, probe, 37, where="pets")
    rng = np.random.RandomState(42)
    chosen: list[int] = []
    for label in range(37):
        chosen += rng.choice(np.flatnonzero(test == label), size=5, replace=False).tolist()
    left = [i for i in range(len(test)) if i not in set(chosen)]
    chosen += rng.choice(left, size=15, replace=False).tolist()
    assert cut.probe.tolist() == sorted(chosen)
    assert cut.train.tolist() == list(range(len(train)))
    assert cut.val.size == 0


def test_all_that_remains_in_turn_leaves_no_image_out() -> None:
    train = labels_of(21, 34, 25)
    rule, probe = SplitSpec(draw="in_turn"), ProbeSpec(n_images=10, seed=0)
    cut = carve(train, labels_of(2, 2, 2), rule, probe, 3, where="toy")
    together = np.concatenate([cut.train, cut.val, cut.probe])
    assert sorted(together.tolist()) == list(range(80))
    assert len(cut.probe) == 10
    # One class may give one image more to the probe than it was asked for: it must have it.
    rule = SplitSpec(train_per_class=14, val_per_class=4, draw="in_turn")
    with pytest.raises(
        DataError, match=r"class 0: expected 22 images \(4 probe \+ 4 validation \+ 14 tr"
    ):
        carve(train, labels_of(2, 2, 2), rule, probe, 3, where="toy")


@pytest.mark.parametrize("n", [12, 13, 30])
def test_a_subset_in_turn_is_the_published_one(n: int) -> None:
    labels = labels_of(12, 9, 14)
    rng = np.random.RandomState(3)
    expected = taken(labels, n // 3, rng, set())
    found = balanced_subset(labels, n, 3, draw="in_turn")
    assert len(found) == n
    if n == 12:
        assert found.tolist() == expected
    assert set(expected) <= set(found.tolist())
