"""A plan is not replaced while runs of it are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_records import record
from small_study import study

from clipdrift.errors import StudyFolderError
from clipdrift.records import StudyFolder, atomic_write
from clipdrift.records.after import readings
from clipdrift.records.claims import claim, in_hand
from clipdrift.records.plan_claim import plan_in_use, same_plan
from clipdrift.run.files import file_hashes

FIRST, SECOND = {"a-1": "1"}, {"b-2": "2"}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "out")
    made.create()
    return made


@contextmanager
def using(folder: StudyFolder, plan: dict[str, str]) -> Iterator[None]:
    """What a command does with its plan."""
    spec = study()
    there = lambda: folder.has_plan(spec, plan)  # noqa: E731
    with plan_in_use(folder, there, lambda: folder.write_plan(spec, plan)):
        yield


def test_another_plan_waits_for_the_last_command_on_the_first(folder: StudyFolder) -> None:
    with using(folder, FIRST):
        with using(folder, FIRST):  # the same study: two commands share it
            assert folder.planned() == FIRST
        with pytest.raises(StudyFolderError) as refused, using(folder, SECOND):
            pass
        assert str(refused.value) == (
            f"{folder.path}: expected a folder in which no other study is being measured, got one "
            "with another study under way. Wait for its command to end, "
            "or choose another --out."
        )
        assert folder.planned() == FIRST
    with using(folder, SECOND):
        assert folder.planned() == SECOND


def test_a_worker_whose_command_was_killed_holds_the_plan_too(folder: StudyFolder) -> None:
    with using(folder, FIRST):
        pass
    with claim(folder.claim_path("a-1")) as mine:
        assert mine
        with pytest.raises(StudyFolderError, match=r"under way \(a-1\)"), using(folder, SECOND):
            pass
    assert folder.planned() == FIRST


def test_a_plan_that_was_replaced_is_not_analysed(folder: StudyFolder) -> None:
    with using(folder, FIRST):
        pass
    with same_plan(folder, FIRST), pytest.raises(StudyFolderError), using(folder, SECOND):
        pass
    with using(folder, SECOND):
        pass
    with pytest.raises(StudyFolderError, match="got that of another one"), same_plan(folder, FIRST):
        pass
    folder.plan_path.unlink()
    with pytest.raises(StudyFolderError, match="deleted, renamed"), same_plan(folder, SECOND):
        pass


def test_what_other_programs_leave_among_the_claims_is_no_claim(folder: StudyFolder) -> None:
    names = (
        "a-1.lease-1 (conflicted copy)",
        "a-1.lease-x",
        "desktop.ini",
        ".lease-1",
        "a-1.lease-",
    )
    for _ in range(2):
        with using(folder, FIRST), claim(folder.claim_path("a-1")) as mine:
            assert mine
            assert "a-1" in in_hand(folder.claims_path)
        for name in names:
            (folder.claims_path / name).write_text("left behind")
    assert in_hand(folder.claims_path) == []


def test_what_other_programs_leave_among_the_files_of_a_run_is_none_of_it(
    folder: StudyFolder,
) -> None:
    run = folder.run_path("a-1")
    theirs = (
        ".DS_Store",
        "._head.safetensors",
        "head (conflicted copy).safetensors",
        "head.safetensors~",
        "adapter (1)/weights.safetensors",
        "adapter/.sync.tmp",
        "desktop.ini",
    )
    for name in ("head.safetensors", "text/adapter/weights.safetensors", *theirs):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    (run / "folder.safetensors").mkdir()
    assert list(file_hashes(run)) == ["head.safetensors", "text/adapter/weights.safetensors"]
    after = folder.path / "after"
    after.mkdir()
    for name in ("._x.json", "x (conflicted copy).json", "x.json~"):
        (after / name).write_text("{")
    assert readings(folder, []) == ([], [])


def test_copies_of_records_by_other_programs_are_not_read(folder: StudyFolder) -> None:
    one = record()
    for name in (one.run_id, f"{one.run_id} (conflicted copy)", f"{one.run_id}~"):
        (folder.runs_path / name).mkdir()
        atomic_write(folder.record_path(name), one.to_json())
    (folder.runs_path / "desktop.ini").write_text("left behind")
    found, faults = folder.records()
    assert ([one.run_id], []) == ([one.run_id for one in found], faults)
