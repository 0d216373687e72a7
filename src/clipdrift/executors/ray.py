"""Ray: workers on whichever node of a cluster has room, replaced when they or their nodes die.

A seat is a Ray actor that holds one worker process and passes its lines on. Ray carries nothing
but the command line, run ids and those lines; what is measured stays in the study folder.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clipdrift.errors import ExecutorError, Fault
from clipdrift.executors import ATTEMPTS, Event, Program
from clipdrift.executors.ray_seat import Seat

STOP_SECONDS = 10
"""That workers have to end when the study is interrupted."""

ANSWER_SECONDS = 10
"""That the head of a cluster has to accept a connection."""

LOCAL_STORE_BYTES = 100 * 1024**2
"""Of shared memory for a cluster started here: only lines of text pass through it."""


@dataclass(frozen=True)
class RayExecutor:
    """Workers on a Ray cluster.

    Args:
        address: of the cluster ("host:6379"); default: `$RAY_ADDRESS`, else the one
            that runs on this machine, else one that is started here for the study.
        workers: at once; default: as many as the cluster has room for when the study starts.
            More than that wait for room, such as nodes that join later.
        cpus: cores (and threads) of a worker.
        gpus: GPUs of a worker; 0.5 lets two workers share one.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`; workers that are busy when the iterator is closed are killed.

        Raises:
            ExecutorError: if Ray is not installed, the cluster cannot be reached or has no room.
        """
        if not keys:
            return
        with _cluster(self.address):
            room = self.workers or _room(self.cpus, self.gpus)
            if room == 0:
                raise ExecutorError(
                    Fault(
                        "--executor ray",
                        f"a node with room for {self.cpus} CPUs and {self.gpus:g} GPUs",
                        "none in the cluster",
                        "Ask for less per run, or give --workers to wait for nodes that join",
                    )
                )
            yield from _Seats(program, self.device, self.cpus, self.gpus).run(keys, room)


@dataclass
class _Seats:
    """The seats of one call. Each has one question open: is there room yet, or what comes next?"""

    program: Program
    device: str
    cpus: int
    gpus: float
    asked: dict[Any, Any] = field(default_factory=dict)
    at: dict[Any, str] = field(default_factory=dict)

    def run(self, keys: Sequence[str], room: int) -> Iterator[Event]:
        import ray

        pending, deaths, misses = deque(keys), dict.fromkeys(keys, 0), 0
        try:
            while pending or self.at:
                while len(self.asked) < min(room, len(pending) + len(self.at)):
                    self._open()
                answered, _ = ray.wait(list(self.asked), num_returns=1)
                seat = self.asked.pop(answered[0])
                event = _answer(answered[0])
                if event["event"] == "ended":
                    misses = 0 if seat in self.at else misses + 1
                    _require_some_to_start(misses, room, event["reason"])
                    yield from self._bury(seat, event["reason"], pending, deaths)
                elif event["event"] == "ready":
                    misses = 0
                    self._next_key(seat, pending)
                else:
                    yield event
                    if event.get("last"):
                        self._next_key(seat, pending)
                    else:
                        self.asked[seat.line.remote()] = seat
        finally:
            self._stop()

    def _open(self) -> None:
        """Ask for a seat; it says that it is ready once Ray has found room for it."""
        import ray

        kind = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=2)(Seat)
        seat = kind.remote(
            self.program.on(self.device, self.cpus),
            self.program.environment(self.cpus),
            str(self.program.log_folder),
        )
        self.asked[seat.ready.remote()] = seat

    def _next_key(self, seat: Any, pending: deque[str]) -> None:
        """Give a free seat its next run, or its room back to the cluster."""
        import ray

        self.at.pop(seat, None)
        if pending:
            self.at[seat] = pending.popleft()
            self.asked[seat.give.remote(self.at[seat])] = seat
        else:
            ray.kill(seat)

    def _bury(
        self, seat: Any, reason: str, pending: deque[str], deaths: dict[str, int]
    ) -> Iterator[Event]:
        """A worker, its seat or its node died: put its key back or give it up."""
        import ray

        ray.kill(seat)
        key = self.at.pop(seat, None)
        if key is None:
            return
        deaths[key] += 1
        if deaths[key] < ATTEMPTS:
            yield {"event": "retry", "key": key, "reason": reason}
            pending.append(key)
        else:
            yield {"event": "lost", "key": key, "reason": reason, "last": True}

    def _stop(self) -> None:
        """End the workers too: killing their seats alone would let each finish its run."""
        import ray

        stops = [seat.stop.remote() for seat in self.at]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_SECONDS)
        for seat in self.asked.values():
            ray.kill(seat)


def _answer(question: Any) -> Event:
    import ray

    try:
        event: Event = json.loads(ray.get(question))
        return event
    except ray.exceptions.RayError as error:
        lines = [line[:160] for line in str(error).strip().splitlines()]
        words = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        return {"event": "ended", "reason": f"Ray lost the worker or its node: {words}"}


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Be connected to the cluster that was asked for, else to one of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    try:
        import ray
    except ImportError:
        raise ExecutorError(
            Fault(
                "--executor ray",
                "the package ray",
                "not installed",
                "Install it: pip install 'clipdrift[ray]'",
            )
        ) from None
    if ray.is_initialized():  # by whoever called; it stays as it is
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        _require_answer(named)
    try:
        ray.init(address=named or "auto", **quiet)
    except ConnectionError as error:
        if named:
            raise _no_cluster(named, str(error)) from None
        ray.init(
            address="local",
            object_store_memory=LOCAL_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    except RuntimeError as error:  # another version of Ray or Python
        raise _no_cluster(named or "the one on this machine", str(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address at which nobody listens, on which Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, words: str) -> ExecutorError:
    got = f"{address}: {' '.join(words.split())[:200]}"
    return ExecutorError(
        Fault("--address", "host:port of a Ray cluster that answers", got, "Check the address")
    )


def _room(cpus: int, gpus: float) -> int:
    """Workers that the cluster's nodes hold together if nothing else runs there."""
    import ray

    def on(resources: dict[str, float]) -> int:
        by_gpu = resources.get("GPU", 0) / gpus if gpus else math.inf
        return int(min(resources.get("CPU", 0) / cpus, by_gpu))

    return sum(on(node["Resources"]) for node in ray.nodes() if node["Alive"])


def _require_some_to_start(misses: int, room: int, reason: str) -> None:
    """Seats that end before they were ready, one after another, are not the fault of a run."""
    if misses > room + ATTEMPTS:
        raise ExecutorError(
            Fault(
                "--executor ray",
                "workers that start on the cluster's nodes",
                reason,
                "Check that every node has clipdrift and sees the study folder under this path",
            )
        )


__all__ = ["RayExecutor"]
