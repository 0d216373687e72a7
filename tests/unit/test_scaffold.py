"""What `init` writes is a study as it stands, on data and a backbone that go together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipdrift.commands.scaffold import study_text
from clipdrift.data.sources import open_dataset
from clipdrift.errors import ClipdriftError
from clipdrift.spec import StudySpec, expand, parse_spec


def written(images: Path | None, tmp_path: Path, **options: Any) -> StudySpec:
    text = study_text(images, tmp_path / "a study.yaml", **options)
    live = "\n".join(line.split("#")[0] for line in text.splitlines())
    assert not re.search(
        r"[{]\w+[}]|/path/to|TODO", live + text.split("schedule:")[0].split("{")[0]
    )
    assert "{test_fraction}" not in text
    assert f"clipdrift check '{tmp_path / 'a study.yaml'}'" in text
    return parse_spec(text)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "Bob's photos: \u00e9t\u00e9"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (30, 30), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


def test_folders_of_any_name_are_read_back(photos: Path, tmp_path: Path) -> None:
    spec = written(photos, tmp_path)
    assert Path(str(spec.targets[0].folder)) == photos
    assert open_dataset(spec.targets[0]).parts["train"].class_names == ("cat", "dog")
    assert [t.name for t in spec.transfers] == ["cifar100"]
    assert len(expand(spec, precision="float32")) > 20


def test_tables_are_read_by_the_names_of_their_columns(photos: Path, tmp_path: Path) -> None:
    rows = [f"{name}/{i}.png,{name},1" for name in ("cat", "dog") for i in range(3)]
    (photos / "labels.csv").write_text("\n".join(["path,class_name,width", *rows]))
    (target,) = written(photos / "labels.csv", tmp_path).targets
    assert (target.image_column, target.label_column) == ("path", "class_name")
    assert len(open_dataset(target).parts["train"]) == 4  # two of six are set aside
    table = pa.table({"image": [b"x"], "label": ["cat"], "path": ["a"]})
    pq.write_table(table, tmp_path / "t.parquet")
    (target,) = written(tmp_path / "t.parquet", tmp_path).targets
    assert (target.image_column, target.label_column) == ("image", "label")
    (photos / "odd.csv").write_text("a,b\n1,2")
    with pytest.raises(ClipdriftError) as raised:
        written(photos / "odd.csv", tmp_path)
    assert [fault.got for fault in raised.value.faults] == ["['a', 'b']"] * 2


@pytest.mark.parametrize(
    ("backbone", "transfers", "names"),
    [
        ("mini-clip", [], ["world"]),
        ("openai/clip-vit-base-patch16", [], ["cifar100"]),
        ("it's/a: model", ["cifar10", "imagenet"], ["cifar10", "imagenet"]),
    ],
)
def test_a_backbone_comes_with_sets_that_it_knows(
    tmp_path: Path, backbone: str, transfers: list[str], names: list[str]
) -> None:
    spec = written(None, tmp_path, backbone=backbone, transfers=transfers)
    assert spec.backbone.id == backbone
    assert [t.builtin for t in spec.transfers] == names


@pytest.mark.parametrize(
    ("backbone", "transfer", "told"),
    [
        ("mini-clip", "cifar100", "knows the drawn world only"),
        ("openai/clip-vit-base-patch32", "world", "another than mini-clip"),
        ("openai/clip-vit-base-patch32", "cifar1000", "Did you mean 'cifar100'?"),
    ],
)
def test_a_set_that_a_backbone_cannot_know_is_refused(
    tmp_path: Path, backbone: str, transfer: str, told: str
) -> None:
    with pytest.raises(ClipdriftError, match=re.escape(told)):
        study_text(None, tmp_path / "x.yaml", backbone=backbone, transfers=[transfer])


def test_a_folder_may_be_watched_and_quick_is_a_few_steps(photos: Path, tmp_path: Path) -> None:
    spec = written(None, tmp_path, transfers=[str(photos)], quick=True)
    assert Path(str(spec.transfers[0].folder)) == photos
    assert spec.schedule.max_steps == 20
    assert len(expand(spec, precision="float32")) < 8


def test_captions_make_a_study_of_pairs(tmp_path: Path) -> None:
    """A table, images with texts beside them, a shard; a column of classes goes first."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (30, 30), (40 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"number {i}\n{i}")
    rows = [f"{i}.png,number {i}" for i in range(6)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *rows]))
    (folder / "both.csv").write_text("\n".join(["image,caption,label", "0.png,a,b"]))
    for images in (folder, folder / "pairs.csv"):
        spec = written(images, tmp_path)
        (target,) = spec.targets
        assert target.paired
        assert len(open_dataset(target).parts["test"]) == 1
        assert {method.loss for method in spec.methods} == {"contrastive"}
    assert not written(folder / "both.csv", tmp_path).targets[0].paired
    assert written(tmp_path / "a.tar", tmp_path).targets[0].caption_columns == ["txt"]
