"""Whole commands on a study folder: two at once, one after another, and what befalls one."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_study
import pytest
from forked import command, start, workers_of
from tiny_study import measure, measured, tiny

from clipdrift.records import RunRecord, StudyFolder
from clipdrift.run.progress import PROGRESS_FILE, STATE_FILE
from clipdrift.spec import StudySpec, dump_spec

MEASURED = re.compile(r"^\d+/\d+ (\S+): finished in ", re.MULTILINE)
FOUND = re.compile(r"^\d+/\d+ (\S+): finished \(by another process\)", re.MULTILINE)


@dataclass
class Desk:
    """A study folder, and commands that are started on it."""

    folder: Path
    cache: Path
    started: int = 0

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(self, spec: StudySpec, *, worker: tuple[str, ...] = ()) -> tuple[Any, Path]:
        """`clipdrift run` with one worker: its process and what it says."""
        file = self.folder / "study.yaml"
        file.write_text(dump_spec(spec))
        words = ("run", str(file), "--out", str(self.out), "--cache", str(self.cache))
        options = ("--workers", "1", "--device", "cpu", "--cpus-per-run", "1")
        log = self._log()
        return start(command, *words, *options, log=log, worker=worker), log

    def measure(self, spec: StudySpec, out: Path, workers: int) -> dict[str, int]:
        """What `run_study` did, in numbers of runs."""
        log = self._log()
        process = start(
            measure, dump_spec(spec), str(out), str(self.cache), workers, log=log, worker=()
        )
        process.join()
        assert process.exitcode == 0, log.read_text()
        counts: dict[str, int] = json.loads(log.read_text().splitlines()[-1])
        return counts

    def _log(self) -> Path:
        self.started += 1
        return self.folder / f"log-{self.started}"


@pytest.fixture
def desk(tmp_path: Path, cache_dir: Path) -> Desk:
    return Desk(tmp_path, cache_dir)


def records(out: Path) -> dict[str, RunRecord]:
    found, faults = StudyFolder(out).records()
    assert not faults
    return {record.run_id: record for record in found}


def wait_until(seen: Callable[[], object], process: Any) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.is_alive(), "ended early"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.01)


def test_two_commands_at_once_share_the_runs_and_both_end_whole(desk: Desk) -> None:
    spec = tiny(seeds=[1, 2, 3])
    both = [desk.run(spec) for _ in range(2)]
    told = []
    for process, log in both:
        process.join()
        told.append(log.read_text())
        assert process.exitcode == 0, told[-1]
    runs = records(desk.out).keys()
    assert len(runs) == 3
    measured_by = [set(MEASURED.findall(text)) for text in told]
    assert Counter(run for one in measured_by for run in one) == Counter(runs)  # each once
    for text, mine in zip(told, measured_by, strict=True):
        assert "Report: " in text
        kept = re.search(r"3 runs, (\d) already done", text)
        assert len(mine) + len(FOUND.findall(text)) + int(kept[1] if kept else 0) == 3


def test_a_command_waits_for_the_worker_of_one_that_was_killed(desk: Desk) -> None:
    spec = tiny(schedule={"epochs": 12, "batch_size": 20})
    first, _ = desk.run(spec, worker=("--checkpoint-seconds", "0"))
    wait_until(lambda: list(desk.out.glob(f"runs/*/{STATE_FILE}")), first)
    (orphan,) = workers_of(desk.out)
    os.kill(orphan, signal.SIGSTOP)
    first.kill()
    first.join()
    second, log = desk.run(spec)
    waits = "1 runs are being measured by another process; waiting for them"
    try:
        wait_until(lambda: log.exists() and waits in log.read_text(), second)
    finally:
        os.kill(orphan, signal.SIGCONT)
    second.join()
    assert second.exitcode == 0, log.read_text()
    (record,) = records(desk.out).values()
    assert MEASURED.findall(log.read_text()) == [record.run_id]
    assert record.timing["interruptions"] == 1  # it saved its state, and that was taken up
    assert [epoch.epoch for epoch in record.history] == list(range(13))


def test_another_study_is_refused_while_one_runs_in_the_folder(desk: Desk) -> None:
    first, said = desk.run(tiny(schedule={"epochs": 12, "batch_size": 20}))
    wait_until(lambda: list(desk.out.glob("baselines/*")), first)
    plan = StudyFolder(desk.out).plan_path.read_bytes()
    other, log = desk.run(tiny(seeds=[8]))
    other.join()
    assert other.exitcode == 2
    assert "expected a folder in which no other study is being measured, got" in log.read_text()
    first.join()
    assert first.exitcode == 0, said.read_text()
    assert StudyFolder(desk.out).plan_path.read_bytes() == plan
    (record,) = records(desk.out).values()
    assert (record.seed, record.status) == (7, "finished")


LONG = {"schedule": {"epochs": 100000, "batch_size": 20}}


def in_training(desk: Desk, spec: StudySpec) -> tuple[Any, Path]:
    """A command whose worker has read its first epoch; and what it says."""
    process, log = desk.run(spec)
    wait_until(lambda: list(desk.out.glob(f"runs/*/{PROGRESS_FILE}")), process)
    return process, log


def test_a_signal_ends_the_study_with_its_state_saved(desk: Desk) -> None:
    """That the others are heard alike: tests/unit/test_status.py."""
    process, log = in_training(desk, tiny(**LONG))
    os.kill(process.pid, signal.SIGHUP)
    process.join(60)
    assert process.exitcode == 129
    assert log.read_text().splitlines()[-1] == (
        "Interrupted; finished runs are safe, and those in hand go on where they stopped. "
        f"Resume: clipdrift run {desk.folder / 'study.yaml'} --out {desk.out}"
    )
    (state,) = desk.out.glob(f"runs/*/{STATE_FILE}")
    assert not list(state.parent.glob("record.json"))


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_folder_that_goes_under_way_ends_the_study_at_once(how: str, desk: Desk) -> None:
    """The run in hand would last for minutes; nothing of the folder is made anew."""
    process, log = in_training(desk, tiny(**LONG))
    elsewhere = desk.out.rename(desk.folder / "elsewhere")
    if how == "deleted":
        shutil.rmtree(elsewhere)
    process.join(40)
    assert process.exitcode == 2
    assert "deleted, renamed or emptied since" in log.read_text()
    assert not desk.out.exists()


def test_a_run_out_of_memory_is_tried_again(desk: Desk) -> None:
    """The worker's real limit is put just above what it holds, when its run is under way."""
    spec = tiny(methods=["full_ft"], schedule={"epochs": 20, "batch_size": 60})
    process, log = in_training(desk, spec)
    (worker,) = workers_of(desk.out)
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 100_000
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, limit))
    process.join()
    assert process.exitcode == 0, log.read_text()
    (retried,) = [line for line in log.read_text().splitlines() if "out of memory" in line]
    assert "trying once more" in retried
    (record,) = records(desk.out).values()
    assert record.status == "finished"


def test_an_amended_study_measures_what_is_missing(desk: Desk) -> None:
    short = {"epochs": 1, "batch_size": 20}
    assert desk.measure(tiny(schedule=short), desk.out, 1) == {"total": 1, "kept": 0, "measured": 1}
    (first,) = records(desk.out)
    path = StudyFolder(desk.out).record_path(first)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    probe = {"kind": "linear_probe", "role": "reference", "learning_rates": [1e-2]}
    amended = tiny(
        targets=[{"name": name, "builtin": name} for name in ("land-cover", "digits")],
        methods=[{"name": "lora", "kind": "lora", "dropout": 0.2}, probe],
        learning_rates=[1e-3, 3e-3],
        seeds=[7, 11],
        schedule=short,
    )
    assert desk.measure(amended, desk.out, 1) == {"total": 12, "kept": 1, "measured": 11}
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    found = records(desk.out).values()
    axes = ("target", "method", "learning_rate", "seed")
    seen = {axis: {getattr(record, axis) for record in found} for axis in axes}
    assert seen == {
        "target": {"land-cover", "digits"},
        "method": {"lora", "linear_probe"},
        "learning_rate": {1e-3, 3e-3, 1e-2},
        "seed": {7, 11},
    }
    fewer = desk.measure(tiny(schedule=short), desk.out, 1)
    assert fewer == {"total": 1, "kept": 1, "measured": 0}


def test_records_are_equal_to_the_bit_for_one_and_for_two_workers(desk: Desk) -> None:
    spec = tiny(methods=["full_ft", {"kind": "lora", "dropout": 0.2}])
    outs = [desk.folder / f"{workers}-workers" for workers in (1, 2)]
    for workers, out in enumerate(outs, start=1):
        desk.measure(spec, out, workers)
    one, two = ({run: measured(r) for run, r in records(out).items()} for out in outs)
    assert len(one) == 2
    assert all(record["files"].keys() >= {"head.safetensors"} for record in one.values())
    assert one == two


def test_kills_at_random_moments_lose_nothing(desk: Desk) -> None:
    study = {**kill_study.STUDY, "learning_rates": [1e-3]}
    told: list[str] = []
    killing = kill_study.kill(
        desk.folder, kills=3, seed=3, cache=desk.cache, study=study, tell=told.append
    )
    assert len(killing.kills) == len(told) == 3
    assert len(killing.expected) == 2
    assert killing.ended >= 1
