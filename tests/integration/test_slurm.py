"""The SLURM executor on a SLURM that is started for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from equal_records import measured, two_runs
from planted_modules import plant
from slurm_cluster import PATH, missing_programs, slurm_cluster
from tiny_study import tiny
from worker_program import handed_out, program

from clipdrift.errors import ExecutorError
from clipdrift.executors import Event
from clipdrift.executors.slurm import SlurmExecutor
from clipdrift.machine.devices import available_cores
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec
from clipdrift.study.measure import run_study, worker_program
from clipdrift.study.status import study_status
from clipdrift.study.tasks import Task

CPUS = max(1, available_cores() // 2)
"""Threads of a worker, as the local executor gives each of two."""

HOW_TO = "install it with tools/ensure_slurm.sh"


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A running SLURM. Where there is none the tests are skipped, and fail where CI=true."""
    missing = missing_programs()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"no {', '.join(missing)} found, and CI=true: {HOW_TO}")
    if missing:
        pytest.skip(f"no {', '.join(missing)} found: {HOW_TO}")
    folder = Path(tempfile.mkdtemp(prefix="cd-slurm-"))
    try:
        with (
            slurm_cluster(folder, cpus=CPUS) as configuration,
            pytest.MonkeyPatch.context() as set_,
        ):
            set_.setenv("SLURM_CONF", str(configuration))
            set_.setenv("PATH", PATH)
            yield
    finally:
        shutil.rmtree(folder)


def run(folder: Path, keys: list[str], **options: object) -> Iterator[Event]:
    settings = {"minutes": 1, "poll_seconds": 0.3, **options}
    return SlurmExecutor(**settings).run(program(folder), keys)  # type: ignore[arg-type]


def jobs() -> list[str]:
    return subprocess.run(
        ["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True
    ).stdout.split()


@pytest.mark.usefixtures("slurm")
def test_shares_of_an_array_with_deaths_and_a_time_limit(tmp_path: Path) -> None:
    keys = ["a", "b", "once", "c", "die", "d", "long"]
    events = list(run(tmp_path, keys, runs_per_job=2))
    closed = [(e["key"], e["event"]) for e in events if e.get("last")]
    assert sorted(closed) == sorted((key, "lost" if key == "die" else "measured") for key in keys)
    assert handed_out(tmp_path) == {"a": 1, "b": 1, "c": 1, "d": 1, "once": 2, "die": 2, "long": 2}
    reasons = {e["key"]: e["reason"] for e in events if e["event"] in {"retry", "lost"}}
    assert set(reasons) == {"once", "die"}  # `long` met its time limit, which is no death
    for reason in reasons.values():
        assert "ended as FAILED (exit code 3:0); last words: last words" in reason
    assert {tuple(e["given"]) for e in events if e.get("given")} == {
        ("--device", "cpu", "--threads", "1")
    }
    said = [e["text"] for e in events if e["event"] == "prepare"]
    assert "7 runs in 4 elements" in said[0]


@pytest.mark.usefixtures("slurm")
def test_jobs_outlive_the_call_and_the_next_call_follows_them(tmp_path: Path) -> None:
    events = run(tmp_path, ["hang", "a"], minutes=60, workers=1)
    for event in events:
        if event.get("key") == "hang":
            break
    events.close()  # type: ignore[attr-defined]
    waiting = jobs()
    assert len(waiting) == 2
    again = run(tmp_path, ["hang", "a", "b"], minutes=60)
    first = next(again)
    assert first["text"] == f"following SLURM jobs of an earlier call: {waiting[0].split('_')[0]}"
    submitted = next(again)["text"]
    assert "1 runs in 1 elements" in submitted
    pid = int((tmp_path / "log").read_text().split()[1])
    seen = Counter()
    for event in again:
        seen[event.get("key"), event["event"]] += 1
        if event["event"] == "measured" and event["key"] == "b":
            os.kill(pid, signal.SIGKILL)  # frees the element that waits behind `hang`
        if event["event"] == "retry":
            assert "killed by signal" in event["reason"] or "FAILED" in event["reason"]
            break
    again.close()  # type: ignore[attr-defined]
    assert seen["b", "measured"] == 1
    subprocess.run(["scancel", "--name", "clipdrift"], check=True)


@pytest.mark.usefixtures("slurm")
def test_code_in_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    StudyFolder(tmp_path / "out").create()
    workers = worker_program(StudyFolder(tmp_path / "out"), tmp_path / "cache")
    events = list(SlurmExecutor(minutes=1, poll_seconds=0.3).run(workers, ["a"]))
    assert "expected a study, got nothing there" in events[-1]["reason"]
    assert not marker.exists()


@pytest.mark.usefixtures("slurm")
def test_a_refused_submission_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError) as refused:
        list(run(tmp_path, ["a"], options={"partition": "nowhere"}))
    assert "expected a submission that SLURM takes, got" in str(refused.value)
    assert "invalid partition specified" in str(refused.value)
    with pytest.raises(ExecutorError, match=r"Unavailable parameter\(s\): \['colour'\]"):
        list(run(tmp_path, ["a"], options={"colour": "blue"}))
    assert not (tmp_path / "log").exists()


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorError) as refused:
        list(run(tmp_path, ["a"]))
    assert str(refused.value) == (
        "--executor slurm: expected SLURM's commands on this machine, got no sbatch. "
        "Run it where jobs are submitted, or use another --executor."
    )


@pytest.mark.usefixtures("slurm")
def test_a_study_gives_the_records_of_local_workers(
    finished_study: Path, small_spec: StudySpec, cache_dir: Path, tmp_path: Path
) -> None:
    """One job is preempted and another one's worker is killed on the way."""
    out, struck = tmp_path / "study", set()

    def strike(event: Event) -> None:
        if event["event"] == "epoch" and len(struck) < 2 and event["key"] not in struck:
            name = _job_of(out, event["key"])
            if struck:
                subprocess.run(["scancel", "--signal=KILL", name], check=True)
            else:
                subprocess.run(["scontrol", "requeue", name], check=True)
            struck.add(event["key"])

    executor = SlurmExecutor(cpus=CPUS, minutes=30, poll_seconds=0.3)
    outcome = run_study(
        two_runs(small_spec), out, executor=executor, cache_dir=cache_dir, on_event=strike
    )
    assert len(struck) == 2
    assert (outcome.measured + outcome.kept, outcome.failed) == (2, {})
    local = measured(finished_study)
    assert measured(out) == {run_id: local[run_id] for run_id in study_status(out)}


@pytest.mark.usefixtures("slurm")
def test_a_job_told_of_its_time_limit_goes_on_in_the_next_from_its_saved_state(
    cache_dir: Path, tmp_path: Path
) -> None:
    """What SLURM sends before the limit is sent by hand: its clock counts in minutes."""
    spec = tiny(schedule={"epochs": 25, "batch_size": 20})
    out, told = tmp_path / "study", []

    def tell(event: Event) -> None:
        if event["event"] == "epoch" and event["epoch"] >= 2 and not told:
            told.append(event["epoch"])
            name = _job_of(out, event["key"])
            subprocess.run(["scancel", "--signal=TERM", name], check=True)

    executor = SlurmExecutor(cpus=CPUS, minutes=30, poll_seconds=0.3)
    outcome = run_study(spec, out, executor=executor, cache_dir=cache_dir, on_event=tell)
    assert told
    assert (outcome.measured + outcome.kept, outcome.failed) == (1, {})
    (record,) = StudyFolder(out).records()[0]
    assert record.timing["interruptions"] == 1
    assert [epoch.epoch for epoch in record.history] == list(range(26))


def _job_of(out: Path, key: str) -> str:
    for keys in out.glob("logs/slurm/keys-*/*.txt"):
        if key in keys.read_text().split():
            ids = [p.stem for p in out.glob("logs/slurm/*.json")]
            return f"{max(ids, key=int)}_{keys.stem}"
    raise AssertionError(key)


@pytest.mark.usefixtures("slurm")
def test_a_run_pauses_after_the_epoch_that_it_is_told(cache_dir: Path, tmp_path: Path) -> None:
    outcome = run_study(
        tiny(),
        tmp_path / "study",
        executor=SlurmExecutor(minutes=5, poll_seconds=0.5),
        cache_dir=cache_dir,
        batches=lambda folder, planned: [[Task(planned[0], until=1)]],
    )
    assert (outcome.measured, outcome.stopped, outcome.failed) == (0, 1, {})
