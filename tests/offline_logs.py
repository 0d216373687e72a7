"""What a tracker wrote to disk, read back."""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def leveldb_log(data: bytes, *, first: int) -> Iterator[bytes]:
    """Entries of a log in LevelDB's format: blocks of 32 kB; CRC, length and kind before a piece.

    first: bytes of the first block that come before the data.
    """
    at, entry = 0, b""
    while at + 7 <= len(data):
        if (left := 32768 - (at + first) % 32768) < 7:
            at += left  # padding at the end of a block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield entry
            entry = b""


def offline_history(folder: Path) -> dict[str, list[float]]:
    """Name -> values in order, of the only run of Weights & Biases below a folder."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.rglob("*.wandb")
    # Its process writes the file's last block a moment after `finish` has returned.
    deadline = time.monotonic() + 60
    records: list[Record] = []
    while not any(one.WhichOneof("record_type") == "exit" for one in records):
        assert time.monotonic() < deadline, "the log has no end"
        time.sleep(0.05)
        records = [Record.FromString(data) for data in leveldb_log(path.read_bytes()[7:], first=7)]
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for item in record.history.item:
            found[item.key or "/".join(item.nested_key)].append(float(item.value_json))
    return found


def mlflow_run() -> tuple[Any, Callable[[str], list[float]]]:
    """The only run of all experiments, and what reads the values of one of its metrics."""
    import mlflow

    client = mlflow.MlflowClient()
    (run,) = [r for e in client.search_experiments() for r in client.search_runs(e.experiment_id)]
    return run, lambda name: [one.value for one in client.get_metric_history(run.info.run_id, name)]
