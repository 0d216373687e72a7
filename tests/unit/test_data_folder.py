"""Class folders: what is read, what is left aside, and what is refused."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from clipdrift.data import decode, folder
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import DatasetSpec, TargetSpec, TransferSpec


def fill(root: Path, **counts: int) -> Path:
    """Class folders with so many images; the grey level of image i is i."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (30, 30), (i, i, i)).save(root / name / f"{i:03}.png")
    return root


def faults_of(root: Path, **options: object) -> list[str]:
    with pytest.raises(DataError) as raised:
        open_dataset(DatasetSpec(name="toy", folder=str(root), **options))
    return str(raised.value).splitlines()


def test_train_and_test_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path / "train", river=3, annual_crop=2)
    fill(tmp_path / "test", annual_crop=1, river=2)
    parts = open_dataset(TargetSpec(name="toy", folder=str(tmp_path))).parts
    assert parts["train"].class_names == parts["test"].class_names == ("annual_crop", "river")
    assert parts["train"].labels.tolist() == [0, 0, 1, 1, 1]
    assert parts["test"].labels.tolist() == [0, 1, 1]
    assert list(parts["test"].names) == [
        os.path.join("test", "annual_crop", "000.png"),
        os.path.join("test", "river", "000.png"),
        os.path.join("test", "river", "001.png"),
    ]
    assert np.asarray(parts["train"].load(4))[0, 0].tolist() == [2, 2, 2]


def test_a_test_part_is_carved_once_and_for_all(tmp_path: Path) -> None:
    fill(tmp_path, cat=20, dog=10, owl=2)
    spec = TargetSpec(name="toy", folder=str(tmp_path), test_fraction=0.3)
    parts = open_dataset(spec).parts
    assert np.bincount(parts["test"].labels).tolist() == [6, 3, 1]
    assert np.bincount(parts["train"].labels).tolist() == [14, 7, 1]
    assert not set(parts["train"].names) & set(parts["test"].names)
    assert len(set(parts["train"].names) | set(parts["test"].names)) == 32
    assert list(open_dataset(spec).parts["test"].names) == list(parts["test"].names)
    level = int(parts["test"].names[2].split(os.sep)[-1][:3])
    assert np.asarray(parts["test"].load(2))[0, 0, 0] == level


def test_a_folder_with_train_alone_is_carved_too(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=10, dog=10)
    parts = open_dataset(TargetSpec(name="toy", folder=str(tmp_path))).parts
    assert np.bincount(parts["test"].labels).tolist() == [2, 2]


def test_a_transfer_dataset_without_a_test_part_is_used_whole(tmp_path: Path) -> None:
    fill(tmp_path, cat=3, dog=4)
    parts = open_dataset(TransferSpec(name="toy", folder=str(tmp_path))).parts
    assert list(parts) == ["test"]
    assert parts["test"].labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_a_target_with_a_test_part_alone_is_a_fault(tmp_path: Path) -> None:
    fill(tmp_path / "test", cat=3, dog=4)
    with pytest.raises(DataError, match="a target with a training part, got only a test part"):
        open_dataset(TargetSpec(name="toy", folder=str(tmp_path)))


def test_a_class_too_small_to_carve_from_is_named(tmp_path: Path) -> None:
    fill(tmp_path, cat=5, dog=1, elk=1, fox=1, owl=1)
    lines = faults_of(tmp_path)
    assert lines[0] == (
        "toy, dog: expected at least 2 images to carve a test part from, got 1. Add images, give a "
        "test part, or remove the class."
    )
    assert "toy, fox: " in lines[2]
    assert "got 1 (and 1 more: toy, owl)." in lines[2]


def test_hidden_files_are_ignored_and_foreign_ones_counted(tmp_path: Path) -> None:
    fill(tmp_path, cat=3, dog=3)
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "dog" / "UPPER.JPG").write_bytes((tmp_path / "dog" / "000.png").read_bytes())
    opened = open_dataset(TransferSpec(name="toy", folder=str(tmp_path)))
    assert opened.notes == ("toy: 2 files are left out (1 .csv, 1 .txt)",)
    assert len(opened.parts["test"]) == 7


def test_photographs_that_cannot_be_read_here_are_counted_with_what_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "suffixes", lambda: decode.SUFFIXES)
    fill(tmp_path, cat=3, dog=3)
    for name in ("a.heic", "b.HEIC", "c.heif", "d.avif"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "dog" / "README").write_text("x")
    opened = open_dataset(TransferSpec(name="toy", folder=str(tmp_path)))
    assert opened.notes == (
        (
            "toy: 5 files are left out (2 .heic, 1 without a suffix, 1 .avif, 1 .heif); images "
            "among them are read with Pillow 11.3 or newer and pillow-heif installed"
        ),
    )
    for file in (tmp_path / "cat").glob("*.png"):
        file.unlink()
    (told,) = faults_of(tmp_path)
    assert "got none in cat (2 .heic, 1 .avif, 1 .heif). Install Pillow 11.3 or newer" in told


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    fill(tmp_path, bus=3, train=4, test=2)
    opened = open_dataset(TransferSpec(name="toy", folder=str(tmp_path)))
    assert opened.notes == ()
    assert opened.parts["test"].class_names == ("bus", "test", "train")
    assert np.bincount(opened.parts["test"].labels).tolist() == [3, 2, 4]


@pytest.mark.parametrize("parts", [[""], ["train", "test"]])
def test_classes_to_skip_are_never_looked_into(tmp_path: Path, parts: list[str]) -> None:
    for part in parts:
        fill(tmp_path / part, cat=3, dog=4, owl=2)
        (tmp_path / part / "unsorted" / "more").mkdir(parents=True)
    found = open_dataset(
        DatasetSpec(name="toy", folder=str(tmp_path), skip_classes=["unsorted", "dog"])
    ).parts["train"]
    assert found.class_names == ("cat", "owl")
    assert not {name for name in found.names if "dog" in name}
    for form in ("NFC", "NFD"):  # a Mac writes names otherwise than a keyboard
        spelt = unicodedata.normalize(form, "\u00e9t\u00e9")
        (tmp_path / parts[0] / unicodedata.normalize("NFD", spelt)).mkdir(exist_ok=True)
        names = ["unsorted", "dog", spelt]
        assert open_dataset(DatasetSpec(name="toy", folder=str(tmp_path), skip_classes=names))
    (tmp_path / parts[0] / unicodedata.normalize("NFD", "\u00e9t\u00e9")).rmdir()
    assert faults_of(tmp_path, skip_classes=["unsorted", "dogs"]) == [
        "toy.skip_classes: expected names of class folders, got 'dogs'. Did you mean 'dog'?"
    ]


def test_other_folders_beside_train_and_test_are_told(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / part, cat=2, dog=2)
    fill(tmp_path / "other", cat=2)
    opened = open_dataset(TransferSpec(name="toy", folder=str(tmp_path)))
    assert opened.notes == ("toy.folder: other/ beside train/ and test/ is not read",)
    assert list(opened.parts) == ["test"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_part_for_validation_is_read_where_splits_do_not_carve_one(
    tmp_path: Path, name: str
) -> None:
    for part, count in (("train", 4), (name, 2), ("test", 3)):
        fill(tmp_path / part, cat=count, dog=count)
    spec = TargetSpec(name="toy", folder=str(tmp_path))
    opened = open_dataset(spec)
    assert {part: len(images) for part, images in opened.parts.items()} == {
        "train": 8,
        "val": 4,
        "test": 6,
    }
    assert opened.notes == ("toy: its validation part is the validation set",)
    left = open_dataset(spec, validation=False)
    assert list(left.parts) == ["train", "test"]
    assert "is not read" in left.notes[0]
    fill(tmp_path / "train", owl=1)
    fill(tmp_path / "test", owl=1)
    (told,) = faults_of(tmp_path)
    assert "expected the same classes in train and val, got 'owl' only in train" in told


def test_val_instead_of_test_is_a_fault(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "val", cat=2, dog=2)
    assert faults_of(tmp_path) == [
        (
            "toy.folder: expected train/ and test/, or class folders, got train, val. Rename the "
            "part you want to test on to test, or move the class folders into train."
        )
    ]


def test_a_file_or_nothing_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_text("x")
    for name, got in (
        ("images.zip", f"the file {tmp_path / 'images.zip'}"),
        ("gone", f"{tmp_path / 'gone'}, which does not exist"),
    ):
        assert faults_of(tmp_path / name) == [
            (
                f"toy.folder: expected a folder of class folders, got {got}. "
                "Give the folder, or use files: for a CSV or Parquet file."
            )
        ]


def test_an_empty_folder_and_a_single_class(tmp_path: Path) -> None:
    advice = "Put the images of each class into a folder with its name."
    assert faults_of(tmp_path) == [
        f"toy.folder: expected two or more class folders, got 0 in {tmp_path}. {advice}"
    ]
    fill(tmp_path, cat=2)
    assert faults_of(tmp_path) == [
        f"toy.folder: expected two or more class folders, got 1 in {tmp_path}. {advice}"
    ]


def test_a_nested_mess_is_told_in_full(tmp_path: Path) -> None:
    fill(tmp_path, cat=2, dog=0)
    fill(tmp_path / "owl", young=1, old=1)
    Image.new("RGB", (9, 9)).save(tmp_path / "loose.png")
    lines = faults_of(tmp_path)
    assert len(lines) == 3
    assert lines[0].startswith("toy.folder: expected images in every class folder, got none in dog")
    assert lines[2] == (
        "toy.folder: expected class folders, got the image loose.png outside of them. "
        "Move or remove it."
    )
    assert lines[1] == (
        "toy.folder: expected class folders that hold images only, got folders in owl: old, young. "
        "Name the folder whose sub-folders are the classes, or name it under skip_classes."
    )


def test_links_are_followed_inside_and_refused_outside(tmp_path: Path) -> None:
    inside, outside = fill(tmp_path / "in", cat=2, dog=2), fill(tmp_path / "out", owl=1)
    (inside / "cat" / "again.png").symlink_to(inside / "cat" / "000.png")
    parts = open_dataset(TransferSpec(name="toy", folder=str(inside))).parts
    assert parts["test"].labels.tolist() == [0, 0, 0, 1, 1]
    (inside / "cat" / "secret.png").symlink_to(outside / "owl" / "000.png")
    (inside / "owl").symlink_to(outside / "owl")
    assert faults_of(inside) == [
        f"toy.folder: expected links that stay inside the folder, got {name}. Copy it."
        for name in (os.path.join("cat", "secret.png"), "owl")
    ]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path, part: str) -> None:
    for name in ("train", "test"):
        fill(tmp_path / "set" / name, cat=2, dog=2)
    (tmp_path / "set" / part).rename(tmp_path / "elsewhere")
    (tmp_path / "set" / part).symlink_to(tmp_path / "elsewhere")
    assert faults_of(tmp_path / "set") == [
        f"toy.folder: expected links that stay inside the folder, got {part}. Copy it."
    ]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", cat=2, dog=2)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(open_dataset(TransferSpec(name="toy", folder=str(tmp_path / "link"))).parts["test"])


def test_classes_that_differ_between_train_and_test_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=2, owl=2)
    fill(tmp_path / "test", cat=2, dog=2, yak=2)
    assert faults_of(tmp_path) == [
        f"toy: expected the same classes in train and test, got '{name}' only in {part}. "
        "Add images to the other part, or remove these."
        for name, part in (("owl", "train"), ("yak", "test"))
    ]


def classes(folder: Path, names: object) -> tuple[tuple[str, ...], list[int]]:
    spec = TransferSpec(name="toy", folder=str(folder), class_names=names)
    part = open_dataset(spec).parts["test"]
    return part.class_names, part.labels.tolist()


def test_given_class_names_reorder_by_name_or_rename_by_a_mapping(tmp_path: Path) -> None:
    fill(tmp_path, annual_crop=1, sea=2)
    assert classes(tmp_path, ["Sea", "Annual Crop"]) == (("Sea", "Annual Crop"), [1, 0, 0])
    named = {"Annual crop": "crop land", "sea": "sea or lake"}
    assert classes(tmp_path, named) == (("crop land", "sea or lake"), [0, 1, 1])
    named = {"sea": "sea or lake", "annual_crop": "crop land"}
    assert classes(tmp_path, named) == (("sea or lake", "crop land"), [1, 0, 0])


def test_names_that_could_only_be_matched_by_their_order_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, bg=1, cr=2)
    assert faults_of(tmp_path, class_names=["crack", "background"]) == [
        (
            "toy.class_names: expected the names that the data has (bg, cr), in any order, got "
            "crack, background, which could only be matched by their order. Say which is which, "
            "for example class_names: {bg: crack, cr: background}."
        )
    ]
    assert faults_of(tmp_path, class_names={"bg": "a", "crack": "b"}) == [
        (
            "toy.class_names: expected each of the 2 names that the data has, once, got 1 missing "
            "('cr') and 1 unknown ('crack'). The data has: 'bg', 'cr'."
        )
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["A", "B", "a", "b"],
        ["b", "B", "a", "A"],
        ["C", "C++", "C#"],
        ["c#", "c", "c++"],
        ["v1.0", "v10"],
        ["V10", "V1.0"],
        ["B\u00e4r", "L\u00f6we", "Gnu"],
        ["L\u00f6we", "Gnu", "B\u00e4r"],
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_equal_to_the_folders_keep_every_class_apart(
    tmp_path: Path, names: list[str], form: Literal["NFC", "NFD"]
) -> None:
    """The grey level of an image says which folder it came from."""
    folders = sorted(names) if names[0].isupper() else sorted(names, key=str.casefold)
    upper = {"c": "C", "c++": "C++", "c#": "C#", "V10": "v10", "V1.0": "v1.0"}
    for i, name in enumerate(folders):
        written = unicodedata.normalize(form, upper.get(name, name))
        (tmp_path / written).mkdir()
        Image.new("RGB", (30, 30), (i, i, i)).save(tmp_path / written / "x.png")
    part = open_dataset(TransferSpec(name="t", folder=str(tmp_path), class_names=names)).parts[
        "test"
    ]
    assert part.class_names == tuple(names)
    for position, label in enumerate(part.labels):
        level = int(np.asarray(part.load(position))[0, 0, 0])
        assert names[label] == folders[level]
    own = open_dataset(TransferSpec(name="t", folder=str(tmp_path))).parts["test"]
    assert set(own.class_names) == {upper.get(name, name) for name in names}


def test_two_folders_of_one_name_in_two_spellings_are_shown_by_code_point(tmp_path: Path) -> None:
    for name in ("B\u00e4r", "Ba\u0308r"):
        fill(tmp_path, **{name: 2})
    assert faults_of(tmp_path) == [
        (
            "toy: expected class names that differ when they are read, got 'Ba\\u0308r', "
            "'B\\xe4r', one name in two spellings of Unicode. Give both classes one name, or merge "
            "their images."
        )
    ]


def test_given_class_names_that_would_swap_labels_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, annual_crop=2, sea=2)
    assert faults_of(tmp_path, class_names=["lake", "Annual crop"]) == [
        (
            "toy.class_names: expected names in label order, where 'sea' is label 1, got "
            "'Annual crop', the name of label 0. The data has, in label order: annual_crop, sea."
        )
    ]
    assert faults_of(tmp_path, class_names=["a", "b", "c"]) == [
        (
            "toy.class_names: expected 2 names, one per class, got 3. "
            "The data has, in label order: annual_crop, sea."
        )
    ]


def test_numbered_folders_need_names_and_are_sorted_as_numbers(tmp_path: Path) -> None:
    fill(tmp_path, **{"1": 1, "10": 2, "2": 3})
    assert faults_of(tmp_path) == [
        (
            "toy: expected class names that can be written into a prompt, got only numbers: 1, 2, "
            "10. Give class_names: [...] in the order of these numbers."
        )
    ]
    spec = TransferSpec(name="toy", folder=str(tmp_path), class_names=["one", "two", "ten"])
    assert np.bincount(open_dataset(spec).parts["test"].labels).tolist() == [1, 3, 2]
