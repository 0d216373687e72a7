"""The Ray executor on a cluster of several nodes of this machine."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from equal_records import measured, two_runs
from planted_modules import plant
from tiny_study import tiny
from worker_program import handed_out, process_of, program, stubborn

from clipdrift.errors import ExecutorError
from clipdrift.executors import Event
from clipdrift.executors.ray import RayExecutor
from clipdrift.machine.devices import available_cores
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec
from clipdrift.study.measure import run_study, worker_program
from clipdrift.study.status import study_status
from clipdrift.study.tasks import Task

CPUS = max(1, available_cores() // 2)
"""Threads of a worker, as the local executor gives each of two."""

SMALL = {"object_store_memory": 80 * 1024**2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing and a node for two workers, which says that it has a GPU."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2 * CPUS, num_gpus=1, **SMALL)
    yield cluster
    cluster.shutdown()


def run(cluster: Any, folder: Path, keys: list[str], **options: Any) -> Iterator[Event]:
    return RayExecutor(cluster.address, **options).run(program(folder), keys)


def test_deaths_are_retried_and_then_given_up(cluster: Any, tmp_path: Path) -> None:
    events = list(run(cluster, tmp_path, ["a", "once", "die", "b"], cpus=CPUS))
    closed = {e["key"]: e["event"] for e in events if e.get("last")}
    assert closed == {"a": "measured", "once": "measured", "b": "measured", "die": "lost"}
    assert handed_out(tmp_path) == {"a": 1, "b": 1, "once": 2, "die": 2}
    for event in events:
        if event["event"] in {"retry", "lost"}:
            assert "worker ended with exit code 3; last words: last words" in event["reason"]
    assert {e["threads"] for e in events if "threads" in e} == {str(CPUS)}


def test_two_workers_share_a_gpu(cluster: Any, tmp_path: Path) -> None:
    keys = ["long-1", "long-2"]
    events = run(cluster, tmp_path, keys, cpus=CPUS, gpus=0.5)
    assert sorted([next(events)["key"], next(events)["key"]]) == keys  # both at once
    for key in keys:
        os.kill(process_of(tmp_path, key), signal.SIGKILL)
    closed = [e for e in events if e["event"] == "measured"]
    assert sorted((e["key"], e["given"][1], e["gpu"]) for e in closed) == [
        (key, "cuda", "0") for key in keys
    ]


def test_closing_early_ends_the_worker(cluster: Any, tmp_path: Path) -> None:
    events = run(cluster, tmp_path, ["hang"], cpus=CPUS)
    assert next(events)["event"] == "epoch"
    pid = process_of(tmp_path, "hang")
    os.kill(pid, 0)
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_closing_early_lets_the_worker_save(cluster: Any, tmp_path: Path) -> None:
    file = tmp_path / "state"
    executor = RayExecutor(cluster.address, cpus=CPUS)
    events = executor.run(stubborn(tmp_path, 0.5, file), ["a"])
    assert next(events)["event"] == "epoch"
    events.close()  # type: ignore[attr-defined]
    assert file.read_text() == "saved"


def test_a_worker_without_progress_is_killed_and_its_key_retried(
    cluster: Any, tmp_path: Path
) -> None:
    events = list(run(cluster, tmp_path, ["hang", "long", "a"], cpus=CPUS, run_timeout=3))
    ends = {e["key"]: e["event"] for e in events if e.get("last")}
    assert ends == {"hang": "lost", "long": "measured", "a": "measured"}
    assert handed_out(tmp_path) == {"hang": 2, "long": 2, "a": 1}
    for event in events:
        if event["event"] in {"retry", "lost"}:
            assert event["reason"].endswith("no progress in 3 s (--run-timeout), killed")
    with pytest.raises(ProcessLookupError):
        os.kill(process_of(tmp_path, "hang"), 0)


def test_code_in_the_working_directory_is_not_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the worker nor by Ray's own process, which imports what it is sent."""
    marker = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    StudyFolder(tmp_path / "out").create()
    workers = worker_program(StudyFolder(tmp_path / "out"), tmp_path / "cache")
    events = list(RayExecutor(cluster.address, cpus=CPUS).run(workers, ["a"]))
    assert "expected a study, got nothing there" in events[-1]["reason"]
    assert not marker.exists()


def test_a_cluster_without_room_and_one_that_is_not_there(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError) as refused:
        list(run(cluster, tmp_path, ["a"], cpus=1, gpus=2))
    assert str(refused.value) == (
        "--executor ray: expected a node with room for 1 CPUs and 2 GPUs, got none in the "
        "cluster. Ask for less per run, or give --workers to wait for nodes that join."
    )
    for address in ("127.0.0.1:1", "nonsense"):
        with pytest.raises(ExecutorError) as refused:
            list(RayExecutor(address).run(program(tmp_path), ["a"]))
        expected = f"--address: expected host:port of a Ray cluster that answers, got {address}: "
        assert str(refused.value).startswith(expected)


def test_a_study_whose_node_is_killed_gives_the_records_of_local_workers(
    cluster: Any, finished_study: Path, small_spec: StudySpec, cache_dir: Path, tmp_path: Path
) -> None:
    node = next(iter(cluster.worker_nodes))
    cluster.add_node(num_cpus=CPUS, **SMALL)
    out, seen = tmp_path / "study", Counter[str]()

    def kill_a_node(event: Event) -> None:
        seen[event["event"]] += 1
        if event["event"] == "epoch" and event["epoch"] == 1 and seen["killed"] == 0:
            seen["killed"] += 1
            cluster.remove_node(node, allow_graceful=False)

    outcome = run_study(
        two_runs(small_spec),
        out,
        executor=RayExecutor(cluster.address, cpus=CPUS),
        cache_dir=cache_dir,
        on_event=kill_a_node,
    )
    assert seen["killed"] == 1
    assert seen["retry"] >= 1
    assert (outcome.measured + outcome.kept, outcome.failed) == (2, {})
    local = measured(finished_study)
    assert measured(out) == {run_id: local[run_id] for run_id in study_status(out)}


def test_a_run_pauses_after_the_epoch_that_it_is_told(
    cluster: Any, cache_dir: Path, tmp_path: Path
) -> None:
    outcome = run_study(
        tiny(),
        tmp_path / "study",
        executor=RayExecutor(cluster.address, cpus=CPUS),
        cache_dir=cache_dir,
        batches=lambda folder, planned: [[Task(planned[0], until=1)]],
    )
    assert (outcome.measured, outcome.stopped, outcome.failed) == (0, 1, {})
