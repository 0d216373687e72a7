"""The procedural sets: determinism, shapes, and pixels against independent computations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from clipdrift.data.digits import DIGITS_CLASSES, load_digits_split
from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES, render_land_cover
from clipdrift.data.drawn.shapes import SHAPES
from clipdrift.data.drawn.textures import TEXTURES, pixel_grid
from clipdrift.data.drawn.world import (
    COLOURS,
    WORLD_CLASSES,
    render_world,
    world_captions,
    world_textures,
)
from clipdrift.errors import DataError

Render = Callable[..., NDArray[np.uint8]]
SETS = [
    pytest.param(render_world, len(WORLD_CLASSES), id="world"),
    pytest.param(render_land_cover, len(LAND_COVER_CLASSES), id="land-cover"),
]


@pytest.mark.parametrize(("render", "n_classes"), SETS)
class TestBothSets:
    def test_shape_and_dtype(self, render: Render, n_classes: int) -> None:
        images = render(np.arange(300) % n_classes, seed=0)
        assert images.shape == (300, 28, 28, 3)
        assert images.dtype == np.uint8
        assert render(np.arange(3), seed=0, size=40).shape == (3, 40, 40, 3)

    def test_no_labels_give_no_images(self, render: Render, n_classes: int) -> None:
        assert render(np.empty(0, dtype=np.int64), seed=0).shape == (0, 28, 28, 3)

    def test_same_arguments_same_bytes(self, render: Render, n_classes: int) -> None:
        labels = np.arange(300) % n_classes
        np.testing.assert_array_equal(render(labels, seed=4), render(labels, seed=4))

    def test_seeds_blocks_and_images_differ(self, render: Render, n_classes: int) -> None:
        labels = np.zeros(512, dtype=np.int64)
        images = render(labels, seed=1)
        assert (images != render(labels, seed=2)).any(axis=(1, 2, 3)).all()
        assert (images[:256] != images[256:]).any(axis=(1, 2, 3)).all()
        assert len(np.unique(images.reshape(512, -1), axis=0)) == 512

    @pytest.mark.parametrize("bad", [[-1], [1000], [[0]]])
    def test_bad_labels_are_named(self, render: Render, n_classes: int, bad: object) -> None:
        with pytest.raises(
            DataError, match=rf"labels: expected one dimension .*0..{n_classes - 1}"
        ):
            render(np.array(bad), seed=0)

    def test_too_small_is_refused(self, render: Render, n_classes: int) -> None:
        with pytest.raises(DataError, match="size: expected at least 8 pixels, got 7"):
            render(np.array([0]), seed=0, size=7)


def test_classes_are_distinct_and_in_label_order() -> None:
    assert len(set(WORLD_CLASSES)) == len(WORLD_CLASSES) == 100
    assert len(set(LAND_COVER_CLASSES)) == len(LAND_COVER_CLASSES) == 10
    assert WORLD_CLASSES[0] == "red circle"
    assert [name.split()[0] for name in WORLD_CLASSES[::10]] == list(COLOURS)
    assert [name.split()[1] for name in WORLD_CLASSES[:10]] == list(SHAPES)


def test_a_world_image_does_not_depend_on_its_neighbours() -> None:
    labels = np.random.default_rng(0).integers(100, size=300)
    images = render_world(labels, seed=3)
    np.testing.assert_array_equal(render_world(labels[:7], seed=3), images[:7])
    changed = labels.copy()
    changed[:250] = (changed[:250] + 37) % 100
    np.testing.assert_array_equal(render_world(changed, seed=3)[250:], images[250:])


def test_captions_name_the_class_and_the_true_background() -> None:
    labels = np.arange(300, dtype=np.int64) % 100
    captions = world_captions(labels, seed=5)
    textures = world_textures(300, seed=5)
    assert all(WORLD_CLASSES[k] in text for k, text in zip(labels, captions, strict=True))
    for text, texture in zip(captions, textures, strict=True):
        named = [word for word in TEXTURES if word in text.split()]
        assert named in ([], [texture])
    assert any(text.startswith("a photo of a ") for text in captions)
    assert captions == world_captions(labels, seed=5)
    assert captions != world_captions(labels, seed=6)


def test_a_shape_shows_its_colour() -> None:
    """Over many backgrounds the middle of a circle is close to the palette, noise aside."""
    for index, colour in enumerate(COLOURS.values()):
        circle = WORLD_CLASSES.index("red circle") + 10 * index
        images = render_world(np.full(256, circle), seed=8).astype(np.float64) / 255
        distance = np.abs(images - np.array(colour)).sum(axis=3)
        # The exposure (0.78 to 1.12) and the colour jitter move a channel by at most about 0.3.
        share = (distance < 0.45).mean(axis=(1, 2))
        assert np.median(share) > 0.08, colour


def test_shapes_cover_what_geometry_says() -> None:
    """Areas of the fields' insides against closed forms, in units of radius squared."""
    x, y = pixel_grid(1200)
    u, v = np.broadcast_to(x * 1.2, (1, 1200, 1200)), np.broadcast_to(y * 1.2, (1, 1200, 1200))
    area = {name: (field(u, v) < 0).mean() * 2.4**2 for name, field in SHAPES.items()}
    expected = {
        "circle": np.pi * 0.88**2,
        "square": (2 * 0.78) ** 2,
        "triangle": 3 * np.sqrt(3) * 0.55**2,
        "star": 10 * 0.5 * 1.1 * 0.46 * np.sin(np.pi / 5),
        "cross": 2 * 1.9 * 0.6 - 0.6**2,
        "ring": np.pi * (0.96**2 - 0.48**2),
        "heart": 1.04**2 + np.pi * 0.52**2,
        "oval": np.pi / 2.1,
    }
    for name, value in expected.items():
        assert area[name] == pytest.approx(value, rel=5e-3), name  # counted on 1,200 x 1,200 cells


def test_land_cover_classes_differ_in_more_than_their_mean() -> None:
    """A nearest-centroid rule on pixels is far from solving the set; chance is 0.1."""
    labels = np.arange(1000) % 10
    train = render_land_cover(labels, seed=1).reshape(1000, -1).astype(np.float64)
    test = render_land_cover(labels, seed=2).reshape(1000, -1).astype(np.float64)
    centroids = np.stack([train[labels == k].mean(axis=0) for k in range(10)])
    nearest = ((test[:, None] - centroids[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.15 < (nearest == labels).mean() < 0.7


def test_digits_are_scikit_learns_own_array_enlarged() -> None:
    """Against PyTorch's bilinear enlargement of the raw 8x8 array."""
    import torch
    from sklearn.datasets import load_digits

    raw = load_digits()
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(raw.images)[:, None] / 16, size=(28, 28), mode="bilinear"
    )[:, 0]
    expected = (enlarged * 255).numpy()[..., None]
    found: list[int] = []
    for split in ("train", "test"):
        position = 0  # both parts keep the raw order, so one walk through it finds every image
        for image, label in zip(*load_digits_split(split), strict=True):
            # half a level is what rounding to uint8 may do
            while np.abs(expected[position] - image).max() > 0.5 + 1e-9:
                position += 1
            assert raw.target[position] == label
            found.append(position)
            position += 1
    assert sorted(found) == list(range(1797))


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    train, train_labels = load_digits_split("train")
    test, test_labels = load_digits_split("test")
    assert np.bincount(test_labels).tolist() == [60] * len(DIGITS_CLASSES)
    assert train.shape == (1197, 28, 28, 3)
    assert train.dtype == test.dtype == np.uint8
    assert not {i.tobytes() for i in train} & {i.tobytes() for i in test}
    again, again_labels = load_digits_split("test")
    np.testing.assert_array_equal(again, test)
    np.testing.assert_array_equal(again_labels, test_labels)
    assert train_labels.dtype == np.int64


def test_unknown_digits_split_is_named() -> None:
    with pytest.raises(DataError, match="split: expected train or test, got 'val'"):
        load_digits_split("val")  # type: ignore[arg-type]
