"""Sealed records are still held against themselves: numbers, configuration, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_records import record, write_body
from small_study import study

from clipdrift.analysis.questions.probe_sensitivity import FILE_NAME, read_tables
from clipdrift.errors import RecordError
from clipdrift.records import RunRecord, StudyFolder, atomic_write, read_record
from clipdrift.records.ranges import beyond
from clipdrift.run.files import file_hashes
from clipdrift.spec import expand

CONTENT = {"backbone": "b" * 64, "target": "t" * 64}


def of_a_config(**changes: Any) -> dict[str, Any]:
    """The record of a real configuration as JSON, with fields of it replaced."""
    config = expand(study(), precision="float32")[0]
    made = RunRecord.of_run(
        config, config.identity(CONTENT), study="s", backbone="mini-clip", status="finished"
    )
    made.provenance = {"data": CONTENT}
    body: dict[str, Any] = json.loads(made.to_json())
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = body
        for part in parts:
            place = place[part]
        place[last] = value
    return body


def test_a_record_of_its_configuration_is_read(tmp_path: Path) -> None:
    write_body(of_a_config(), tmp_path / "record.json", resealed=True)
    assert read_record(tmp_path / "record.json").config is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 99}, "another seed"),
        ({"learning_rate": 0.5}, "another learning_rate"),
        ({"method": "someone"}, "another method"),
        ({"target": "else"}, "another target"),
        ({"role": "reference"}, "another role"),
        ({"backbone": "another-clip"}, "another backbone"),
        ({"run_id": "land-cover-x"}, "another run_id"),
        ({"config__schedule__epochs": 77}, "another identity"),
        ({"provenance__data__target": "u" * 64}, "another identity"),
    ],
)
def test_a_resealed_record_that_contradicts_its_configuration_is_refused(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    write_body(of_a_config(**change), tmp_path / "record.json", resealed=True)
    with pytest.raises(RecordError, match=f"got {named} than its configuration gives, "):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("name", ["study", "backbone", "leaks", "undefined"])
def test_a_sealed_record_with_an_endless_name_is_refused(name: str, tmp_path: Path) -> None:
    body, text = json.loads(record().to_json()), "x" * 1_000_000
    body[name] = {"leaks": [text], "undefined": {text: "why"}}.get(name, text)
    write_body(body, tmp_path / "record.json", resealed=True)
    with pytest.raises(RecordError, match="got a text of more than 10,000 characters"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("learning_rate",), -1e-5, "learning_rate: -1e-05 instead of a number above 0"),
        (("learning_rate",), 0.0, "learning_rate: 0 instead of a number above 0"),
        (("seed",), -7, "seed: -7 instead of a whole number from 0"),
        (("selected_epoch",), -1, "selected_epoch: -1 instead of a whole number from 0"),
        (("selected_epoch",), 99, "selected_epoch: 99, which its history has not"),
        (("result", "test_accuracy"), 90.0, "result.test_accuracy: 90 instead of a fraction, 0 to"),
        (("result", "transfer", "digits", "retention_pct"), -1.0, "retention_pct: -1 instead"),
        (("result", "transfer", "digits", "n_images"), 0, "n_images: 0 instead of a whole number"),
        (("result", "parameters_trained"), -1, "parameters_trained: -1 instead"),
        (("result", "levels", "gini"), 1e200, r"levels.gini: 1e\+200 instead of a number"),
        (("history", 1, "train_loss"), -0.5, r"history\[1\].train_loss: -0.5 instead"),
        (("timing", "wall_seconds"), -1.0, "timing.wall_seconds: -1 instead"),
    ],
)
def test_a_sealed_number_that_no_run_can_have_is_refused(
    place: tuple[Any, ...], value: float, told: str, tmp_path: Path
) -> None:
    body = json.loads(record().to_json())
    assert list(beyond(body)) == []
    part = body
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    write_body(body, tmp_path / "record.json", resealed=True)
    with pytest.raises(RecordError, match=told):
        read_record(tmp_path / "record.json")


def test_a_table_of_probe_images_with_a_flipped_byte_is_not_read(tmp_path: Path) -> None:
    folder, one = StudyFolder(tmp_path), record()
    atomic_write(folder.path / "runs" / "keep", "")
    run = folder.run_path(one.run_id)
    run.mkdir()
    pd.DataFrame({"image": [0, 1], "gini": [0.25, 0.5]}).to_parquet(run / FILE_NAME)
    one.files = file_hashes(run)
    tables, faults = read_tables(folder, [one])
    assert (list(tables), faults) == ([one.run_id], [])
    data = bytearray((run / FILE_NAME).read_bytes())
    data[-40] ^= 1  # in the footer's free text: pyarrow reads it all the same
    (run / FILE_NAME).write_bytes(data)
    tables, (fault,) = read_tables(folder, [one])
    assert (tables, fault.where) == ({}, str(run / FILE_NAME))
