"""One run record that uses every kind of field, and a way to write files as they should not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipdrift.records import EpochReading, RunRecord
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading
from clipdrift.spec import content_hash


def record(**changes: Any) -> RunRecord:
    """A finished run with history, result, undefined values and provenance."""
    values: dict[str, Any] = {
        "run_id": "land-cover-lora-lr1e-05-seed7-01234567",
        "identity": "0123456789abcdef",
        "status": "finished",
        "study": "small",
        "backbone": "mini-clip",
        "target": "land-cover",
        "method": "lora",
        "learning_rate": 1e-5,
        "seed": 7,
        "config": {"schedule": {"epochs": 2}, "seed": 7},
        "fingerprints": {"order": "ab"},
        "selected_epoch": 1,
        "history": [
            EpochReading(epoch=0, step=0, val_accuracy=0.1),
            EpochReading(epoch=1, step=5, val_accuracy=1 / 3, train_loss=0.7, train_seconds=2.5),
        ],
        "result": Result(
            test_accuracy=0.9,
            transfer={"digits": TransferReading(accuracy=0.3, retention_pct=99.5)},
            levels={"gini": 0.31},
            drift_per_block={"gini": [1.5, None, -2.0]},
            parameters_trained=4096,
        ),
        "undefined": {"result.test_loss": "not read"},
        "files": {"head.safetensors": "cd"},
        "timing": {"wall_seconds": 12.5, "peak_mb": None},
        "provenance": {"packages": {"torch": "2"}, "cores": 2},
    }
    return RunRecord(**{**values, **changes})


def write_body(body: Any, path: Path, *, resealed: bool = False) -> None:
    """Write any JSON as a record; `resealed` gives it the checksum it would need."""
    if resealed:
        body = {k: v for k, v in body.items() if k != "checksum"}
        body = {**body, "checksum": content_hash(body)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body))
