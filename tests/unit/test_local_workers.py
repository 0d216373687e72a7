"""The local executor, with small programs in place of workers."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from clipdrift.executors.local import LocalWorkers

PROGRAM = """
import json, os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    key = line.strip()
    with open(here / "log", "a") as log:
        log.write(f"{key} {os.getpid()}\\n")
    print(json.dumps({"event": "epoch", "epoch": 1}), flush=True)
    if key.startswith("die") or (key.startswith("once") and not (here / key).exists()):
        (here / key).touch()
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if key.startswith("hang"):
        time.sleep(600)
    print(json.dumps({"event": "measured", "last": True, "threads": os.environ["T"]}), flush=True)
"""


def pool(folder: Path, n_workers: int = 2) -> LocalWorkers:
    return LocalWorkers(
        [sys.executable, "-c", PROGRAM, str(folder)], n_workers, {"T": "1"}, folder / "logs"
    )


def handed_out(folder: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


def test_every_key_is_worked_through_once(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(9)]
    events = list(pool(tmp_path).run(keys))
    assert Counter(e["key"] for e in events if e.get("last")) == Counter(keys)
    assert sum(e["event"] == "epoch" for e in events) == 9
    assert {e["threads"] for e in events if e.get("last")} == {"1"}
    assert handed_out(tmp_path) == Counter(keys)
    processes = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(processes) <= 2


def test_no_more_workers_than_keys_and_none_without(tmp_path: Path) -> None:
    list(pool(tmp_path, n_workers=8).run(["only"]))
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert list(pool(tmp_path).run([])) == []


def test_a_key_whose_worker_died_is_tried_once_more(tmp_path: Path) -> None:
    events = list(pool(tmp_path).run(["a", "once", "b", "c"]))
    retried = [e for e in events if e["event"] == "retry"]
    assert [e["key"] for e in retried] == ["once"]
    assert retried[0]["reason"] == "worker ended with exit code 3; last words: last words"
    assert {e["key"] for e in events if e["event"] == "measured"} == {"a", "once", "b", "c"}


def test_a_key_that_kills_twice_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    events = list(pool(tmp_path, n_workers=1).run(["die", "a", "b"]))
    lost = [e for e in events if e["event"] == "lost"]
    assert [(e["key"], e["last"]) for e in lost] == [("die", True)]
    assert handed_out(tmp_path) == Counter({"die": 2, "a": 1, "b": 1})
    assert {e["key"] for e in events if e["event"] == "measured"} == {"a", "b"}


def test_closing_early_ends_the_workers(tmp_path: Path) -> None:
    events = pool(tmp_path).run(["hang-1", "hang-2"])
    assert next(events)["event"] == "epoch"
    assert next(events)["event"] == "epoch"
    events.close()  # type: ignore[attr-defined]
    processes = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_program_that_cannot_start_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    broken = LocalWorkers([sys.executable, "-c", "raise SystemExit(9)"], 2, {}, tmp_path / "logs")
    started = time.monotonic()
    events = list(broken.run(["a", "b"]))
    assert Counter(e["event"] for e in events) == {"retry": 2, "lost": 2}
    assert time.monotonic() - started < 60
