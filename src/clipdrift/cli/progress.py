"""Progress of a running study: one bar on a terminal, one line per run elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clipdrift.cli.terminal import Terminal, line


class StudyProgress:
    """Told of a study's events; shows how far it is and how long it will take."""

    def __init__(self, console: Terminal) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("runs"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self.steps: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.finished, self.started = 0, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # the terminal may be gone
            self.bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "prepare":
            self._say(event["text"])
        elif kind == "plan":
            self._start(event)
        elif kind == "epoch":
            self.done[event["key"]] = event["epoch"] + 1
            self._update()
        elif kind == "retry":
            self._say(f"{event['key']}: {event['reason']}; trying once more")
        elif event.get("last"):
            self._finish(event)

    def left_seconds(self) -> float | None:
        """Time left, from the epochs done so far; None before the first."""
        done, total = sum(self.done.values()), sum(self.steps.values())
        if not done:
            return None
        return (time.monotonic() - self.started) * (total - done) / done

    def _start(self, event: dict[str, Any]) -> None:
        self.steps, self.started = dict(event["epochs"]), time.monotonic()
        kept = f", {event['kept']} already done" if event["kept"] else ""
        self._say(f"{event['total']} runs{kept}; measuring {len(self.steps)}")
        self.done, self.finished = {}, 0
        if self.live and self.steps:
            for earlier in self.bar.task_ids:
                self.bar.remove_task(earlier)
            self.task = self.bar.add_task("measuring", total=len(self.steps), left="")
            self.bar.start()

    def _finish(self, event: dict[str, Any]) -> None:
        key = event["key"]
        self.done[key] = self.steps[key]
        self.finished += 1
        state = event.get("status") or event["event"]
        seconds = f" in {event['seconds']:.1f} s" if event.get("seconds") else ""
        told = "by another process" if event["event"] == "found" else event.get("reason")
        reason = f" ({told})" if told else ""
        if state != "finished" or not self.live:
            count = f"{self.finished}/{len(self.steps)}"
            self._say(f"{count} {key}: {state}{seconds}{reason}; {self._left()}")
        self._update()

    def _update(self) -> None:
        if self.live:
            self.bar.update(self.task, completed=self.finished, left=self._left())

    def _left(self) -> str:
        left = self.left_seconds()
        return "" if left is None else f"{duration(left)} left"

    def _say(self, text: str) -> None:
        self.console.print(line(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """For people.

    >>> duration(42.4), duration(200), duration(9000)
    ('42 s', '3 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
