"""The part of the Ray executor that runs on a node: one worker process, passed on line by line."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from clipdrift.executors.process import how_it_ended, start


class Seat:
    """One worker on one node. What goes in and out is text, so that Ray has nothing else to carry.

    Args:
        command, environment: of the worker.
        log_folder: where its standard error goes, in a file named after node and process.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log_folder: str) -> None:
        self.log = Path(log_folder) / f"ray-{socket.gethostname()}-{os.getpid()}.log"
        self.process = start(command, environment, self.log)

    def ready(self) -> str:
        """An event without a key, once Ray has found room for this seat."""
        return json.dumps({"event": "ready"})

    def give(self, key: str) -> str:
        """Hand the worker its next run; returns its first line about it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(key + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died while idle, which the end of its output tells
        return self.line()

    def line(self) -> str:
        """The worker's next line, or an event "ended" with the reason."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return line
        reason = f"{socket.gethostname()}: {how_it_ended(self.process.wait(), self.log)}"
        return json.dumps({"event": "ended", "reason": reason})

    def stop(self) -> None:
        """End the worker at once, whatever it is at."""
        self.process.kill()
        self.process.wait()


__all__ = ["Seat"]
