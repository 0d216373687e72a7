"""Commands and their workers as forks of a process that has imported all they need.

Starting Python and importing torch takes seconds, over and over; what happens to files does not
depend on it. The process that is forked is one of multiprocessing's, which has computed nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTED = [
    *("torch", "transformers.models.clip.modeling_clip"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "plotly.graph_objects"),
    *("clipdrift.cli.app", "clipdrift.report", "clipdrift.study.measure", "clipdrift.study.worker"),
]


class ForkedWorker:
    """What an executor needs of `subprocess.Popen`, for a worker that is a fork."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        keys, answers = os.pipe(), os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            _become_worker(keys[0], answers[1], arguments, log)
        os.close(keys[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(keys[1], "w"), os.fdopen(answers[0])
        self.code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)


def _become_worker(keys: int, answers: int, arguments: Sequence[str], log: Path) -> None:
    from clipdrift.study import worker

    code: Any = 1
    try:
        os.setsid()
        os.dup2(keys, 0)
        os.dup2(answers, 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
        os.closerange(3, 256)
        (_processes(log.parents[1]) / str(os.getpid())).touch()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        sys.stdin, sys.argv = os.fdopen(0), ["worker", *arguments]
        worker.main()
        code = 0
    except SystemExit as ended:
        print(ended.code, file=sys.stderr, flush=True)
        code = ended.code
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code if isinstance(code, int) else 1)


def start(function: Callable[..., None], *arguments: Any, log: Path, worker: Sequence[str]) -> Any:
    """Call a function in a fork, where local workers are forks too; returns its `Process`.

    Args:
        function: of a module that can be imported.
        log: file for what it prints.
        worker: further arguments of each worker.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_call, args=(function, arguments, log, worker))
    process.start()
    return process


def command(*words: str) -> None:
    """The command line, in this process; for `start`."""
    from clipdrift.cli import main

    sys.argv = ["clipdrift", *words]
    main()


def workers_of(out: Path) -> list[int]:
    """Process ids of the forked workers of a study folder that still live."""
    ids = [int(path.name) for path in _processes(out).iterdir()]
    return [pid for pid in ids if Path(f"/proc/{pid}").exists()]


def _processes(out: Path) -> Path:
    """A folder beside the study's with a file for each worker, named by its process id."""
    folder = out.with_name(f"{out.name}-processes")
    folder.mkdir(exist_ok=True)
    return folder


def _call(
    function: Callable[..., None], arguments: Sequence[Any], log: Path, worker: Sequence[str]
) -> None:
    from clipdrift.executors import local

    def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedWorker:
        words = command[list(command).index("clipdrift.study.worker") + 1 :]
        return ForkedWorker([*words, *worker], log)

    local.start = start  # type: ignore[assignment]
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(words, 1)
    os.dup2(words, 2)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored, if they are started in the background
    function(*arguments)


__all__ = ["command", "start", "workers_of"]
