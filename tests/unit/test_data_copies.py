"""Copies of a picture: found where they are, not where pictures are merely alike."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from clipdrift.cli.checked import lines_of
from clipdrift.commands.measuring import check
from clipdrift.data.digits import load_digits_split
from clipdrift.data.fingerprints import fingerprint, same_pictures
from clipdrift.materials import Materials, load_materials
from clipdrift.run.conditions import copied_images, data_warnings
from clipdrift.spec import StudySpec, expand
from clipdrift.spec.audit import copies_rows
from tests.small_study import study

Pixels = NDArray[np.uint8]


def picture(seed: int, size: int = 96) -> Pixels:
    """Blurred noise: as smooth as a photograph, and like no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def as_jpeg(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


def smaller_and_back(pixels: Pixels) -> Pixels:
    half = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    return np.asarray(half.resize((96, 96), Image.Resampling.BICUBIC))


def brighter(pixels: Pixels) -> Pixels:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(1.05))


def same(pictures: list[Pixels]) -> list[int]:
    return same_pictures(np.stack([*map(fingerprint, pictures)]), pictures.__getitem__).tolist()


def test_the_third_number_is_the_phash_of_scipys_transform() -> None:
    for seed in range(20):
        grey = Image.fromarray(picture(seed)).convert("L").resize((32, 32), Image.Resampling.BOX)
        lowest = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:8, :8]
        bits = "".join("01"[int(value > np.median(lowest))] for value in lowest.ravel())
        found = int(fingerprint(picture(seed))[2])
        assert (found ^ int(bits, 2)).bit_count() <= 1  # two values may tie in 32 bits


@pytest.mark.parametrize("made", [np.copy, as_jpeg, smaller_and_back, brighter])
def test_a_copy_is_found_among_other_pictures(made: Callable[[Pixels], Pixels]) -> None:
    originals = [picture(seed) for seed in range(40)]
    copies = [made(pixels) for pixels in originals[:10]]
    assert same(originals + copies) == [*range(40), *range(10)]


def test_pictures_that_are_merely_alike_are_no_copies() -> None:
    """Drawn digits, flat fields with a little noise, and one scene with something else in it."""
    digits = list(load_digits_split("train")[0])
    rng = np.random.default_rng(0)
    flat = [(120 + rng.normal(0, 1, (96, 96, 3))).astype(np.uint8) for _ in range(50)]
    scene = picture(1)
    other = scene.copy()
    other[30:60, 30:60] = picture(2)[30:60, 30:60]
    for pictures in (digits, flat, [scene, other]):
        assert same(pictures) == list(range(len(pictures)))


def save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """Two classes of 20 pictures, each of them twice: as it is, and as it came out of a JPEG."""
    for number in range(40):
        folder = tmp_path / "twice" / ("cat" if number % 2 else "dog")
        save(picture(number), folder / f"{number:02}.png")
        save(as_jpeg(picture(number)), folder / f"{number:02}-again.png")
    return tmp_path / "twice"


def small(folder: Path, **changes: object) -> StudySpec:
    target = {"name": "toy", "folder": str(folder)}
    return study(targets=[target], methods=["full_ft"], **changes)


def ready(spec: StudySpec, tmp_path: Path) -> Materials:
    return load_materials(spec, cache_dir=tmp_path / "cache")


def stems(materials: Materials, name: str) -> list[str]:
    """The pictures of a set, without what tells two copies apart."""
    images = materials.targets["toy"].sets[name]
    return [Path(images.names[place]).stem.removesuffix("-again") for place in images.index]


def test_copies_between_sets_are_counted_and_named_in_every_record(
    twice: Path, tmp_path: Path
) -> None:
    spec = small(twice)
    materials = ready(spec, tmp_path)
    told = copied_images(expand(spec, precision="float32")[0], materials)
    for one, other in (("val", "train"), ("probe", "train"), ("test", "train"), ("test", "val")):
        both = [stem for stem in stems(materials, one) if stem in stems(materials, other)]
        start = f"{len(both)} of {len(stems(materials, one))} {one} images are copies of {other} "
        line = next(iter(text for text in told if text.startswith(start)), "")
        assert bool(line) == bool(both), (start, told)
        assert not both or f"images (0 equal, {len(both)} nearly: " in line
    first = stems(materials, "test")[0]
    assert f"{first}-again.png = " in str(told) or f"{first}.png = " in str(told)


def test_copies_stay_together_where_they_are_asked_to(twice: Path, tmp_path: Path) -> None:
    materials = ready(small(twice, splits={"group_by": "duplicates"}), tmp_path)
    sets = {name: stems(materials, name) for name in ("train", "val", "probe", "test")}
    assert sorted(itertools.chain(*sets.values())) == sorted(2 * [f"{n:02}" for n in range(40)])
    pictures = {name: set(found) for name, found in sets.items()}
    assert all(len(found) == 2 * len(pictures[name]) for name, found in sets.items())
    assert len(set.union(*pictures.values())) == sum(map(len, pictures.values()))
    assert len(pictures["test"]) == 8  # a fifth of the pictures of each class
    assert materials.shared_images["toy"].copies == []


def test_without_copies_sets_are_what_they_are_without_grouping(tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "once" / ("cat" if number % 2 else "dog")
        save(picture(number), folder / f"{number:02}.png")
    plain = ready(small(tmp_path / "once"), tmp_path)
    grouped = ready(small(tmp_path / "once", splits={"group_by": "duplicates"}), tmp_path)
    for name, images in plain.targets["toy"].sets.items():
        assert grouped.targets["toy"].sets[name].sha256() == images.sha256()


def test_copies_of_parts_for_testing_and_validation_leave_the_training_part(
    twice: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    (parts / "test").mkdir(parents=True)
    twice.rename(parts / "train")
    for part, chosen in (("test", slice(4)), ("val", slice(0, 3))):
        for name in ("cat", "dog"):
            (parts / part / name).mkdir(parents=True, exist_ok=True)
            for file in sorted((parts / "train" / name).glob("*-again.png"))[chosen]:
                file.rename(parts / part / name / file.name)
    again = parts / "test" / "cat" / "01-again.png"  # validates no more, as it is tested on
    (parts / "val" / "cat" / "copy-of-a-test-image.png").write_bytes(again.read_bytes())
    for grouped, n_val in ((None, 7), ("duplicates", 6)):
        materials = ready(small(parts, splits={"group_by": grouped}), tmp_path)
        assert (len(stems(materials, "test")), len(stems(materials, "val"))) == (8, n_val)
        trained = [stem for name in ("train", "probe") for stem in stems(materials, name)]
        held = {stem for name in ("test", "val") for stem in stems(materials, name)}
        assert len(trained) == (52 if grouped else 66)
        assert bool(held & set(trained)) == (grouped is None)
        assert bool(materials.shared_images["toy"].copies) == (grouped is None)
    carved = ready(small(parts, splits={"val_per_class": 2}), tmp_path).targets["toy"]
    assert {Path(name).parts[0] for name in np.array(carved.val.names)[carved.val.index]} == {
        "train"
    }


def test_copies_in_a_transfer_set_and_in_two_classes_are_named(twice: Path, tmp_path: Path) -> None:
    for number in (3, 5):
        save(picture(number), tmp_path / "other" / "bird" / f"{number}.png")
        save(picture(100 + number), tmp_path / "other" / "fish" / f"{number}.png")
    save(picture(3), twice / "dog" / "wrong.png")
    spec = small(twice, transfers=[{"name": "other", "folder": str(tmp_path / "other")}])
    materials = ready(spec, tmp_path)
    trained = set(stems(materials, "train"))
    found = {copies.of: copies for copies in materials.shared_images["toy"].copies}
    n_copied = len(trained & {"03", "05"})
    assert n_copied
    assert found["other (transfer)"].equal + found["other (transfer)"].near == n_copied
    (told,) = data_warnings(expand(spec, precision="float32")[0], materials)
    assert told.startswith("toy: 1 images stand under two classes (")
    assert "wrong.png as dog" in told
    assert "03.png as cat" in told


def test_check_and_plan_tell_of_copies_and_which_files_a_label_has(
    twice: Path, tmp_path: Path
) -> None:
    spec = small(twice)
    materials = ready(spec, tmp_path)
    found = check(spec, cache_dir=tmp_path / "cache")
    lines = list(lines_of(found))
    told = [str(copies) for copies in materials.shared_images["toy"].copies]
    assert told
    assert [f"warning: target toy: {text}" for text in told] == [
        line for line in lines if " are copies of " in line
    ]
    assert any("group_by: duplicates" in line for line in lines)
    cats, dogs = found["targets"]["toy"]["labels"]
    assert (cats["label"], cats["name"], cats["prompt"]) == (0, "cat", "a photo of a cat")
    assert len(cats["files"]) == len(dogs["files"]) == 3
    assert {Path(file).parent.name for file in dogs["files"]} == {"dog"}
    assert f"    1  dog: {', '.join(dogs['files'])}" in lines
    (row,) = copies_rows({"toy": told})
    assert row.status == "leak"
    assert told[0] in row.value
    assert [copies_rows(known)[0].value for known in ({"toy": []}, None)] == [
        "none",
        "not looked for",
    ]
