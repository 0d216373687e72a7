"""Where runs are executed. Executors know run ids and programs, nothing of models or studies.

A worker is a program that reads keys (run ids) from standard input, one per line, and answers with
JSON lines on standard output: any number of events, each with its `key`, then one with
`"last": true` for that key. Plain text both ways: nothing is unpickled, a notebook needs no
`__main__` guard, and a shell or the scheduler of a cluster can start the same program. All else
that a worker needs lies in the study folder, which every machine must see under the same path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ATTEMPTS = 2
"""A key whose worker died is tried once more; twice means that the key is the cause."""

STOPPED = 143
"""Exit code of a worker that ended because it was told to (128 + SIGTERM): no fault of its run."""

HUB = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
"""Where weights and data of the hub lie; a node of a cluster does not inherit it from here."""

KEEPING_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""For glibc: blocks below 32 MB come from the heap, and up to 256 MB of what is freed stays there.
Otherwise the activations of a small model go back to the kernel after every layer, and every page
of the next ones is a fault. Other C libraries do not know these names."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""`python -m` would put the working directory first on the path, for a worker and all it starts: a
`yaml.py` among somebody's images would be run. PYTHONPATH counts as before."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A worker as a shell would start it.

    Args:
        command: program and arguments, without device and threads, which the executor adds.
        log_folder: where what workers say on standard error goes.
    """

    command: tuple[str, ...]
    log_folder: Path

    def on(self, device: str, threads: int) -> list[str]:
        """The command of a worker that has one device and a number of threads."""
        return [*self.command, "--device", device, "--threads", str(threads)]

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that must be set before the worker starts; what is set here goes with it."""
        known = {name: os.environ[name] for name in (*HUB, *KEEPING_MEMORY) if name in os.environ}
        own = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        return {**KEEPING_MEMORY, **own, **SAFE_PATH, **known}


class Executor(Protocol):
    """Something that works through run ids with workers, wherever they are."""

    @property
    def device(self) -> str:
        """What workers compute on: "cpu", "cuda", one GPU's name, or "auto": as this machine."""

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """Work through the keys; yields the workers' events, each with its `key`.

        A key whose worker died yields `{"event": "retry", "key", "reason"}` and is tried again; at
        the last of `ATTEMPTS` it yields `{"event": "lost", "key", "reason", "last": True}`. Closing
        the iterator early ends the workers.
        """


__all__ = ["ATTEMPTS", "STOPPED", "Event", "Executor", "Program"]
