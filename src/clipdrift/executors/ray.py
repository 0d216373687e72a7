"""Ray: workers on whichever node of a cluster has room, replaced when they or their nodes die.

A seat is a Ray actor that holds one worker process and passes its lines on. Ray carries nothing
but the command line, run ids and those lines; what is measured stays in the study folder.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipdrift.errors import ExecutorError, Fault
from clipdrift.executors import ATTEMPTS, Event, Program
from clipdrift.executors.process import STOP_SECONDS
from clipdrift.executors.ray_cluster import cluster, room
from clipdrift.executors.ray_seat import Seat

ANSWER_SECONDS = 5.0
"""That a seat has to tell that its worker was stopped."""


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
        run_timeout: seconds without a sign of progress after which a worker is killed and its run
            tried again.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0
    run_timeout: float | None = None

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`; closing the iterator tells busy workers to stop and save.

        Raises:
            ExecutorError: if Ray is not installed, the cluster cannot be reached or has no room.
        """
        if not keys:
            return
        with cluster(self.address):
            n_seats = self.workers or room(self.cpus, self.gpus)
            if n_seats == 0:
                raise ExecutorError(
                    Fault(
                        "--executor ray",
                        f"a node with room for {self.cpus} CPUs and {self.gpus:g} GPUs",
                        "none in the cluster",
                        "Ask for less per run, or give --workers to wait for nodes that join",
                    )
                )
            yield from _Seats(self, program).run(keys, n_seats)


@dataclass
class _Seats:
    """The seats of one call. Each has one question open: is there room yet, or what comes next?"""

    executor: RayExecutor
    program: Program
    asked: dict[Any, Any] = field(default_factory=dict)
    at: dict[Any, str] = field(default_factory=dict)

    def run(self, keys: Sequence[str], n_seats: int) -> Iterator[Event]:
        import ray

        pending, deaths, misses = deque(keys), dict.fromkeys(keys, 0), 0
        try:
            while pending or self.at:
                while len(self.asked) < min(n_seats, len(pending) + len(self.at)):
                    self._open()
                answered, _ = ray.wait(list(self.asked), num_returns=1)
                seat = self.asked.pop(answered[0])
                event = _answer(answered[0])
                if event["event"] == "ended":
                    misses = 0 if seat in self.at else misses + 1
                    _require_some_to_start(misses, n_seats, event["reason"])
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

        asks = self.executor
        kind = ray.remote(num_cpus=asks.cpus, num_gpus=asks.gpus, max_concurrency=2)(Seat)
        seat = kind.remote(
            self.program.on(asks.device, asks.cpus),
            self.program.environment(asks.cpus),
            str(self.program.log_folder),
            asks.run_timeout,
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
        """End the workers after their step, then their seats."""
        import ray

        stops = [seat.stop.remote(STOP_SECONDS) for seat in self.at]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_SECONDS + ANSWER_SECONDS)
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


def _require_some_to_start(misses: int, n_seats: int, reason: str) -> None:
    """Seats that end before they were ready, one after another, are not the fault of a run."""
    if misses > n_seats + ATTEMPTS:
        raise ExecutorError(
            Fault(
                "--executor ray",
                "workers that start on the cluster's nodes",
                reason,
                "Check that every node has clipdrift and sees the study folder under this path",
            )
        )
