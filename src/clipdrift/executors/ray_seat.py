"""The part of the Ray executor that runs on a node: one worker process, passed on line by line."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import threading
from pathlib import Path

from clipdrift.executors.process import how_it_ended, no_progress, start


class Seat:
    """One worker on one node. What goes in and out is text, so that Ray has nothing else to carry.

    Args:
        command, environment: of the worker.
        log_folder: where its standard error goes, in a file named after node and process.
        run_timeout: seconds of silence about a run after which the worker is killed; None: never.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log_folder: str,
        run_timeout: float | None,
    ) -> None:
        self.log = Path(log_folder) / f"ray-{socket.gethostname()}-{os.getpid()}.log"
        self.process = start(command, environment, self.log)
        self.run_timeout = run_timeout
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

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
        try:
            line = self.lines.get(timeout=self.run_timeout)
        except queue.Empty:
            assert self.run_timeout is not None
            self.process.kill()
            self.process.wait()
            return self._ended(no_progress(self.run_timeout))
        if line.endswith("\n"):
            return line
        return self._ended(how_it_ended(self.process.wait(), self.log))

    def stop(self, seconds: float) -> None:
        """Have the worker end after its step, with its state saved; kill it if it takes longer."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _listen(self) -> None:
        """Pass lines on from a thread: a pipe cannot be waited for with a limit."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _ended(self, how: str) -> str:
        return json.dumps({"event": "ended", "reason": f"{socket.gethostname()}: {how}"})
