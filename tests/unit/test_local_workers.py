"""The local executor, with small programs in place of workers."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from planted_modules import plant
from small_models import EMBEDDED
from tiny_study import TEXT
from worker_program import handed_out, program, stubborn

from clipdrift.cli import main
from clipdrift.errors import ExecutorError
from clipdrift.executors import Event, Program, local
from clipdrift.executors.local import LocalExecutor
from clipdrift.machine.devices import available_cores, every_device
from clipdrift.records import StudyFolder
from clipdrift.study.measure import worker_program


def run(folder: Path, keys: list[str], workers: int = 2) -> Iterator[Event]:
    return LocalExecutor(workers, "cpu").run(program(folder), keys)


def test_every_key_is_worked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    keys = [f"k{i}" for i in range(9)]
    events = list(run(tmp_path, keys))
    assert Counter(e["key"] for e in events if e.get("last")) == Counter(keys)
    assert sum(e["event"] == "epoch" for e in events) == 9
    threads = str(max(1, available_cores() // 2))
    assert {e["threads"] for e in events if e.get("last")} == {threads}
    given = ["--device", "cpu", "--threads", threads]
    assert all(e["given"] == given for e in events if e.get("last"))
    assert handed_out(tmp_path) == Counter(keys)
    processes = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(processes) <= 2


def test_threads_may_be_fixed_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        events = list(LocalExecutor(workers, "cpu", cpus=5).run(program(folder), ["a", "b", "c"]))
        assert {e["threads"] for e in events if e.get("last")} == {"5"}


def test_no_more_workers_than_keys_and_none_without(tmp_path: Path) -> None:
    list(run(tmp_path, ["only"], workers=8))
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert list(run(tmp_path, [])) == []


def test_a_key_whose_worker_died_is_tried_once_more(tmp_path: Path) -> None:
    events = list(run(tmp_path, ["a", "once", "b", "c"]))
    retried = [e for e in events if e["event"] == "retry"]
    assert [e["key"] for e in retried] == ["once"]
    assert retried[0]["reason"] == "worker ended with exit code 3; last words: last words"
    assert {e["key"] for e in events if e["event"] == "measured"} == {"a", "once", "b", "c"}


def test_a_key_that_kills_twice_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    events = list(run(tmp_path, ["die", "a", "b"], workers=1))
    lost = [e for e in events if e["event"] == "lost"]
    assert [(e["key"], e["last"]) for e in lost] == [("die", True)]
    assert handed_out(tmp_path) == Counter({"die": 2, "a": 1, "b": 1})
    assert {e["key"] for e in events if e["event"] == "measured"} == {"a", "b"}


def test_closing_early_ends_the_workers(tmp_path: Path) -> None:
    events = run(tmp_path, ["hang-1", "hang-2"])
    assert next(events)["event"] == "epoch"
    assert next(events)["event"] == "epoch"
    events.close()  # type: ignore[attr-defined]
    processes = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_program_that_cannot_start_is_given_up_at_once(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'starts')!r}, 'a').write('.'); raise SystemExit('no such thing')"
    broken = Program((sys.executable, "-c", code), tmp_path / "logs")
    with pytest.raises(ExecutorError) as caught:
        list(LocalExecutor(2, "cpu").run(broken, [f"k{i}" for i in range(20)]))
    log = str(caught.value).split("Mend what ")[1].split(" says")[0]
    assert str(caught.value) == (
        "workers: expected processes that start, got 2 that did not: worker ended with exit code "
        f"1; last words: no such thing. Mend what {log} says; finished runs are safe."
    )
    assert len((tmp_path / "starts").read_text()) <= 3


@pytest.mark.slow
def test_a_worker_without_progress_is_killed_and_its_key_retried(tmp_path: Path) -> None:
    executor = LocalExecutor(2, "cpu", run_timeout=2)
    events = list(executor.run(program(tmp_path), ["hang", "a", "b"]))
    assert Counter(e["event"] for e in events if e["key"] == "hang") == {
        "epoch": 2, "retry": 1, "lost": 1
    }  # fmt: skip
    lost = next(e for e in events if e["event"] == "lost")
    assert lost["reason"] == "no progress in 2 s (--run-timeout), killed"
    assert {e["key"] for e in events if e["event"] == "measured"} == {"a", "b"}


@pytest.mark.parametrize(("needs", "saved"), [(0.3, True), (600, False)])
def test_busy_workers_get_time_to_save(
    needs: float, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "STOP_SECONDS", 20.0 if saved else 0.3)
    file = tmp_path / "state"
    events = LocalExecutor(1, "cpu").run(stubborn(tmp_path, needs, file), ["a"])
    next(iter(events))
    events.close()  # type: ignore[attr-defined]
    assert file.exists() is saved


def found(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    """A machine on which torch finds so many devices of a kind."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: number)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_auto_takes_the_accelerator_that_torch_finds(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    found(monkeypatch, kind, 1)
    assert every_device("auto") == every_device(kind) == every_device(f"{kind}:0") == (f"{kind}:0",)
    assert every_device("cpu") == ("cpu",)
    with pytest.raises(ExecutorError, match=f"expected one of cpu, {kind}:0, got cuda"):
        every_device("cuda")


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, "cuda", 3)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("workers", "device", "seen"),
    [
        (None, "auto", {"cuda:0", "cuda:1", "cuda:2"}),
        (2, "cuda", {"cuda:0", "cuda:1"}),
        (None, "cuda:2", {"cuda:2"}),
        (2, "cpu", {"cpu"}),
    ],
)
def test_each_worker_has_one_of_the_gpus(
    tmp_path: Path, workers: int | None, device: str, seen: set[str]
) -> None:
    keys = [f"k{i}" for i in range(12)]
    events = list(LocalExecutor(workers, device).run(program(tmp_path), keys))
    logs = len(list((tmp_path / "logs").iterdir()))
    assert logs == (workers or len(seen))
    assert {e["given"][1] for e in events if e.get("last")} <= seen
    assert len({e["given"][1] for e in events if e.get("last")}) >= 1


@pytest.mark.usefixtures("three_gpus")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ExecutorError) as refused:
        every_device("cuda:3")
    assert str(refused.value) == (
        "device: expected one of cpu, cuda:0, cuda:1, cuda:2, got cuda:3. Choose a --device."
    )


def test_without_gpus_cuda_is_refused_and_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert every_device("auto") == ("cpu",)
    with pytest.raises(ExecutorError, match="expected one of cpu, no GPU, got cuda"):
        every_device("cuda")


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "study.yaml"),
        ("run", "study.yaml", "--out", "out"),
        ("evaluate", str(EMBEDDED), "--spec", "study.yaml"),
        ("after", "study", "--soup"),
    ],
)
@pytest.mark.parametrize("device", ["foo", "cuda", "cuda:7", "CPU", ""])
def test_a_device_that_is_not_there_is_refused_by_every_command(
    words: tuple[str, ...],
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(TEXT)
    monkeypatch.setattr(sys, "argv", ["clipdrift", *words, "--device", device])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"device: expected one of cpu, no GPU, got {device}. Choose" in capsys.readouterr().err


FAULTS = """
import json, mmap, resource, sys
def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for line in sys.stdin:
    def layer():
        return [b"x" * (8 << 20) for _ in range(4)]  # written to, unlike bytes(n)
    layer()
    before = count()
    for _ in range(20):
        layer()
    pages = 20 * 4 * (8 << 20) / mmap.PAGESIZE
    part = (count() - before) / pages
    told = {"event": "done", "key": line.strip(), "last": True, "part": part}
    print(json.dumps(told), flush=True)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_workers_keep_freed_memory_for_the_next_layer(tmp_path: Path) -> None:
    workers = Program((sys.executable, "-c", FAULTS), tmp_path / "logs")
    (event,) = LocalExecutor(1, "cpu").run(workers, ["a"])
    assert event["part"] < 0.2  # of the pages written to; glibc as it comes faults on all


def test_what_is_set_for_the_allocator_or_the_hub_goes_with_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = program(tmp_path).environment(3)
    assert given["MALLOC_TRIM_THRESHOLD_"] == given["HF_HUB_OFFLINE"] == "1"
    assert given["OMP_NUM_THREADS"] == "3"


@pytest.mark.slow
def test_code_in_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    StudyFolder(tmp_path / "out").create()
    workers = worker_program(StudyFolder(tmp_path / "out"), tmp_path / "cache")
    with pytest.raises(ExecutorError, match="expected a study, got nothing there"):
        list(LocalExecutor(1, "cpu").run(workers, ["a"]))
    assert not marker.exists()


def test_a_path_of_the_users_own_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("WORD = 'from PYTHONPATH'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "import json, mine, sys; [print(json.dumps({'key': line.strip(), 'event': 'measured', "
    source += "'last': True, 'word': mine.WORD}), flush=True) for line in sys.stdin]"
    own = Program((sys.executable, "-c", source), tmp_path / "logs")
    (event,) = LocalExecutor(1, "cpu").run(own, ["a"])
    assert event["word"] == "from PYTHONPATH"
