"""A record comes back exactly as written, and nothing else is taken for one."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_records import record, write_body

from clipdrift.errors import RecordError
from clipdrift.records import SCHEMA_VERSION, EpochReading, read_record, schema
from clipdrift.records.readings import Result

Place = tuple[str | int, ...]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.json"


def refusal(path: Path) -> str:
    with pytest.raises(RecordError) as caught:
        read_record(path)
    (fault,) = caught.value.faults
    assert fault.where == str(path)
    assert fault.expected == "a valid run record"
    return f"{fault.got} | {fault.next_step}"


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every number of a nested JSON value, with its place."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*place, key))
    elif isinstance(value, int | float):
        yield place, value


def replaced(body: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    out = copy.deepcopy(body)
    at: Any = out
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return out


def test_a_record_comes_back_as_it_was(path: Path) -> None:
    before = record()
    path.write_text(before.to_json())
    after = read_record(path)
    assert after.model_dump(exclude={"checksum"}) == before.model_dump(exclude={"checksum"})
    assert after.history[1].val_accuracy == 1 / 3  # to the last bit
    assert after.result.drift_per_block["gini"][1] is None
    assert after.to_json() == before.to_json()


def test_the_checksum_is_sha256_of_the_sorted_compact_json(path: Path) -> None:
    body = json.loads(record().to_json())
    stored = body.pop("checksum")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert stored == hashlib.sha256(text.encode()).hexdigest()


def test_the_layout_of_the_file_does_not_matter(path: Path) -> None:
    body = json.loads(record().to_json())
    path.write_text(json.dumps(dict(reversed(body.items()))))
    assert read_record(path).run_id == record().run_id


def test_an_edit_of_any_number_is_seen(path: Path) -> None:
    body = json.loads(record().to_json())
    places = list(leaves(body))
    assert len(places) >= 20
    for place, value in places:
        if place == ("schema_version",):
            continue
        edited = math.nextafter(value, 9) if isinstance(value, float) else value + 1
        write_body(replaced(body, place, edited), path)
        assert refusal(path).startswith("a checksum that does not match its content | Restore"), (
            place
        )


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("result", "test_accuracy"), None),
        (("undefined",), {}),
        (("status",), "diverged"),
        (("identity",), "fedcba9876543210"),
        (("history",), []),
        (("warnings",), ["added"]),
    ],
)
def test_an_edit_of_anything_else_is_seen_too(path: Path, place: Place, value: Any) -> None:
    write_body(replaced(json.loads(record().to_json()), place, value), path)
    assert "checksum" in refusal(path)


def test_a_record_without_checksum_is_refused(path: Path) -> None:
    body = json.loads(record().to_json())
    del body["checksum"]
    write_body(body, path)
    assert "checksum" in refusal(path)


@pytest.mark.parametrize("eighths", range(8))
def test_a_torn_file_is_refused(path: Path, eighths: int) -> None:
    text = record().to_json()
    path.write_text(text[: len(text) * eighths // 8])
    assert refusal(path) == ("a half-written or damaged file | Run the study again to redo it")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", b"\0" * 64],
    ids=["not text", "nested", "huge number", "zeros"],
)
def test_bytes_that_are_no_json_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith("a half-written or damaged file")


@pytest.mark.parametrize("depth", [400, 900, 5000])
def test_a_record_nested_without_reason_is_refused(path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    text = record(provenance={"deep": "here"}).to_json().replace('"here"', deep)
    path.write_text(text)
    assert refusal(path)


@pytest.mark.parametrize("content", ["[]", "null", "7", '"record"'])
def test_json_that_is_no_mapping_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    assert refusal(path).startswith("record: ")


def test_a_missing_record_is_said(path: Path) -> None:
    assert refusal(path) == "No such file or directory | Run the study again to redo it"


def test_a_folder_is_no_record(path: Path) -> None:
    path.mkdir()
    assert refusal(path).startswith("a folder")


def test_a_file_beyond_reason_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_BYTES", 100)
    path.write_text(record().to_json())
    assert refusal(path).startswith("0 MB, where at most 0 MB are read")


def test_a_newer_schema_asks_for_an_update(path: Path) -> None:
    body = json.loads(record().to_json())
    body |= {"schema_version": SCHEMA_VERSION + 1, "a_new_field": 1}
    write_body(body, path, resealed=True)
    assert refusal(path) == (
        f"schema version {SCHEMA_VERSION + 1}, newer than {SCHEMA_VERSION} | Update clipdrift"
    )


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"seed": "seven"}, "seed"),
        ({"status": "done"}, "status"),
        ({"result": {"accuracy": 1}}, "result.accuracy"),
        ({"history": [{"epoch": 0}]}, "history.0.step"),
        ({"extra_field": 1}, "extra_field"),
    ],
)
def test_a_record_of_another_shape_names_the_field(
    path: Path, change: dict[str, Any], place: str
) -> None:
    write_body({**json.loads(record().to_json()), **change}, path, resealed=True)
    assert refusal(path).startswith(f"{place}: ")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ['"test_accuracy": 0.9', '"gini": 0.31', '"cores": 2'])
def test_numbers_that_are_none_are_refused(path: Path, number: str, field: str) -> None:
    key = field.split(":")[0]
    text = record().to_json()
    assert text.count(field) == 1
    path.write_text(text.replace(field, f"{key}: {number}"))
    assert "checksum" in refusal(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"result": Result(test_accuracy=math.nan)},
        {"result": Result(drift_per_block={"gini": [1.0, math.inf]})},
        {"history": [EpochReading(epoch=1, step=1, train_loss=-math.inf)]},
        {"learning_rate": math.nan},
        {"timing": {"wall_seconds": math.nan}},
        {"provenance": {"cores": math.nan}},
    ],
    ids=str,
)
def test_numbers_that_are_none_are_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        record(**changes).to_json()
