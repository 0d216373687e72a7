"""Built-in sets, the Hub through a local copy, and real images beside the checkout."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipdrift.data import builtin, hub
from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square, UnreadableImageError
from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES
from clipdrift.data.drawn.world import WORLD_CLASSES, render_world
from clipdrift.data.prepared import PreparedPart
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import DatasetSpec, TargetSpec, TransferSpec

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def test_world_is_ten_thousand_unseen_images() -> None:
    parts = open_dataset(TransferSpec.model_validate("world")).parts
    assert list(parts) == ["test"]
    part = parts["test"]
    assert np.bincount(part.labels).tolist() == [100] * 100
    assert part.class_names == WORLD_CLASSES
    drawn = render_world(part.labels[:300], seed=builtin.WORLD_SEED)
    assert all(np.array_equal(part.load(i), drawn[i]) for i in (0, 17, 299))


def test_the_seed_of_the_world_is_not_one_of_pretraining() -> None:
    text = (ROOT / "tools" / "pretrain_mini_clip.py").read_text(encoding="utf-8")
    numbers = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    assert 10_000_019 in numbers
    assert builtin.WORLD_SEED not in numbers


def test_world_cannot_be_a_target() -> None:
    with pytest.raises(DataError, match="a target with a training part, got only a test part"):
        open_dataset(TargetSpec.model_validate("world"))


def test_land_cover_keeps_its_pixels_and_its_parts_differ(tmp_path: Path) -> None:
    parts = prepared(TargetSpec.model_validate("land-cover"), tmp_path)
    assert parts["train"].class_names == LAND_COVER_CLASSES
    assert np.bincount(parts["train"].labels).tolist() == [60] * 10
    assert np.bincount(parts["test"].labels).tolist() == [100] * 10
    seen = {image.tobytes() for image in parts["train"].pixels}
    assert len(seen) == 600
    assert not seen & {image.tobytes() for image in parts["test"].pixels}


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    parts = prepared(TargetSpec.model_validate("digits"), tmp_path)
    assert len(parts["train"]) + len(parts["test"]) == 1797
    counts = sum(np.bincount(parts[part].labels) for part in parts)
    assert counts.tolist() == np.bincount(load_digits().target).tolist()


def test_drawn_images_are_resized_like_any_other(tmp_path: Path) -> None:
    spec = TargetSpec.model_validate("land-cover")
    small = prepared(spec, tmp_path)["test"]
    large = prepared(spec, tmp_path, 56)["test"]
    enlarged = Image.fromarray(small.pixels[3]).resize((56, 56), Image.Resampling.BICUBIC)
    assert np.array_equal(large.pixels[3], np.asarray(enlarged))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("land_cover", "Did you mean 'land-cover'?"),
        ("World", "Did you mean 'world'?"),
        ("qqqq", "Use folder, files or hub for other data."),
    ],
)
def test_unknown_names_are_told_with_the_known_ones(name: str, step: str) -> None:
    with pytest.raises(DataError) as raised:
        open_dataset(DatasetSpec(name="toy", builtin=name))
    message = str(raised.value)
    assert message.startswith("toy.builtin: expected one of world, land-cover, digits")
    assert message.endswith(f"got {name!r}. {step}")


def test_builtin_class_names_may_be_renamed_but_not_lost() -> None:
    names = [f"no {i}" for i in range(10)]
    parts = open_dataset(DatasetSpec(name="toy", builtin="digits", class_names=names)).parts
    assert parts["test"].class_names == tuple(names)
    with pytest.raises(DataError, match=r"toy.class_names: expected 10 names.*got 2"):
        open_dataset(DatasetSpec(name="toy", builtin="digits", class_names=["a", "b"]))


def prepared(spec: DatasetSpec, cache: Path, size: int = 28) -> dict[str, PreparedPart]:
    return prepare(spec, Square(size, "bicubic"), cache_dir=cache)


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset in the layout of the Hub, which `datasets` loads without any network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "copy"
    folder.mkdir()
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["cat", "dog", "owl"])}
    )
    for split, count in (("train", 9), ("test", 6)):
        images = [Image.new("RGB", (30, 30), (i, 0, 0)) for i in range(count)]
        rows = {"img": images, "fine": [i % 3 for i in range(count)]}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def hub_spec(folder: Path | str, kind: type[DatasetSpec] = TargetSpec, **options: object):
    columns = {"image_column": "img", "label_column": "fine"}
    return kind(name="toy", hub=str(folder), **{**columns, **options})


def test_the_hub_gives_both_parts(hub_copy: Path, tmp_path: Path) -> None:
    parts = prepared(hub_spec(hub_copy), tmp_path / "cache")
    assert parts["train"].class_names == ("cat", "dog", "owl")
    assert parts["test"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert parts["train"].pixels[:, 0, 0, 0].tolist() == list(range(9))
    assert open_dataset(hub_spec(hub_copy)).parts["test"].names[4] == "test row 4"


def test_a_transfer_dataset_takes_the_test_split_alone(hub_copy: Path) -> None:
    only = hub_spec(hub_copy, TransferSpec, hub_splits={"train": "nowhere", "test": "train"})
    parts = open_dataset(only).parts
    assert {part: len(images) for part, images in parts.items()} == {"test": 9}


def test_a_missing_test_split_is_carved_only_when_asked(hub_copy: Path) -> None:
    (hub_copy / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError) as raised:
        open_dataset(hub_spec(hub_copy))
    assert "Unknown split \"test\". Should be one of ['train']" in str(raised.value)
    assert str(raised.value).endswith("test: null carves one from train.")
    carved = open_dataset(hub_spec(hub_copy, hub_splits={"train": "train"})).parts
    assert [len(carved[part]) for part in ("train", "test")] == [6, 3]


def test_wrong_hub_columns_are_named(hub_copy: Path) -> None:
    with pytest.raises(DataError, match=r"toy.image_column: .*\(img, fine\), got 'image'"):
        open_dataset(hub_spec(hub_copy, image_column="image"))


def test_scripts_are_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("raise SystemExit('ran')")
    with pytest.raises(DataError, match=r"scripts are no longer supported.*Use a Parquet copy"):
        open_dataset(hub_spec(folder))


def test_offline_is_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as raised:
        open_dataset(hub_spec("nobody/nothing-here", revision="v2"))
    message = str(raised.value)
    assert message.startswith(
        "toy.hub: expected the dataset nobody/nothing-here at v2 from the Hugging Face Hub, got "
    )
    assert message.endswith("Connect once so that it is cached, or download it and use files:.")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        ("Dataset 'a/b' is a gated dataset on the Hub. You must log in", "Accept its terms on"),
        ("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.", "Check the id and the"),
    ],
)
def test_what_the_hub_says_leads_to_a_next_step(
    error: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError(error)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError) as raised:
        open_dataset(hub_spec("a/b"))
    assert error.rstrip(".") in str(raised.value)
    assert step in str(raised.value)


SIZES = {
    "eurosat": {"train": 8000, "test": 2000},
    "pets-fewshot": {"train": 301, "test": 204},
    "cifar10": {"test": 2000},
}


@pytest.mark.shared
@pytest.mark.parametrize("name", list(SIZES))
def test_real_images_are_read_in_full(name: str, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("no development images beside the checkout")
    files = {part: str(SHARED / name / f"{part}.parquet") for part in SIZES[name]}
    kind = TargetSpec if "train" in files else TransferSpec
    parts = prepared(kind(name=name, files=files), tmp_path)
    for part, count in SIZES[name].items():
        assert parts[part].pixels.shape == (count, 28, 28, 3)
        column = pq.read_table(files[part], columns=["label"]).column(0)
        assert parts[part].labels.tolist() == column.to_pylist()
        row = pq.read_table(files[part], columns=["image"]).slice(count - 1).to_pylist()[0]
        last = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        if last.width == last.height:
            shown = np.asarray(last.resize((28, 28), Image.Resampling.BICUBIC))
            assert np.array_equal(parts[part].pixels[-1], shown)


def test_a_path_that_a_hub_sends_is_followed_in_its_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    inside, outside = tmp_path / "hub" / "x.png", tmp_path / "x.png"
    (tmp_path / "hub" / "link.png").symlink_to(outside)
    assert hub._source({"bytes": None, "path": str(inside)}) == inside
    assert hub._source({"bytes": b"x", "path": str(outside)}) == b"x"
    for path in (outside, tmp_path / "hub" / "link.png", "/etc/passwd", "../x.png"):
        for cell in (str(path), {"bytes": None, "path": str(path)}):
            with pytest.raises(UnreadableImageError, match="outside of the hub's cache"):
                hub._source(cell)
