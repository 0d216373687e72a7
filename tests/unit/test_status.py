"""What is told of a study while it runs, and of a signal that was heard."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from small_records import record
from typer.testing import CliRunner

from clipdrift.cli.app import app
from clipdrift.machine.signals import Interrupted, interruptions
from clipdrift.records import StudyFolder, atomic_write
from clipdrift.records.claims import claim, in_use
from clipdrift.run import progress
from clipdrift.run.epochs import EpochEvent
from clipdrift.run.files import clear_state
from clipdrift.run.progress import STATE_FILE, ProgressFile, read_progress
from clipdrift.study.status import study_status

RUNNING, SAVED, WAITING = "a-1", "b-2", "c-3"


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """One run finished, one saved in epoch 4, and two more planned."""
    folder, done = StudyFolder(tmp_path / "out"), record()
    folder.create()
    atomic_write(folder.record_path(done.run_id), done.to_json())
    names = {name: name for name in (RUNNING, SAVED, WAITING)}
    folder.write_run_ids({done.run_id: done.identity, **names})
    ProgressFile(folder.run_path(SAVED))(EpochEvent(4, 10))
    (folder.run_path(SAVED) / STATE_FILE).touch()
    return folder


def test_status_tells_what_is_under_way_and_how_far(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tell = ProgressFile(folder.run_path(RUNNING))
    for epoch in range(4):
        tell(EpochEvent(epoch, 10))
        now += 30.0
    with claim(folder.claim_path(RUNNING)) as mine:
        assert mine
        told = CliRunner().invoke(app, ["status", str(folder.path)]).output.splitlines()
        given = json.loads(CliRunner().invoke(app, ["status", str(folder.path), "--json"]).output)
    assert told == [
        f"running     {RUNNING}: epoch 3 of 10, about 3 min 30 s left",
        f"interrupted {SAVED}: epoch 4 of 10",
        f"to do       {WAITING}",
        "4 runs: 1 finished, 1 running, 1 interrupted, 1 to do",
    ]
    far = {"epoch": 3, "epochs": 10, "seconds_left": 210.0}
    assert given.pop(RUNNING) == {"state": "running", **far}
    assert given.pop(SAVED) == {"state": "interrupted", **far, "epoch": 4, "seconds_left": None}
    assert [*given.values()] == [{"state": "finished"}, {"state": "to do"}]
    assert study_status(folder.path)[RUNNING] == "to do"  # its worker is gone


def test_watch_follows_a_study_to_its_end_and_keeps_a_page(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, seen = tmp_path / "progress.html", list[str]()
    done = record()
    hostile = "<b>d-4"  # a name is what somebody gave the method
    folder.write_run_ids({done.run_id: done.identity, SAVED: SAVED, hostile: hostile})

    def sleep(seconds: float) -> None:
        assert seconds == 7
        seen.append(page.read_text())
        (folder.run_path(hostile)).mkdir(exist_ok=True)
        (folder.run_path(hostile) / STATE_FILE).touch()
        if len(seen) == 2:
            folder.write_run_ids({done.run_id: done.identity})  # as if the others were done

    monkeypatch.setattr(time, "sleep", sleep)
    asked = ["watch", str(folder.path), "--every", "7", "--page", str(page)]
    ended = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert ended.output.splitlines() == [
        "3 runs: 1 finished, 1 interrupted, 1 to do",
        "3 runs: 2 interrupted, 1 finished",
        "1 runs: 1 finished",
    ]
    assert 'http-equiv="refresh" content="7"' in seen[0]
    assert f"<td>{SAVED}</td><td>epoch 4 of 10</td>" in seen[0]
    assert "&lt;b&gt;d-4" in seen[1]
    assert hostile not in seen[1]
    assert "refresh" not in page.read_text()  # nothing more to come


def test_progress_is_written_now_and_then_and_goes_with_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tell, read = ProgressFile(tmp_path / "run"), []
    for epoch in range(8):
        tell(EpochEvent(epoch, 9))
        found = read_progress(tmp_path / "run")
        assert found is not None
        read.append(found.epoch)
        now += progress.EVERY_SECONDS / 2
    assert read == [0, 0, 2, 2, 4, 4, 6, 6]
    clear_state(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run" / "progress.json").write_text('{"epoch": 3}')
    assert read_progress(tmp_path / "run") is None


def test_who_only_looks_writes_nothing(folder: StudyFolder) -> None:
    path = folder.claim_path(RUNNING)
    assert not in_use(path)
    assert not folder.claims_path.exists()
    with claim(path):
        before = sorted(folder.claims_path.iterdir())
        assert in_use(path)
        assert sorted(folder.claims_path.iterdir()) == before
    assert not in_use(path)
    lease = next(folder.claims_path.glob("*.lease-*"))
    lease.write_text("another machine")
    assert in_use(path)
    os.utime(lease, (time.time() - 100,) * 2)
    assert not in_use(path)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_answered_at_once(
    name: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    # Who runs the tests in the background has them ignore what is tested here.
    before = signal.signal(signal.Signals[name], signal.SIG_DFL)
    try:
        with pytest.raises(Interrupted) as heard, interruptions():
            signal.raise_signal(signal.Signals[name])
    finally:
        signal.signal(signal.Signals[name], before)
    assert heard.value.exit_code == code
    assert capfd.readouterr().err == (
        f"\n{name}: stopping after the current step; press again to end at once\n"
    )
