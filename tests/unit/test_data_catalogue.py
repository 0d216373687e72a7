"""The catalogue is complete, pinned, and opens through the Hub as an ordinary dataset would."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from clipdrift.data import builtin
from clipdrift.data.catalogue import Entry, catalogue, templates_of
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
    "imagenet": 1000,
}
ENSEMBLES = {
    "imagenet": 80,
    "cifar100": 18,
    "caltech101": 34,
    "dtd": 8,
    "resisc45": 18,
    "cars": 8,
    "eurosat": 3,
}
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
        prompts = class_prompts(entry.class_names, entry.templates)
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
    for name in ("sun397", "aircraft"):
        names = catalogue()[name].class_names
        assert names == sorted(names), name
    for entry in catalogue().values():
        assert not any("_" in name or name != name.strip() for name in entry.class_names)


def test_label_orders_that_are_not_alphabetical() -> None:
    food = catalogue()["food101"].class_names
    assert food[16:18] == ["cheesecake", "cheese plate"]
    assert [a for a, b in pairwise(food) if a > b] == ["cheesecake"]
    signs = catalogue()["gtsrb"].class_names
    assert signs[14] == "stop"  # class 14 of the benchmark, 20 km/h being 0
    assert [int(name.split()[4]) for name in signs[:6]] == [20, 30, 50, 60, 70, 80]
    cars = catalogue()["cars"].class_names
    assert (cars[0], cars[-1]) == ("AM General Hummer SUV 2000", "smart fortwo Convertible 2012")
    assert [cars[label].split()[0] for label in (1, 7, 25, 97, 195)] == [
        "Acura", "Aston", "BMW", "Eagle", "smart",
    ]  # fmt: skip


def test_imagenet_is_known_by_its_wordnet_ids() -> None:
    entry = catalogue()["imagenet"]
    assert entry.folder_names == sorted(entry.folder_names)
    known = dict(zip(entry.folder_names, entry.class_names, strict=True))
    assert len(known) == 1000
    assert {wordnet: known[wordnet] for wordnet in ("n01440764", "n02124075", "n15075141")} == {
        "n01440764": "tench", "n02124075": "Egyptian Mau", "n15075141": "toilet paper",
    }  # fmt: skip
    # One name for two classes is published; ours tell them apart.
    assert (known["n04355933"], known["n04356056"]) == ("sunglass", "sunglasses")
    assert (known["n03773504"], known["n04008634"]) == ("missile", "projectile")


def test_the_prompts_of_a_dataset() -> None:
    def templates(**given: Any) -> list[str]:
        return list(templates_of(TransferSpec(name="x", **given)))

    assert templates(builtin="cifar100") == ["a photo of a {}"]
    assert templates(builtin="cifar100", templates=["my {}"]) == ["my {}"]
    assert templates(builtin="cifar100", templates="single") == ["a photo of a {}."]
    assert templates(builtin="eurosat-contrast", templates="ensemble") == [
        f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")
    ]
    for elsewhere in ({"builtin": "world"}, {"folder": "photos"}):
        with pytest.raises(DataError) as raised:
            templates(**elsewhere, templates="ensemble")
        assert str(raised.value) == (
            "x.templates: expected prompts, where none were published with CLIP for this dataset, "
            "got 'ensemble'. Write templates: ['a photo of a {}'], or name a builtin of "
            "'clipdrift datasets'."
        )


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


def test_a_configuration_may_be_named_for_any_id(hub: list[tuple[Any, ...]]) -> None:
    named = {"hub": "ufldl-stanford/svhn", "hub_config": "full_numbers"}
    open_dataset(TransferSpec(name="x", **named))
    assert hub == [("ufldl-stanford/svhn", "full_numbers", "test", None)]


def test_class_names_of_the_study_win(hub: list[tuple[Any, ...]]) -> None:
    names = [f"kind {letter}" for letter in "abcdefghij"]
    part = open_dataset(TransferSpec(name="x", builtin="eurosat", class_names=names)).parts["test"]
    assert part.class_names == tuple(names)


def test_class_names_may_be_spelled_as_the_data_does(hub: list[tuple[Any, ...]]) -> None:
    part = open_dataset(TransferSpec(name="x", builtin="eurosat", spelling="data")).parts["test"]
    assert part.class_names[:3] == ("annual_crop_land", "forest", "brushland_or_shrubland")
    with pytest.raises(DataError, match=r"expected 37 classes in timm/oxford-iiit-pet, got 10"):
        open_dataset(TransferSpec(name="x", builtin="pets", spelling="data"))


def test_other_classes_than_the_catalogue_knows_are_a_fault(hub: list[tuple[Any, ...]]) -> None:
    with pytest.raises(DataError, match=r"expected 10 names, one per class, got 37"):
        open_dataset(TransferSpec(name="x", builtin="pets"))
    names = [f"kind {letter}" for letter in "abcdefghij"]
    with pytest.raises(DataError, match=r"expected 37 classes in timm/oxford-iiit-pet, got 10"):
        open_dataset(TransferSpec(name="x", builtin="pets", class_names=names))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """val/ with one image of each class, and train/ with none, which a transfer set never opens."""
    root = tmp_path_factory.mktemp("imagenet")
    (root / "train" / "n01440764").mkdir(parents=True)
    for i, name in enumerate(catalogue()["imagenet"].folder_names):
        (root / "val" / name).mkdir(parents=True)
        Image.new("RGB", (2, 2), (i % 250, 0, 0)).save(root / "val" / name / "0.png")
    return root


def own_copy(folder: Path | None, **given: Any) -> TransferSpec:
    where = {} if folder is None else {"folder": str(folder)}
    return TransferSpec(name="in", builtin="imagenet", **where, **given)


def test_imagenet_is_read_from_ones_own_folder(imagenet: Path) -> None:
    for folder in (imagenet, imagenet / "val"):
        part = open_dataset(own_copy(folder)).parts["test"]
        assert part.class_names == tuple(catalogue()["imagenet"].class_names)
        assert part.labels.tolist() == list(range(1000))
        assert part.load(7).convert("RGB").getpixel((0, 0)) == (7, 0, 0)


def test_imagenet_without_a_folder_says_how_to_name_it() -> None:
    with pytest.raises(DataError) as raised:
        open_dataset(own_copy(None))
    assert str(raised.value) == (
        "in.folder: expected your copy of ImageNet-1k (ILSVRC 2012), a folder with train/ and val/ "
        "of class folders (n01440764, n01443537, ...), got none. "
        "Write {name: in, builtin: imagenet, folder: /path/to/your/copy}."
    )


def test_a_part_of_imagenet_or_other_folders_are_refused(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537", "cats"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name / "0.png")
    with pytest.raises(DataError) as raised:
        open_dataset(own_copy(tmp_path))
    assert str(raised.value).startswith(
        "in.folder: expected the 1,000 class folders of ImageNet-1k (ILSVRC 2012) (n01440764, "
        "n01443537, ...), got 998 missing (n01484850, n01491361, n01494475, ...) and "
        "1 unknown (cats). "
    )
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(7):
        (flat / f"ILSVRC2012_val_{i}.JPEG").touch()
    with pytest.raises(DataError, match=r"got \S+_0.JPEG, .*_4.JPEG, ... \(7 images\) outside"):
        open_dataset(own_copy(flat))


def test_a_folder_beside_another_builtin_is_refused() -> None:
    for name, comes in (("pets", "comes from the Hub"), ("digits", "comes with the package")):
        with pytest.raises(DataError, match=f"expected no folder beside builtin: {name}.*{comes}"):
            open_dataset(TransferSpec(name="x", builtin=name, folder="here"))
    with pytest.raises(ValidationError, match="exactly one of builtin, folder, files, hub"):
        TransferSpec(name="x", builtin="imagenet", folder="here", hub="a/b")


def test_names_that_stand_at_other_labels_are_refused(hub: list[tuple[Any, ...]]) -> None:
    """Were the label order of the hub's data not ours, it would be told, not mistaken."""
    swapped = [*catalogue()["eurosat"].class_names]
    swapped[0], swapped[1] = swapped[1], swapped[0]
    with pytest.raises(DataError, match="where 'annual_crop_land' is label 0, got 'forest'"):
        open_dataset(TransferSpec(name="x", builtin="eurosat", class_names=swapped))
