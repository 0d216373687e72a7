"""Files of a study are whole or absent, and only the records of its runs are read."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_records import record
from small_study import study

from clipdrift.errors import RecordError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.spec import load_spec


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "out")
    folder.create()
    return folder


def keep(folder: StudyFolder, run_id: str, **changes: Any) -> RunRecord:
    kept = record(run_id=run_id, **changes)
    atomic_write(folder.record_path(run_id), kept.to_json())
    return kept


@pytest.mark.parametrize("data", [b"\x00\xffnew", "neu \u00fc"])
def test_a_file_is_written_and_replaced(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "new" / "file"
    atomic_write(path, b"old")
    atomic_write(path, data)
    assert path.read_bytes() == (data if isinstance(data, bytes) else data.encode())
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StudyFolderError) as caught:
        atomic_write(path, b"new and longer")
    assert str(caught.value) == (
        f"{path}: expected a folder that can be written, got No space left on device. Free space, "
        "mend the permissions or choose another --out; finished runs are safe."
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_beyond_the_limit_of_the_system_leaves_the_old_one(tmp_path: Path) -> None:
    """A real refusal of the kernel, in a process whose files may hold 4096 bytes."""
    script = """
import resource, signal, sys
from pathlib import Path
from clipdrift.errors import StudyFolderError
from clipdrift.records import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
atomic_write(path, b"old")
try:
    atomic_write(path, b"x" * 100_000)
except StudyFolderError as error:
    print(error)
"""
    path = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert "got File too large" in done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file", b"new")
    assert not list(tmp_path.iterdir())


def test_a_file_is_synced_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def spy_replace(source: str, to: Path) -> None:
        calls.append("replace")
        replace(source, to)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    atomic_write(tmp_path / "file", b"new")
    assert calls == ["file", "replace", "folder"]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(StudyFolderError) as caught:
        StudyFolder(path).create()
    assert str(caught.value) == (
        f"{path}: expected a folder for the results, got a file. Choose another --out."
    )
    with pytest.raises(StudyFolderError, match="got Not a directory"):
        StudyFolder(path / "below").create()
    assert path.read_text() == "mine"


def test_creating_a_folder_twice_keeps_what_is_in_it(folder: StudyFolder) -> None:
    keep(folder, "a")
    folder.create()
    assert folder.record_path("a").exists()


def test_finished_means_valid_and_of_this_identity(folder: StudyFolder) -> None:
    kept = keep(folder, "a", identity="now")
    found = folder.finished("a", "now")
    assert found is not None
    assert found.to_json() == kept.to_json()
    assert folder.finished("a", "then") is None
    assert folder.finished("b", "now") is None


@pytest.mark.parametrize(("status", "counts"), [("diverged", True), ("failed", False)])
def test_a_failed_run_is_not_finished_but_a_diverged_one_is(
    folder: StudyFolder, status: str, counts: bool
) -> None:
    keep(folder, "a", identity="now", status=status)
    assert (folder.finished("a", "now") is not None) is counts


def test_a_folder_without_valid_record_is_not_finished(folder: StudyFolder) -> None:
    folder.run_path("a").mkdir()
    (folder.run_path("a") / "head.safetensors").write_bytes(b"x")
    assert folder.finished("a", "now") is None
    text = record(run_id="a", identity="now").to_json()
    folder.record_path("a").write_text(text[:-20])
    assert folder.finished("a", "now") is None
    folder.record_path("a").write_text(text.replace("0.9", "0.95"))
    assert folder.finished("a", "now") is None
    folder.record_path("a").write_text(text)
    assert folder.finished("a", "now") is not None


def test_the_plan_and_the_study_come_back(folder: StudyFolder) -> None:
    assert folder.planned() is None
    assert folder.read_spec() is None
    folder.write_plan(study(), {"b": "2", "a": "1"})
    assert folder.planned() == {"a": "1", "b": "2"}
    assert folder.read_spec() == study() == load_spec(folder.path / "study.yaml")


def test_a_study_that_was_changed_or_lost_its_checksum_is_refused(folder: StudyFolder) -> None:
    folder.write_plan(study(), {})
    text = folder.spec_path.read_text()
    rate = re.search(r"(?<=learning_rates:\n- )\S+", text)
    assert rate is not None
    folder.spec_path.write_text(text[: rate.start()] + "0.25" + text[rate.end() :])
    assert load_spec(folder.spec_path).learning_rates[0] == 0.25  # still a study, and another
    with pytest.raises(RecordError) as caught:
        folder.read_spec()
    assert str(caught.value) == (
        f"{folder.spec_path}: expected the study as it was run, got a file that was changed since: "
        "its checksum differs or is gone. Remove it and run the study again from your own file; "
        "finished runs are kept."
    )
    folder.spec_path.write_text(text.split("\n", 1)[1])
    with pytest.raises(RecordError, match="its checksum differs or is gone"):
        folder.read_spec()


def test_a_plan_that_was_changed_or_lost_its_checksum_is_refused(folder: StudyFolder) -> None:
    folder.write_plan(study(), {"a": "1", "b": "2"})
    text = folder.plan_path.read_text()
    folder.plan_path.write_text(text.replace('"b": "2"', '"b": "3"'))
    with pytest.raises(RecordError, match="expected the study's plan, got a damaged file"):
        folder.planned()
    folder.plan_path.write_text('{"runs": {"a": "1"}}')
    with pytest.raises(RecordError, match="expected the study's plan, got a damaged file"):
        folder.planned()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"runs": [1]}', "{}", "\xff"])
def test_a_damaged_plan_is_said(folder: StudyFolder, text: str) -> None:
    folder.plan_path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError) as caught:
        folder.planned()
    assert str(caught.value) == (
        f"{folder.plan_path}: expected the study's plan, got a damaged file. "
        "Run the study, or the import, again; finished runs are kept."
    )


def test_only_the_planned_runs_are_read(folder: StudyFolder) -> None:
    keep(folder, "b", identity="2")
    keep(folder, "a", identity="1")
    keep(folder, "of-an-earlier-study", identity="3")
    keep(folder, "c", identity="of other data")
    folder.write_plan(study(), {"c": "4", "b": "2", "a": "1", "not-yet-run": "5"})
    records, faults = folder.records()
    assert [r.run_id for r in records] == ["a", "b"]
    assert [(fault.where, fault.got) for fault in faults] == [
        (str(folder.record_path("c")), "that run on other data")
    ]


def test_without_a_plan_all_records_are_read(folder: StudyFolder) -> None:
    for run_id in ("b", "a"):
        keep(folder, run_id)
    records, faults = folder.records()
    assert [r.run_id for r in records] == ["a", "b"]
    assert faults == []


def test_an_unusable_record_is_a_fault_and_the_others_are_read(folder: StudyFolder) -> None:
    keep(folder, "a", identity="1")
    keep(folder, "b", identity="2")
    text = folder.record_path("b").read_text()
    folder.record_path("b").write_text(text[: len(text) // 2])
    folder.write_plan(study(), {"a": "1", "b": "2"})
    records, faults = folder.records()
    assert [r.run_id for r in records] == ["a"]
    assert [fault.where for fault in faults] == [str(folder.record_path("b"))]


def test_failed_runs_are_read_so_that_they_can_be_told(folder: StudyFolder) -> None:
    keep(folder, "a", status="failed", reason="out of memory")
    (found,), _ = folder.records()
    assert (found.status, found.reason) == ("failed", "out of memory")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyFolderError, match="expected a study folder, got nothing there"):
        StudyFolder(tmp_path / "none").records()


def test_files_may_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    atomic_write(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
