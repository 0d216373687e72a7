"""What a running study says of itself."""

from __future__ import annotations

import io

import pytest

from clipdrift.cli import progress as module
from clipdrift.cli.progress import StudyProgress
from clipdrift.cli.terminal import Terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_time_left_follows_the_epochs_done(clock: list[float]) -> None:
    out = io.StringIO()
    progress = StudyProgress(Terminal(file=out, width=200))
    progress({"event": "prepare", "text": "photos [train]: 10 / 20 images"})
    progress({"event": "plan", "total": 5, "kept": 1, "epochs": {"a": 4, "b": 4, "c": 2, "d": 2}})
    assert progress.left_seconds() is None
    clock[0] += 6
    progress({"event": "epoch", "key": "a", "epoch": 2, "epochs": 3})  # 3 of 12 steps in 6 s
    assert progress.left_seconds() == pytest.approx(18)
    clock[0] += 2
    progress({"event": "measured", "key": "a", "status": "finished", "seconds": 8.0, "last": True})
    assert progress.left_seconds() == pytest.approx(16)
    progress({"event": "lost", "key": "b", "reason": "worker killed", "last": True})
    text = out.getvalue()
    assert "photos [train]: 10 / 20 images" in text
    assert "5 runs, 1 already done; measuring 4" in text
    assert "1/4 a: finished in 8.0 s; 16 s left" in text
    assert "2/4 b: lost (worker killed); 4 s left" in text


def test_a_terminal_gets_a_bar_and_only_troubles_as_lines(clock: list[float]) -> None:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=120)
    with StudyProgress(console) as progress:
        progress({"event": "plan", "total": 2, "kept": 0, "epochs": {"a": 2, "b": 2}})
        progress(
            {"event": "measured", "key": "a", "status": "finished", "seconds": 1.0, "last": True}
        )
        progress(
            {"event": "measured", "key": "b", "status": "diverged", "reason": "loss", "last": True}
        )
    text = out.getvalue()
    assert "b: diverged (loss)" in text
    assert "a: finished" not in text
    assert "2/2" in text
