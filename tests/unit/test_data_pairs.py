"""Images with captions from every kind of source, and what is wrong with them, by row."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from clipdrift.data.cache import prepare
from clipdrift.data.captions import Captions
from clipdrift.data.decode import Square, UnreadableImageError
from clipdrift.data.drawn.scenes import PLACES, render_scenes
from clipdrift.data.grouped import carve_target
from clipdrift.data.images import Images
from clipdrift.data.parts import ImagePart
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import TargetSpec, TransferSpec

TOLD = [["a red dog", "it runs"], ["a blue cat"], ["one tree", "a tree", "green leaves"], ["rain"]]


def png(i: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), (10 * i + 5) % 256, np.uint8)).save(data, "PNG")
    return data.getvalue()


def files(folder: Path, n: int = len(TOLD)) -> list[str]:
    for i in range(n):
        (folder / f"{i}.png").write_bytes(png(i))
    return [f"{i}.png" for i in range(n)]


def csv_of(folder: Path, told: list[list[str]] = TOLD) -> dict[str, Any]:
    """A row a caption, those of one image apart from each other."""
    names = files(folder, len(told))
    rows = [(k, names[i], text) for i, own in enumerate(told) for k, text in enumerate(own)]
    lines = [f'{name},"{text}"' for _, name, text in sorted(rows)]
    (folder / "t.csv").write_text("\n".join(["image,caption", *lines]), encoding="utf-8")
    return {"files": {"train": str(folder / "t.csv")}, "caption_column": "caption"}


def jsonl_of(folder: Path, told: list[list[str]] = TOLD) -> dict[str, Any]:
    rows = zip(files(folder), told, strict=True)
    text = "\n\n".join(json.dumps({"path": n, "said": own}) for n, own in rows)
    (folder / "t.jsonl").write_text(text, encoding="utf-8")
    given = {"image_column": "path", "caption_column": "said"}
    return {"files": {"train": str(folder / "t.jsonl")}, **given}


def parquet_of(folder: Path, told: list[list[str]] = TOLD) -> dict[str, Any]:
    """Encoded bytes, an image in two rows; captions in two columns."""
    order = [0, 1, 2, 3, 2]
    images = [{"bytes": png(i), "path": "image.png"} for i in order]
    first = [told[i][:1] for i in order[:4]] + [told[2][1:2]]
    more = [told[0][1:], None, told[2][2:], [], []]
    pq.write_table(pa.table({"image": images, "a": first, "b": more}), folder / "t.parquet")
    return {"files": {"train": str(folder / "t.parquet")}, "caption_column": ["a", "b"]}


def folder_of(folder: Path, told: list[list[str]] = TOLD) -> dict[str, Any]:
    (folder / "photos" / "deep").mkdir(parents=True)
    for i, own in enumerate(told):
        where = folder / "photos" / ("deep" if i > 1 else "")
        (where / f"{i}.png").write_bytes(png(i))
        (where / f"{i}.txt").write_text("\n".join([*own, "", " "]), encoding="utf-8")
    return {"folder": str(folder / "photos"), "caption_column": "txt"}


def tar_of(folder: Path, told: list[list[str]] = TOLD) -> dict[str, Any]:
    """Two shards, by a name with a star."""
    for shard in range(2):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as archive:
            for i in range(2 * shard, 2 * shard + 2):
                for suffix, data in (("png", png(i)), ("txt", "\n".join(told[i]).encode())):
                    member = tarfile.TarInfo(f"x/{i}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return {"files": {"train": str(folder / "s-*.tar")}, "caption_column": "txt"}


SOURCES = [csv_of, jsonl_of, parquet_of, folder_of, tar_of]


def opened(given: dict[str, Any], **more: Any) -> dict[str, ImagePart]:
    return open_dataset(TargetSpec(name="toy", **{**given, **more}), carve=False).parts


def faults_of(given: dict[str, Any]) -> list[str]:
    with pytest.raises(DataError) as caught:
        opened(given)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_each_image_once_with_all_its_captions(
    source: Any, tmp_path: Path
) -> None:
    part = opened(source(tmp_path))["train"]
    found = {
        int(np.asarray(part.load(i))[0, 0, 0]) // 10: set(part.captions[i])  # type: ignore[index]
        for i in range(len(part))
    }
    assert found == {i: set(own) for i, own in enumerate(TOLD)}
    assert part.labels.tolist() == [0] * len(TOLD)


def test_a_hub_dataset_gives_captions_and_several_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal images are one; a row without an image is counted as unreadable, by its row."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "copy").mkdir()
    features = datasets.Features({
        "image": datasets.Image(),
        "said": datasets.List(datasets.Value("string")),
        "tags": datasets.List(datasets.ClassLabel(names=["cat", "dog"])),
    })  # fmt: skip
    images = [Image.new("RGB", (12, 12), (i, 0, 0)) for i in (0, 90, 0)]
    rows = {"image": [*images, None], "said": [["a"], ["b"], ["c", "a"], ["d"]],
            "tags": [[0], [0, 1], [], [1]]}  # fmt: skip
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(tmp_path / "copy" / "train-00000-of-00001.parquet")
    hub = {"hub": str(tmp_path / "copy"), "hub_splits": {"train": "train"}}
    part = opened({**hub, "caption_column": "said"})["train"]
    assert part.captions == [("a", "c"), ("b",), ("d",)]
    assert part.names[2] == "train row 3"
    with pytest.raises(UnreadableImageError, match="no image in this row"):
        part.load(2)
    several = opened({**hub, "labels_column": "tags"})["train"]
    assert several.class_names == ("cat", "dog")
    assert several.several is not None
    assert several.several.tolist() == [[True, False], [True, True], [False, False], [False, True]]


def test_images_are_split_and_never_captions(tmp_path: Path) -> None:
    told = [[f"text {i} {k}" for k in range(1 + i % 4)] for i in range(60)]
    spec = TargetSpec(name="toy", test_fraction=0.2, **csv_of(tmp_path, told))
    prepared = prepare(spec, Square(12, "bicubic"), cache_dir=tmp_path / "cache")
    probe = ProbeSpec(n_images=6)
    sets = carve_target(spec, prepared, SplitSpec(val_per_class=8), probe)
    shown = {"train": prepared["train"], "val": prepared["train"], "probe": prepared["train"],
             "test": prepared["test"]}  # fmt: skip
    seen: list[str] = []
    for name, part in shown.items():
        images = Images(part.pixels, getattr(sets, name), part.labels, texts=part.captions)
        assert images.captions is not None
        for i, place in enumerate(images.index):
            own = {
                images.captions.texts[t] for t in images.captions.text[images.captions.owner == i]
            }
            number = int(part.names[place].split()[-1].removesuffix(".png"))
            assert own == set(told[number])
            assert images.take(slice(i, i + 1))[0, 0, 0, 0] == (10 * number + 5) % 256
            seen.append(str(number))
    assert sorted(seen, key=int) == [str(i) for i in range(60)]
    assert (len(sets.val), len(sets.probe), len(sets.test)) == (8, 6, 12)


def test_other_captions_are_another_dataset(tmp_path: Path) -> None:
    spec = TransferSpec(name="toy", **csv_of(tmp_path))
    square, cache = Square(12, "bicubic"), tmp_path / "cache"
    first = prepare(spec, square, cache_dir=cache)["test"]
    file = tmp_path / "t.csv"
    file.write_text(file.read_text().replace("it runs", "it ran"))
    other = prepare(spec, square, cache_dir=cache)["test"]
    assert np.array_equal(first.pixels, other.pixels)
    assert first.sha256 != other.sha256
    one, two = (Images(p.pixels, np.arange(4), p.labels, texts=p.captions) for p in (first, other))
    assert one.sha256() != two.sha256()


# --- what is wrong ---


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a", ["b", " "], "c", ""], "an empty caption at row 1 1.png; row 3 3.png (2 in all)"),
        (["a", 7, "c", "d"], "no text but int at row 1 1.png (1 in all)"),
        (["a", ["b", {"x": 1}], "c", "d"], "no text but dict at row 1 1.png (1 in all)"),
        (["a", None, [], "d"], "no caption at row 1 1.png; row 2 2.png (2 in all)"),
        (["a", "b" * 6000, "c", "d"], "a longer one at row 1 1.png (1 in all)"),
        (["same"] * 4, "captions that tell images apart, got 'same' for all 4"),
    ],
)
def test_captions_that_are_none_are_named_by_row(
    cells: list[Any], expected: str, tmp_path: Path
) -> None:
    told = jsonl_of(tmp_path, cells)  # type: ignore[arg-type]
    (line,) = faults_of(told)
    assert expected in line


def test_images_without_a_caption_are_named_in_folders_and_shards(tmp_path: Path) -> None:
    given = folder_of(tmp_path)
    (tmp_path / "photos" / "deep" / "3.txt").unlink()
    assert "no caption at row 3, deep/3.png (1 in all)" in faults_of(given)[0]
    shards = tar_of(tmp_path, [["a"], ["b"], ["c"], [""]])
    assert "no caption at row 3, s-1.tar x/3.png (1 in all)" in faults_of(shards)[0]


def test_a_row_whose_image_is_missing_is_named(tmp_path: Path) -> None:
    given = csv_of(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"row 2 2\.png: no such file"):
        prepare(TransferSpec(name="toy", **given), Square(12, "bicubic"), cache_dir=tmp_path / "c")


def test_sources_that_are_no_pairs_say_what_to_do(tmp_path: Path) -> None:
    given = csv_of(tmp_path)
    (line,) = faults_of({**given, "caption_column": "text"})
    assert "toy.caption_column: expected a column of the data (image, caption), got 'text'" in line
    (line,) = faults_of({"builtin": "digits", "caption_column": "caption"})
    held = "scenes, flickr8k, flickr30k, coco"
    assert f"expected a builtin set whose images have captions ({held}), got digits" in line
    for bad in (tmp_path / "none-*.tar", tmp_path / "none.tar"):
        (line,) = faults_of({"files": {"train": str(bad)}, "caption_column": "txt"})
        assert "toy.files.train: expected" in line
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 500)
    (line,) = faults_of({"files": {"train": str(tmp_path / "bad.tar")}, "caption_column": "txt"})
    assert "an uncompressed tar file" in line
    (tmp_path / "photos").mkdir()
    (line,) = faults_of({"folder": str(tmp_path / "photos"), "caption_column": "txt"})
    assert "toy.folder: expected images, got none in" in line
    (tmp_path / "t.jsonl").write_text('{"image": "a"}\n[1]\n')
    (line,) = faults_of({"files": {"train": str(tmp_path / "t.jsonl")}, "caption_column": "c"})
    assert "a JSON object in every line, got '[1]' in line 2" in line


def test_nothing_outside_of_a_folder_or_a_shard_is_read(tmp_path: Path) -> None:
    given = folder_of(tmp_path)
    (tmp_path / "secret").write_text("of another")
    (tmp_path / "photos" / "0.txt").unlink()
    os.symlink(tmp_path / "secret", tmp_path / "photos" / "0.txt")
    assert "links that stay inside the folder, got 0.txt" in faults_of(given)[0]
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "photos" / "1.png")
        archive.addfile(link)
    (line,) = faults_of({"files": {"train": str(tmp_path / "l.tar")}, "caption_column": "txt"})
    assert "shards with images, got none in 1 shards" in line


@pytest.mark.parametrize(
    "more", [{"class_names": ["a", "b"]}, {"templates": ["a {}"]}, {"skip_classes": ["a"]},
             {"caption_column": []}, {"caption_column": ["a", "a"]}]
)  # fmt: skip
def test_captions_and_classes_at_once_are_refused(more: dict[str, Any]) -> None:
    given = {"name": "toy", "files": {"train": "t.csv"}, "caption_column": "caption"}
    with pytest.raises(ValidationError):
        TargetSpec(**{**given, **more})
    with pytest.raises(ValidationError, match="suffix of the files"):
        TargetSpec(name="toy", folder="a", caption_column="../a")


# --- captions ---


def test_each_image_draws_one_of_its_own() -> None:
    captions = Captions.of(TOLD)
    for share in (0.0, 0.3, 0.5, 0.999999):
        drawn = captions.drawn(np.full(len(TOLD), share))
        assert [captions.texts[t] for t in drawn] == [own[int(share * len(own))] for own in TOLD]
    part = Captions.of([TOLD[2], TOLD[0]])
    rows = part.rows_of(captions)
    assert [captions.texts[row] for row in rows] == part.texts
    assert captions.remarks("toy") == []
    (told,) = Captions.of([["a", "b"], ["b", "b"], ["c"]]).remarks("toy")
    assert told.startswith("toy: 1 of 3 captions stand under several images ('b')")


def test_scenes_are_told_as_they_are_drawn() -> None:
    """Where the shape's colour lies is where the caption says."""
    pixels, captions = render_scenes(300, seed=5)
    again, _ = render_scenes(10, seed=5)
    assert np.array_equal(pixels[:10], again)
    places = [place for row in PLACES for place in row]
    pure = {"red": (219, 26, 31), "blue": (31, 71, 219), "yellow": (247, 230, 38)}
    right = seen = 0
    for picture, own in zip(pixels, captions, strict=True):
        told = next((t for t in own if t.startswith("a ") and "background" not in t), None)
        colour = next((c for c in pure if told and f" {c} " in told), None)
        if told is None or colour is None:
            continue
        far = np.abs(picture.astype(int) - pure[colour]).sum(axis=2)
        y, x = (float(v.mean()) for v in np.nonzero(far < 90)) if (far < 90).any() else (13.5, 13.5)
        column, row = int(x > 11.4) + int(x > 15.6), int(y > 11.4) + int(y > 15.6)
        place = next(p for p in sorted(places, key=len, reverse=True) if told.endswith(p))
        seen += 1
        right += place == PLACES[row][column]
    assert seen > 25
    assert right / seen > 0.6  # shapes are not symmetric; chance is 1 in 9
