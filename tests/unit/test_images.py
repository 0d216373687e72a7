"""A view on prepared images takes copies of the right ones and hashes what it shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from clipdrift.data.images import Images


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def view(pixels: np.ndarray) -> Images:
    index = np.array([7, 2, 2, 0, 5])
    return Images(pixels, index, np.array([3, 1, 1, 0, 2]))


def test_images_are_taken_by_their_position_in_the_view(view: Images, pixels: np.ndarray) -> None:
    assert len(view) == 5
    np.testing.assert_array_equal(view.take(np.array([4, 0])), pixels[[5, 7]])
    np.testing.assert_array_equal(view.take(slice(1, 3)), pixels[[2, 2]])
    assert view.take(slice(5, 9)).shape == (0, 4, 4, 3)


@pytest.mark.parametrize("positions", [slice(0, 5), slice(3, 4), np.array([1])], ids=str)
def test_what_is_taken_may_be_written_to(
    positions: slice | np.ndarray, view: Images, pixels: np.ndarray
) -> None:
    before = pixels.copy()
    taken = view.take(positions)
    assert taken.flags["C_CONTIGUOUS"]
    taken[:] = 0
    np.testing.assert_array_equal(pixels, before)


def test_memory_mapped_pixels_are_read_and_never_written(
    tmp_path: Path, view: Images, pixels: np.ndarray
) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    taken = Images(mapped, view.index, view.labels).take(slice(0, 5))
    np.testing.assert_array_equal(taken, pixels[view.index])
    taken[:] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), pixels)


def test_a_selection_of_a_selection_keeps_labels_with_images(
    view: Images, pixels: np.ndarray
) -> None:
    part = view.select(np.array([4, 1, 0])).select(np.array([2, 0]))
    np.testing.assert_array_equal(part.take(slice(0, 2)), pixels[[7, 5]])
    assert part.labels.tolist() == [3, 2]


def test_the_hash_is_over_labels_and_pixels_in_order(view: Images, pixels: np.ndarray) -> None:
    content = view.labels.tobytes() + pixels[view.index].tobytes()
    assert view.sha256() == hashlib.sha256(content).hexdigest()


def test_the_hash_is_of_what_is_in_view_and_not_of_how_it_lies(
    view: Images, pixels: np.ndarray
) -> None:
    packed = Images(pixels[view.index], np.arange(5), view.labels)
    assert packed.sha256() == view.sha256()
    elsewhere = pixels.copy()
    elsewhere[8] = 0
    assert Images(elsewhere, view.index, view.labels).sha256() == view.sha256()


def test_the_hash_changes_with_pixel_label_and_order(view: Images, pixels: np.ndarray) -> None:
    other = pixels.copy()
    other[5, 0, 0, 0] ^= 1
    hashes = {
        view.sha256(),
        Images(other, view.index, view.labels).sha256(),
        Images(pixels, view.index, view.labels[::-1].copy()).sha256(),
        view.select(np.array([1, 0, 2, 3, 4])).sha256(),
        view.select(np.arange(4)).sha256(),
    }
    assert len(hashes) == 5


def test_the_hash_of_many_images_does_not_depend_on_blocks() -> None:
    """More images than are hashed at a time."""
    pixels = np.random.default_rng(1).integers(0, 256, (600, 2, 2, 3), dtype=np.uint8)
    labels = np.arange(600)
    expected = hashlib.sha256(labels.tobytes() + pixels.tobytes()).hexdigest()
    assert Images(pixels, np.arange(600), labels).sha256() == expected
