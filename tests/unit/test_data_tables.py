"""CSV and Parquet: every way to write an image and a label, and every way to get it wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipdrift.data.decode import UnreadableImageError
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import TargetSpec, TransferSpec

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 30), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def level_of(image: Any) -> int:
    return int(np.asarray(image)[0, 0, 0])


def write_parquet(
    path: Path, images: pa.Array, labels: Sequence[Any], names: list[str] | None = None, **options
) -> str:
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(meta)
    pq.write_table(table, path, **options)
    return str(path)


def structs(*levels: int) -> pa.Array:
    return pa.array([{"bytes": encoded(i), "path": f"{i}.png"} for i in levels], IMAGE)


def opened(test: str, **options: Any):
    return open_dataset(TransferSpec(name="toy", files={"test": test}, **options)).parts["test"]


def faults_of(test: str, train: str | None = None, **options: Any) -> list[str]:
    with pytest.raises(DataError) as raised:
        open_dataset(TargetSpec(name="toy", files={"train": train, "test": test}, **options))
    return str(raised.value).splitlines()


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    levels = list(range(50, 60))
    file = write_parquet(
        tmp_path / "a.parquet", structs(*levels), [0, 1] * 5, ["cat", "dog"], row_group_size=3
    )
    part = opened(file)
    assert part.class_names == ("cat", "dog")
    assert part.labels.tolist() == [0, 1] * 5
    assert [level_of(part.load(i)) for i in (9, 0, 4, 3)] == [59, 50, 54, 53]
    assert part.names[4] == "a.parquet row 4 54.png"


def test_parquet_written_by_datasets_itself(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"img": ImageFeature(), "fine": ClassLabel(names=["a", "b", "c"])})
    rows = {"img": [Image.new("RGB", (30, 30), (i, 0, 0)) for i in range(6)], "fine": [2, 1, 0] * 2}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d.parquet")
    part = opened(str(tmp_path / "d.parquet"), image_column="img", label_column="fine")
    assert part.class_names == ("a", "b", "c")
    assert part.labels.tolist() == [2, 1, 0, 2, 1, 0]
    assert [level_of(part.load(i)) for i in range(6)] == list(range(6))


def test_parquet_with_raw_bytes_and_text_labels(tmp_path: Path) -> None:
    images = pa.array([encoded(7), encoded(8)], pa.binary())
    part = opened(write_parquet(tmp_path / "b.parquet", images, ["sea", "river"]))
    assert part.class_names == ("river", "sea")
    assert part.labels.tolist() == [1, 0]
    assert level_of(part.load(1)) == 8
    assert part.names[1] == "b.parquet row 1"


def test_parquet_with_paths(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(encoded(9))
    absolute = str(tmp_path / "in" / "x.png")
    for number, images in enumerate(
        [
            pa.array(["in/x.png", absolute]),
            pa.array([{"bytes": None, "path": "in/x.png"}, {"path": absolute}], IMAGE),
        ]
    ):
        part = opened(write_parquet(tmp_path / f"{number}.parquet", images, ["a", "b"]))
        assert [level_of(part.load(i)) for i in (0, 1)] == [9, 9]


TEXT_TYPES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "large_category": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "struct"])
@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_paths_and_labels_of_every_text_type_are_checked_and_stamped(
    tmp_path: Path, kind: str, wrapped: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(99))
    for i in (1, 2):
        (tmp_path / "in" / f"{i}.png").write_bytes(encoded(i))

    def written(*names: str) -> str:
        texts = pa.array(names).cast(TEXT_TYPES[kind])
        labels = pa.array(["a", "b"]).cast(TEXT_TYPES[kind])
        empty = pa.nulls(2, pa.binary())
        images = pa.StructArray.from_arrays([empty, texts], ["bytes", "path"]) if wrapped else texts
        return write_parquet(tmp_path / "in" / "t.parquet", images, labels)

    (line,) = faults_of(written("../secret.png", "2.png"))
    assert "got ../secret.png (1 in all)" in line
    file = written("1.png", "2.png")
    part = opened(file)
    assert [level_of(part.load(i)) for i in (0, 1)] == [1, 2]
    assert part.class_names == ("a", "b")
    (tmp_path / "in" / "2.png").write_bytes(encoded(7) + b" ")
    assert opened(file).identity != part.identity


def test_a_path_beside_empty_bytes_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(99))
    images = pa.array([{"bytes": b"", "path": "../secret.png"}, {"bytes": encoded(1)}], IMAGE)
    part = opened(write_parquet(tmp_path / "in" / "t.parquet", images, ["a", "b"]))
    with pytest.raises(UnreadableImageError, match="0 bytes"):
        part.load(0)


def test_an_empty_cell_is_an_unreadable_image(tmp_path: Path) -> None:
    images = pa.array([None, {"bytes": None, "path": None}], IMAGE)
    part = opened(write_parquet(tmp_path / "a.parquet", images, ["a", "b"]))
    for row in (0, 1):
        with pytest.raises(UnreadableImageError, match="no image in this row"):
            part.load(row)


def write_csv(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return str(path)


def test_csv_with_paths_and_text_labels(tmp_path: Path) -> None:
    (tmp_path / "a, b.png").write_bytes(encoded(3))
    (tmp_path / "c.png").write_bytes(encoded(4))
    file = write_csv(
        tmp_path / "t.csv", "file,kind,extra", '"a, b.png",sea,1', f"{tmp_path}/c.png, river ,2"
    )
    part = opened(file, image_column="file", label_column="kind")
    assert part.class_names == ("river", "sea")
    assert part.labels.tolist() == [1, 0]
    assert [level_of(part.load(i)) for i in (0, 1)] == [3, 4]


@pytest.mark.parametrize("written", ["{}", "{}.0", "class_{}", "class_{:02}", "n{}.0"])
def test_numbers_in_any_spelling_take_names_in_their_order(tmp_path: Path, written: str) -> None:
    names = [f"kind {letter}" for letter in "abcdefghijkl"]
    lines = [f"{i}.png,{written.format(i)}" for i in reversed(range(12))]
    part = opened(write_csv(tmp_path / "t.csv", "image,label", *lines), class_names=names)
    assert part.class_names == tuple(names)
    assert part.labels.tolist() == list(reversed(range(12)))
    floats = write_parquet(
        tmp_path / "f.parquet", structs(*range(12)), [float(i) for i in range(12)]
    )
    assert opened(floats, class_names=names).labels.tolist() == list(range(12))


def test_a_number_of_any_length_is_a_fault_in_words(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", "image,label", f"a.png,{'9' * 6000}", "b.png,1")
    assert "9999" in faults_of(file, class_names=["cat", "dog"])[0]


def test_several_labels_in_a_cell_are_recognised(tmp_path: Path) -> None:
    cells = ["cat|dog", "cat", "dog", "owl"]
    file = write_csv(
        tmp_path / "t.csv", "image,label", *(f"{i}.png,{c}" for i, c in enumerate(cells))
    )
    assert faults_of(file) == [
        (
            "toy.files.test, column label: expected one class name in every row, got several, "
            "joined by '|': 'cat|dog'. "
            "Keep one class a row, or set labels_column; "
            "of images with captions set caption_column."
        )
    ]
    for cells in (
        ["cat; dog", "dog; owl", "owl; cat"],
        ['"a, b"', '"b, a"', '"a, b"'],
        ['"[0, 1]"', '"[1, 0]"'],
    ):
        lines = [f"{i}.png,{cell}" for i, cell in enumerate(cells)]
        assert "joined by" in faults_of(write_csv(tmp_path / "t.csv", "image,label", *lines))[0]
    lines = ['0.png,"sea, lake"', "1.png,river", '2.png,"forest, green"', "3.png,a|b"]
    assert len(opened(write_csv(tmp_path / "t.csv", "image,label", *lines)).class_names) == 4


@pytest.mark.parametrize("value", [[0, 1], ["cat", "dog"], ["A dog runs .", "The dog is brown ."]])
def test_lists_in_the_place_of_labels_are_refused_with_the_reason(
    tmp_path: Path, value: list[object]
) -> None:
    pq.write_table(pa.table({"image": ["0.png", "1.png"], "label": [value] * 2}), tmp_path / "t.pq")
    (line,) = faults_of(str(tmp_path / "t.pq"))
    assert f"one class name in every row, got lists such as {value}. Keep one class" in line


def test_captions_are_recognised(tmp_path: Path) -> None:
    captions = [f"{n} {what} on a {where}" for n in ("a", "two") for what in ("cat", "dog", "owl")
                for where in ("mat", "car")]  # fmt: skip
    lines = [f"{i}.png,{caption}" for i, caption in enumerate([*captions, captions[0]])]
    (line,) = faults_of(write_csv(tmp_path / "t.csv", "image,label", *lines))
    assert "got 12 texts in 13 rows, as captions are, such as 'a cat on a mat'" in line
    lines = [f"{i}.png,the tall {'cat' if i % 2 else 'dog'} breed" for i in range(20)]
    assert len(opened(write_csv(tmp_path / "t.csv", "image,label", *lines)).class_names) == 2


def test_csv_with_numbers_takes_names_from_the_study(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", "image,label", "a.png,1", "b.png,0", "c.png,1")
    part = opened(file, class_names=["cat", "dog"])
    assert part.class_names == ("cat", "dog")
    assert part.labels.tolist() == [1, 0, 1]


def test_a_mapping_names_numbers_from_whatever_they_are_counted(tmp_path: Path) -> None:
    lines = [f"{i}.png,{label}" for i, label in enumerate((10, 1, 2, 1))]
    file = write_csv(tmp_path / "t.csv", "image,label", *lines)
    part = opened(file, class_names={"10": "owl", "2": "dog", "1": "cat"})
    assert part.class_names == ("cat", "dog", "owl")
    assert part.labels.tolist() == [2, 0, 1, 0]
    (told,) = faults_of(file, class_names={"0": "cat", "1": "dog", "2": "owl"})
    assert "1 missing ('10') and 1 unknown ('0'). The data has: '1', '10', '2'." in told


def test_given_names_override_those_in_the_file(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", structs(1, 2), [1, 0], ["AnnualCrop", "SeaLake"])
    part = opened(file, class_names=["annual crop land", "sea or lake"])
    assert part.class_names == ("annual crop land", "sea or lake")
    assert part.labels.tolist() == [1, 0]
    assert faults_of(file, file, class_names=["sea lake", "annual crop"])[0].startswith(
        "toy.class_names: expected names in label order, where 'AnnualCrop' is label 0, "
        "got 'sea lake', the name of label 1."
    )


def test_a_test_part_is_carved_from_a_single_file(tmp_path: Path) -> None:
    levels = list(range(40))
    file = write_parquet(
        tmp_path / "a.parquet", structs(*levels), [i % 2 for i in levels], ["cat", "dog"]
    )
    parts = open_dataset(TargetSpec(name="toy", files={"train": file})).parts
    assert np.bincount(parts["test"].labels).tolist() == [4, 4]
    seen = [level_of(part.load(i)) for part in parts.values() for i in range(len(part))]
    assert sorted(seen) == levels
    assert all(
        level_of(part.load(i)) % 2 == part.labels[i]
        for part in parts.values()
        for i in range(len(part))
    )


def test_wrong_columns_are_named_with_those_there_are(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", "file,kind", "a.png,x")
    assert faults_of(file, label_column="class")[:2] == [
        (
            "toy.image_column: expected a column of the data (file, kind), got 'image'. "
            "Set image_column to the column that holds the images."
        ),
        (
            "toy.label_column: expected a column of the data (file, kind), got 'class'. "
            "Set label_column to the column that holds the labels."
        ),
    ]


def test_the_faults_of_both_files_come_together(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    assert faults_of(str(notes), str(tmp_path / "gone.csv")) == [
        (
            f"toy.files.train: expected a file, got {tmp_path / 'gone.csv'}, which is not there. "
            "Check the path."
        ),
        (
            "toy.files.test: expected a .csv, .jsonl or .parquet file, or .tar shards, got "
            f"{notes}. Convert it."
        ),
    ]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert faults_of(str(tmp_path))[0].endswith("Use folder: for class folders.")


def test_integer_labels_without_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", "image,label", "a.png,0", "b.png,1")
    assert faults_of(file) == [
        (
            "toy: expected class names for integer labels, got none, neither in the data nor in "
            "class_names. Give class_names: [...] in label order."
        )
    ]


def test_labels_out_of_range_are_counted(tmp_path: Path) -> None:
    lines = [f"{i}.png,{label}" for i, label in enumerate((0, 1, 2, -1, 2, 10**30))]
    file = write_csv(tmp_path / "t.csv", "image,label", *lines)
    assert faults_of(file, class_names=["cat", "dog"]) == [
        (
            f"toy (test): expected labels in 0..1 for 2 class names, got -1, 2, {10**30} in 4 "
            "rows. Correct the labels, counted from 0, or give a name for each in class_names."
        )
    ]


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (pa.array([1, None, 0]), "None in row 1 (1 rows in all)"),
        (pa.array([0.5, 1.0, 0.0]), "0.5 in row 0 (1 rows in all)"),
        (pa.array([0.0, float("nan"), float("inf")]), "nan in row 1, inf in row 2 (2 rows"),
        (pa.array([True, False, True]), "True in row 0, False in row 1"),
        (pa.array(["a", "", "b"]), "'' in row 1 (1 rows in all)"),
    ],
)
def test_labels_of_a_wrong_kind(labels: pa.Array, shown: str, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", structs(1, 2, 3), labels)
    (line,) = faults_of(file, class_names=["cat", "dog"])
    assert line.startswith(
        "toy.files.test, column label: expected a whole number or a class name in every row, got "
    )
    assert shown in line


def test_numbers_in_one_part_and_names_in_the_other(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "a.csv", "image,label", "a.png,0", "b.png,1")
    test = write_csv(tmp_path / "b.csv", "image,label", "a.png,cat", "b.png,dog")
    assert faults_of(test, train, class_names=["cat", "dog"]) == [
        (
            "toy: expected labels of one kind in train and test, got numbers in train, names "
            "in test. Write both the same way."
        )
    ]


def test_class_names_in_the_files_must_agree(tmp_path: Path) -> None:
    train = write_parquet(tmp_path / "a.parquet", structs(1, 2), [0, 1], ["cat", "dog"])
    test = write_parquet(tmp_path / "b.parquet", structs(1, 2), [0, 1], ["dog", "cat"])
    (line,) = faults_of(test, train)
    assert line.startswith("toy: expected the same class names in train and test, got")


def test_classes_must_agree_between_the_parts(tmp_path: Path) -> None:
    train = write_parquet(tmp_path / "a.parquet", structs(1, 2, 3), [0, 1, 2], ["a", "b", "c"])
    test = write_parquet(tmp_path / "b.parquet", structs(1, 2), [0, 1], ["a", "b", "c"])
    assert faults_of(test, train) == [
        (
            "toy: expected the same classes in train and test, got 'c' only in train. "
            "Add images to the other part, or remove these."
        )
    ]


def test_one_class_is_not_a_dataset(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", "image,label", "a.png,cat", "b.png,cat")
    assert faults_of(file) == ["toy: expected two or more classes, got ['cat']. Add a class."]


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", ".."])
def test_relative_paths_may_not_leave_the_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = write_csv(tmp_path / "data" / "t.csv", "image,label", f"{path},a", "a/../ok.png,b")
    assert faults_of(file) == [
        (
            "toy.files.test: expected relative image paths that stay inside "
            f"{tmp_path / 'data'}, links followed, got {path} (1 in all). "
            "Move the images, or write absolute paths."
        )
    ]
    images = pa.array([{"bytes": None, "path": path}, {"bytes": encoded(1)}], IMAGE)
    (line,) = faults_of(write_parquet(tmp_path / "data" / "t.parquet", images, ["a", "b"]))
    assert f"got {path} (1 in all)" in line


def test_relative_paths_may_not_leave_the_folder_by_links(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "out")
    (tmp_path / "data" / "one.png").symlink_to(tmp_path / "out" / "one.png")
    for path in ("linked/x.png", "linked/deep/x.png", "one.png"):
        file = write_csv(tmp_path / "data" / "t.csv", "image,label", f"{path},a", "ok.png,b")
        (line,) = faults_of(file)
        assert f"links followed, got {path} (1 in all)" in line
    (tmp_path / "data" / "real").mkdir()
    (tmp_path / "data" / "real" / "x.png").write_bytes(encoded(5))
    (tmp_path / "data" / "inside").symlink_to(tmp_path / "data" / "real")
    file = write_csv(tmp_path / "data" / "t.csv", "image,label", "inside/x.png,a", "ok.png,b")
    assert level_of(opened(file).load(0)) == 5


def test_paths_beside_bytes_are_names_only(tmp_path: Path) -> None:
    images = pa.array([{"bytes": encoded(i), "path": "../../etc/x.png"} for i in (1, 2)], IMAGE)
    part = opened(write_parquet(tmp_path / "t.parquet", images, ["a", "b"]))
    assert [level_of(part.load(i)) for i in (0, 1)] == [1, 2]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a header and rows, got an empty file"),
        (b"image,label\n", "toy (test): expected at least one image, got none"),
        (b"image,label\na.png,x,y\nb.png\n", "2 fields in every row, as in the header, got 3"),
        (b'image,label\n"a.png,x\n', "comma-separated UTF-8 text, got unexpected end of data"),
        (b"image,label\n\xff\xfe.png,x\n", "comma-separated UTF-8 text, got 'utf-8' codec"),
    ],
)
def test_malformed_csv(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    (line,) = faults_of(str(tmp_path / "t.csv"))
    assert expected in line


def test_a_torn_parquet_file(tmp_path: Path) -> None:
    whole = Path(write_parquet(tmp_path / "a.parquet", structs(1, 2), ["a", "b"]))
    (tmp_path / "b.parquet").write_bytes(whole.read_bytes()[:-20])
    (line,) = faults_of(str(tmp_path / "b.parquet"))
    assert line.startswith("toy.files.test: expected a Parquet file, got ")
    assert line.endswith("Write or download it again.")


@pytest.mark.parametrize("text", ["{}", "not json", '{"info": {"features": {"label": 3}}}', "[]"])
def test_metadata_without_names_is_as_none(text: str, tmp_path: Path) -> None:
    table = pa.table({"image": structs(1, 2), "label": [0, 1]})
    file = str(tmp_path / "a.parquet")
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), file)
    assert "class names for integer labels" in faults_of(file)[0]
    assert opened(file, class_names=["cat", "dog"]).labels.tolist() == [0, 1]


def test_a_column_whose_name_is_no_text_is_a_damaged_file(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", structs(1, 2), [1, 0], ["AnnualCrop", "SeaLake"])
    path = Path(file)
    whole = path.read_bytes()
    at = whole.rindex(b"bytes", 0, whole.rindex(b"ARROW:schema"))  # of the last row group's column
    path.write_bytes(whole[:at] + b"byt\x8ds" + whole[at + 5 :])
    with pytest.raises(DataError, match="expected a Parquet file, got 'utf-8' codec can't decode"):
        opened(file)


def test_classes_are_skipped_by_name_and_the_rest_numbered_anew(tmp_path: Path) -> None:
    names = ["cat", "dog", "owl"]
    file = write_parquet(tmp_path / "a.parquet", structs(*range(9)), [2, 1, 0] * 3, names)
    part = opened(file, skip_classes=["dog"])
    assert part.class_names == ("cat", "owl")
    assert part.labels.tolist() == [1, 0] * 3
    assert [level_of(part.load(place)) for place in range(6)] == [0, 2, 3, 5, 6, 8]
    (told,) = faults_of(file, skip_classes=["dogs"])
    assert told == (
        "toy.skip_classes: expected a class of the data (cat, dog, owl), got 'dogs'. "
        "Correct or remove it."
    )
    (told,) = faults_of(file, skip_classes=["dog", "cat"])
    assert told.startswith("toy.skip_classes: expected two or more classes left, got 1.")


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,iVBORw0KGgo=", "iVBORw0/Ggo" * 9000, "/9j/4AAQSkZJRg" * 80]
)
def test_images_written_as_text_are_refused_in_short(tmp_path: Path, text: str) -> None:
    csv_file = write_csv(tmp_path / "a.csv", "image,label", f'"{text}",cat', f'"{text}",dog')
    for file in (csv_file, write_parquet(tmp_path / "a.parquet", pa.array([text] * 2), ["a", "b"])):
        (told,) = faults_of(file)
        assert f"of {len(text):,} characters, as base64 is (2 in all). Write the images" in told
        assert len(told) < 400
