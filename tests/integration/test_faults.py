"""Faults that a study meets: signals, disks, folders, memory."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import command, start
from in_process import InProcess
from tiny_study import tiny
from worker_processes import workers_of

from clipdrift.errors import ClipdriftError, StudyFolderError
from clipdrift.executors.local import LocalExecutor
from clipdrift.records import StudyFolder
from clipdrift.run.progress import STATE_FILE
from clipdrift.spec import StudySpec, dump_spec
from clipdrift.study.measure import Outcome, run_study

ONE = LocalExecutor(1, "cpu", cpus=1)


def measure(spec: StudySpec, out: Path, cache: Path, **options: Any) -> Outcome:
    return run_study(spec, out, cache_dir=cache, executor=ONE, **options)


def measure_here(spec: StudySpec, out: Path, cache: Path) -> Outcome:
    """In this process, where what fails is the writing of files."""
    return run_study(spec, out, cache_dir=cache, executor=InProcess())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_study_with_its_state_saved(
    number: int, code: int, cache_dir: Path, tmp_path: Path
) -> None:
    out, study, log = (tmp_path / name for name in ("out", "study.yaml", "log"))
    study.write_text(dump_spec(tiny(schedule={"epochs": 100000, "batch_size": 20})))
    words = ["run", study, "--out", out, "--cache", cache_dir, "--workers", 1, "--device", "cpu"]
    process = start(command, *map(str, words), "--cpus-per-run", "1", log=log, worker=[])
    deadline = time.monotonic() + 120
    while not (out / "baselines").exists():
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < deadline, "no baselines"
        time.sleep(0.02)
    time.sleep(1)
    os.kill(process.pid, number)
    process.join(60)
    told = log.read_text()
    assert process.exitcode == code, told
    assert told.splitlines()[-1] == (
        "Interrupted; finished runs are safe, and those in hand go on where they stopped. "
        f"Resume: clipdrift run {study} --out {out}"
    )
    (state,) = out.glob(f"runs/*/{STATE_FILE}")
    assert not list(state.parent.glob("record.json"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_the_study_goes_on(small_disk: Path, cache_dir: Path) -> None:
    spec = tiny(seeds=[7, 11, 19], methods=["full_ft"])
    with pytest.raises(ClipdriftError, match=r"No space left on device|got .*space"):
        measure_here(spec, small_disk / "out", cache_dir)
    remount(small_disk, "size=200m")
    outcome = measure_here(spec, small_disk / "out", cache_dir)
    assert (outcome.failed, outcome.kept + outcome.measured) == ({}, 3)
    assert StudyFolder(small_disk / "out").records()[1] == []


def test_a_folder_that_becomes_read_only_is_told(small_disk: Path, cache_dir: Path) -> None:
    remount(small_disk, "size=200m")
    measure_here(tiny(), small_disk / "out", cache_dir)
    remount(small_disk, "ro")
    with pytest.raises(ClipdriftError, match="Read-only file system"):
        measure_here(tiny(seeds=[7, 11]), small_disk / "out", cache_dir)
    remount(small_disk, "rw")
    outcome = measure_here(tiny(seeds=[7, 11]), small_disk / "out", cache_dir)
    assert (outcome.kept, outcome.measured) == (1, 1)


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_folder_that_goes_under_way_ends_the_study_at_once(
    how: str, cache_dir: Path, tmp_path: Path
) -> None:
    """The run in hand would last for minutes; nothing of the folder is made anew."""
    out, gone = tmp_path / "out", []

    def take_away(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and not gone:
            gone.append(time.monotonic())
            os.rename(out, tmp_path / "elsewhere")
            if how == "deleted":
                shutil.rmtree(tmp_path / "elsewhere")

    spec = tiny(schedule={"epochs": 100000, "batch_size": 20})
    with pytest.raises(StudyFolderError, match="deleted, renamed or emptied since"):
        measure(spec, out, cache_dir, on_event=take_away)
    assert time.monotonic() - gone[0] < 40
    assert not out.exists()


def test_a_run_out_of_memory_is_tried_again_and_the_others_go_on(
    cache_dir: Path, tmp_path: Path
) -> None:
    """The worker's real limit is put just above what it holds, when its first run is under way."""
    out, events = tmp_path / "out", []

    def squeeze(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "epoch" and not any(e["event"] == "retry" for e in events):
            for worker in workers_of(out):
                pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
                limit = pages * os.sysconf("SC_PAGE_SIZE") + 100_000
                resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))

    spec = tiny(methods=["full_ft"], schedule={"epochs": 20, "batch_size": 60})
    outcome = measure(spec, out, cache_dir, on_event=squeeze)
    assert (outcome.measured, outcome.failed) == (1, {})
    reasons = [e["reason"] for e in events if e["event"] == "retry"]
    assert len(reasons) == 1
    assert "out of memory" in reasons[0]
