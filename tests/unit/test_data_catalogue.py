"""The catalogue is complete, pinned, and opens through the Hub as an ordinary dataset would."""

from __future__ import annotations

import io
import tarfile
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
from clipdrift.errors import DataError, UnavailableError
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
    "mnist": 10,
    "emnist-letters": 26,
    "kmnist": 10,
    "fashion-mnist": 10,
    "fer2013": 7,
    "pcam": 2,
    "country211": 211,
    "rendered-sst2": 2,
    "voc2007": 20,
    "clevr-count": 8,
    "clevr-distance": 6,
    "kitti-distance": 4,
    "imagenet-v2": 1000,
    "imagenet-sketch": 1000,
    "imagenet-a": 200,
    "imagenet-o": 200,
    "imagenet-r": 200,
    "objectnet": 113,
    "camelyon17": 2,
    "fmow": 62,
}
CAPTIONED = ("flickr8k", "flickr30k", "coco")
SAVED_BYTES = {
    "fer2013": 52, "pcam": 57, "camelyon17": 57, "voc2007": 135, "kitti-distance": 155, "fmow": 871,
}  # fmt: skip
"""Size of the names beside the hub's data, one a line, as its pages tell it."""
ENSEMBLES = {
    "imagenet": 80,
    "cifar100": 18,
    "caltech101": 34,
    "dtd": 8,
    "resisc45": 18,
    "cars": 8,
    "eurosat": 3,
    "fer2013": 6,
    "country211": 5,
    "pcam": 2,
    "fmow": 14,
    "objectnet": 80,
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
    assert counts == CLASSES | corrupted | dict.fromkeys(CAPTIONED, 0)


def test_sets_of_captions_are_known_as_such() -> None:
    for name, entry in catalogue().items():
        assert (entry.caption_column is not None) == (name in CAPTIONED)
        assert TransferSpec(name="x", builtin=name).paired == (name in CAPTIONED)


def test_names_saved_beside_the_data_have_the_size_of_ours() -> None:
    for name, size in SAVED_BYTES.items():
        assert sum(len(one) + 1 for one in catalogue()[name].class_names) == size
    templates = [one.replace("{}", "{c}") for one in catalogue()["fmow"].templates]
    assert sum(len(one) + 1 for one in templates) == 427


def test_prompts_can_be_written_for_every_entry() -> None:
    for entry in catalogue().values():
        if entry.caption_column:
            continue
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
    countries = catalogue()["country211"].class_names  # in the order of AD, AE, AF, AG; XK, YE, ZA
    assert countries[:4] == [
        "Andorra",
        "United Arab Emirates",
        "Afghanistan",
        "Antigua and Barbuda",
    ]
    things = catalogue()["objectnet"]
    assert things.folder_names == sorted(things.folder_names)
    known = dict(zip(things.folder_names, things.class_names, strict=True))
    assert (known["binder_closed"], known["band_aid"]) == ("binder (closed)", "band aid")
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


def test_variants_of_imagenet_hold_some_of_its_classes() -> None:
    whole = catalogue()["imagenet"]
    known = dict(zip(whole.folder_names, whole.class_names, strict=True))
    first = {"a": "stingray", "o": "goldfish", "r": "goldfish"}
    for letter, name in first.items():
        entry = catalogue()[f"imagenet-{letter}"]
        assert entry.class_names == [known[wordnet] for wordnet in entry.folder_names]
        assert (entry.folder_names, entry.class_names[0]) == (sorted(entry.folder_names), name)
    for name in ("imagenet-v2", "imagenet-sketch"):
        assert catalogue()[name].class_names == whole.class_names
    # Folders of V2 are called by the labels, of sketches by WordNet's ids.
    assert catalogue()["imagenet-v2"].folder_names is None
    assert catalogue()["imagenet-sketch"].folder_names == whole.folder_names


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


def test_objectnet_is_read_from_ones_own_folder_with_its_other_classes(tmp_path: Path) -> None:
    for i, name in enumerate([*catalogue()["objectnet"].folder_names, "air_freshener"]):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / name / "0.png")
    part = open_dataset(TransferSpec(name="o", builtin="objectnet", folder=str(tmp_path))).parts
    assert part["test"].class_names == tuple(catalogue()["objectnet"].class_names)
    assert part["test"].load(112).convert("RGB").getpixel((0, 0)) == (112, 0, 0)


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


def shard(path: Path, labels: list[str]) -> None:
    """Images with labels beside them, as CLIP_benchmark writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, label in enumerate(labels):
            image = io.BytesIO()
            Image.new("RGB", (4, 4), (i, 0, 0)).save(image, "PNG")
            for kind, data in (("png", image.getvalue()), ("cls", label.encode())):
                member = tarfile.TarInfo(f"s{i:07d}.{kind}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_shards_on_the_disk_hold_classes_by_number_and_by_name(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", ["1", "0"])
    shard(tmp_path / "1.tar", ["1", "1"])
    shard(tmp_path / "named.tar", ["sea", "river"])
    given = {"name": "x", "label_column": "cls"}
    numbered = TransferSpec(
        files={"test": str(tmp_path / "[01]*.tar")}, class_names=["a", "b"], **given
    )
    assert open_dataset(numbered).parts["test"].labels.tolist() == [1, 0, 1, 1]
    named = open_dataset(TransferSpec(files={"test": str(tmp_path / "named.tar")}, **given))
    assert named.parts["test"].class_names == ("river", "sea")
    assert named.parts["test"].labels.tolist() == [1, 0]
    shard(tmp_path / "half.tar", ["sea", ""])
    with pytest.raises(DataError, match="expected a whole number or a class name in every row"):
        open_dataset(TransferSpec(files={"test": str(tmp_path / "half.tar")}, **given))


def test_shards_of_a_hub_that_are_not_all_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from clipdrift.data import hub as fetching

    shard(tmp_path / "test" / "0.tar", ["6", "0"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: str(tmp_path))
    spec = TransferSpec(name="f", builtin="fer2013")
    for reached, kind in ((True, DataError), (False, UnavailableError)):
        monkeypatch.setattr(fetching, "answers", lambda *asked, said=reached: said)
        (tmp_path / "test" / "nshards.txt").write_text("2\n")
        with pytest.raises(DataError) as raised:
            open_dataset(spec)
        assert type(raised.value) is kind
        assert "all shards test/*.tar of clip-benchmark/wds_fer2013, got 1 of 2" in str(
            raised.value
        )
        (tmp_path / "test" / "nshards.txt").write_text("1\n")
        assert open_dataset(spec).parts["test"].labels.tolist() == [6, 0]
    names = list(catalogue()["fer2013"].class_names)
    names[0], names[1] = names[1], names[0]
    (tmp_path / "classnames.txt").write_text("\n".join(names) + "\n")
    with pytest.raises(DataError, match="where 'disgusted' is label 0, got 'angry', the name of"):
        open_dataset(spec)
    (tmp_path / "classnames.txt").write_text("\n".join(names[:6]) + "\n")
    with pytest.raises(DataError, match="expected 6 names, one per class, got 7"):
        open_dataset(spec)
    (tmp_path / "classnames.txt").write_bytes(b"\xff" * 2_000_000)
    with pytest.raises(DataError, match="expected small texts beside shards"):
        open_dataset(spec)
    for elsewhere in ("../x/*.tar", "/etc/*.tar", "test/*.parquet"):
        with pytest.raises(DataError, match="or of shards in the repository"):
            open_dataset(TransferSpec(name="f", hub="a/b", hub_splits={"test": elsewhere}))
