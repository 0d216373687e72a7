"""Runs that another process is at are waited for, and what is waited for is said now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_study import study

from clipdrift.executors import Event, Program
from clipdrift.records import StudyFolder
from clipdrift.records.claims import claim
from clipdrift.study import missing_runs
from clipdrift.study.missing_runs import MissingRuns
from clipdrift.study.tasks import Task

NAMES = ["a", "b", "c", "d"]


class BusyAtFirst:
    """Finds every run taken, and measures at the second offer."""

    device = "cpu"
    offers = 0

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        self.offers += 1
        for key in keys:
            if self.offers == 1:
                yield {"event": "busy", "key": key, "last": True}
            else:
                yield {"event": "measured", "status": "finished", "key": key, "last": True}


def test_every_minute_it_is_said_what_is_waited_for_and_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, events = StudyFolder(tmp_path), []
    folder.plan_path.write_text("{}")
    runs: list[Any] = [
        Task(
            SimpleNamespace(
                run_id=name, identity=name, config=SimpleNamespace(run_id=lambda identity: identity)
            )
        )
        for name in NAMES
    ]
    with ExitStack() as others:
        for name in NAMES:
            assert others.enter_context(claim(folder.claim_path(name)))
        start = now = time.mktime((2026, 1, 2, 9, 58, 30, 0, 0, -1))

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds
            if now - start > 150:
                others.close()

        clock = SimpleNamespace(
            time=lambda: now, sleep=sleep, strftime=time.strftime, localtime=time.localtime
        )
        monkeypatch.setattr(missing_runs, "time", clock)
        program = Program((), tmp_path / "logs")
        missing = MissingRuns(folder, study(), BusyAtFirst(), program, events.append)
        missing.measure(runs)
    assert [event["text"] for event in events if event["event"] == "prepare"] == [
        "4 runs are being measured by another process; waiting for them",
        "waiting for 4 runs of another process since 09:58 (1 min): a, b, c, ...",
        "waiting for 4 runs of another process since 09:58 (2 min): a, b, c, ...",
    ]
    assert missing.counts == {"finished": 4}
