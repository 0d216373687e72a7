"""The catalogue is complete, pinned, and opens through the Hub as an ordinary dataset would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from clipdrift.data import builtin
from clipdrift.data.catalogue import Entry, catalogue
from clipdrift.data.prompts import class_prompts
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import TargetSpec, TransferSpec

CLASSES = {
    "eurosat": 10,
    "pets": 37,
    "cifar100": 100,
    "cifar10": 10,
    "flowers102": 102,
    "dtd": 47,
    "food101": 101,
    "caltech101": 102,
    "stl10": 10,
    "svhn": 10,
    "gtsrb": 43,
    "resisc45": 45,
    "sun397": 397,
    "aircraft": 100,
    "cars": 196,
}
ENSEMBLES = {"cifar100": 18, "caltech101": 34, "dtd": 8, "resisc45": 18, "cars": 8, "eurosat": 3}
CORRUPTED = (
    "contrast",
    "gaussian_noise",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "spatter",
)


def test_every_dataset_is_there_with_its_classes() -> None:
    counts = {name: entry.n_classes for name, entry in catalogue().items()}
    corrupted = {f"eurosat-{split.replace('_', '-')}": 10 for split in CORRUPTED}
    assert counts == CLASSES | corrupted


def test_prompts_can_be_written_for_every_entry() -> None:
    for entry in catalogue().values():
        names = entry.class_names or ["one", "two"]
        prompts = class_prompts(names, entry.templates)
        assert {len(row) for row in prompts} == {len(entry.templates)}
        assert len(set(entry.templates)) == len(entry.templates)
    for name, count in ENSEMBLES.items():
        assert len(catalogue()[name].templates) == count


def test_class_names_are_readable_and_in_label_order() -> None:
    assert catalogue()["eurosat"].class_names[0] == "annual crop land"
    assert catalogue()["pets"].class_names[:2] == ["abyssinian", "american bulldog"]
    for name in ("pets", "cifar100", "cifar10", "dtd", "stl10", "resisc45", "svhn"):
        names = catalogue()[name].class_names
        assert names == sorted(names), name
    for entry in catalogue().values():
        assert not any("_" in name for name in entry.class_names or [])


def test_edited_class_names_are_noticed() -> None:
    content = catalogue()["pets"].model_dump()
    content["class_names"][0], content["class_names"][1] = content["class_names"][1::-1]
    with pytest.raises(ValidationError, match="not those that were pinned"):
        Entry.model_validate(content)


def test_every_name_is_offered() -> None:
    assert set(CLASSES) < set(builtin.known_names())
    with pytest.raises(DataError, match="Did you mean 'cifar100'"):
        open_dataset(TransferSpec(name="x", builtin="CIFAR-100"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands for the Hub: ten classes a split under the pinned names; notes what is asked for."""
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(path: str, config: str | None, *, split: str, revision: str | None) -> Any:
        asked.append((path, config, split, revision))
        entry = next(entry for entry in catalogue().values() if entry.hub == path)
        names = [name.replace(" ", "_") for name in entry.class_names][:10]
        features = {
            entry.image_column: datasets.Image(),
            entry.label_column: datasets.ClassLabel(names=names),
        }
        rows = {
            entry.image_column: [Image.new("RGB", (30, 30)) for _ in names],
            entry.label_column: list(range(len(names))),
        }
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_target_opens_both_parts_at_the_revision_asked_for(hub: list[tuple[Any, ...]]) -> None:
    spec = TargetSpec(name="land", builtin="eurosat", revision="abc")
    parts = open_dataset(spec).parts
    assert hub == [
        ("tanganke/eurosat", None, "train", "abc"),
        ("tanganke/eurosat", None, "test", "abc"),
    ]
    assert parts["test"].class_names == tuple(catalogue()["eurosat"].class_names)


def test_a_corrupted_test_split_opens_alone(hub: list[tuple[Any, ...]]) -> None:
    parts = open_dataset(TransferSpec(name="worse", builtin="eurosat-gaussian-noise")).parts
    assert hub == [("tanganke/eurosat", None, "gaussian_noise", None)]
    assert list(parts) == ["test"]


def test_the_configuration_goes_to_the_hub(hub: list[tuple[Any, ...]]) -> None:
    open_dataset(TransferSpec(name="digits", builtin="svhn"))
    assert hub == [("ufldl-stanford/svhn", "cropped_digits", "test", None)]


def test_class_names_of_the_study_win(hub: list[tuple[Any, ...]]) -> None:
    names = [f"kind {letter}" for letter in "abcdefghij"]
    part = open_dataset(TransferSpec(name="x", builtin="eurosat", class_names=names)).parts["test"]
    assert part.class_names == tuple(names)


def test_other_classes_than_the_catalogue_knows_are_a_fault(hub: list[tuple[Any, ...]]) -> None:
    with pytest.raises(DataError, match=r"expected 10 names, one per class, got 37"):
        open_dataset(TransferSpec(name="x", builtin="pets"))
    names = [f"kind {letter}" for letter in "abcdefghij"]
    with pytest.raises(DataError, match=r"expected 37 classes in timm/oxford-iiit-pet, got 10"):
        open_dataset(TransferSpec(name="x", builtin="pets", class_names=names))
