"""The Ray cluster of a study: the one that was asked for, this machine's, or one made for it."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipdrift.errors import ExecutorError, Fault

ANSWER_SECONDS = 10
"""That the head of a cluster has to accept a connection."""

LOCAL_STORE_BYTES = 100 * 1024**2
"""Of shared memory for a cluster started here: only lines of text pass through it."""


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
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
    # Ray has its processes import from this one's working directory, but for clients of a cluster.
    safe = ray.job_config.JobConfig(_client_job=True)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "job_config": safe}
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


def room(cpus: int, gpus: float) -> int:
    """Workers that the cluster's nodes hold together if nothing else runs there."""
    import ray

    def on(resources: dict[str, float]) -> int:
        by_gpu = resources.get("GPU", 0) / gpus if gpus else math.inf
        return int(min(resources.get("CPU", 0) / cpus, by_gpu))

    return sum(on(node["Resources"]) for node in ray.nodes() if node["Alive"])
