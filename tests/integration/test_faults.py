"""Faults that a study meets: signals, disks, folders, memory."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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


def command(spec: StudySpec, out: Path, cache: Path) -> list[str]:
    file = out.parent / "study.yaml"
    file.write_text(dump_spec(spec))
    run = [sys.executable, "-m", "clipdrift", "run", str(file), "--out", str(out)]
    return [*run, "--cache", str(cache), "--workers", "1", "--cpus-per-run", "1", "--device", "cpu"]


def measure(spec: StudySpec, out: Path, cache: Path, **options: Any) -> Outcome:
    return run_study(spec, out, cache_dir=cache, executor=ONE, **options)


def measure_here(spec: StudySpec, out: Path, cache: Path) -> Outcome:
    """In this process, where what fails is the writing of files."""
    return run_study(spec, out, cache_dir=cache, executor=InProcess())


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "ended early"
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


def test_a_signal_ends_the_study_with_its_state_saved(cache_dir: Path, tmp_path: Path) -> None:
    """That the others are heard alike: tests/unit/test_status.py."""
    number = signal.SIGHUP
    spec, out = tiny(schedule={"epochs": 100000, "batch_size": 20}), tmp_path / "out"
    process = subprocess.Popen(
        command(spec, out, cache_dir),
        stdout=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background has them ignore what is tested here.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    wait_for(out / "baselines", process)
    time.sleep(3)
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 129
    assert told.splitlines()[-1] == (
        "Interrupted; finished runs are safe, and those in hand go on where they stopped. "
        f"Resume: clipdrift run {tmp_path / 'study.yaml'} --out {out}"
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
