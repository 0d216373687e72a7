"""A study whose runs take about a second: for tests that kill, interrupt and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from clipdrift.executors.local import LocalExecutor
from clipdrift.records import RunRecord
from clipdrift.spec import StudySpec, parse_spec
from clipdrift.study.measure import run_study

TEXT = """\
name: tiny
targets:
  - {name: land-cover, builtin: land-cover}
transfers:
  - {name: digits, builtin: digits, n_images: 60}
methods:
  - {name: lora, kind: lora, dropout: 0.2}
learning_rates: [1e-3]
seeds: [7]
schedule: {epochs: 3, batch_size: 20}
splits: {train_per_class: 6, val_per_class: 4, test_per_class: 4}
probe: {per_class: 2}
evaluation: {epoch_transfer_images: 20}
precision: float32
"""


def tiny(**changes: Any) -> StudySpec:
    """The tiny study with fields replaced: 3 epochs of 3 steps."""
    return parse_spec(yaml.safe_dump({**yaml.safe_load(TEXT), **changes}))


def measure(spec: str, out: str, cache: str, workers: int) -> None:
    """Measure a study with one thread for each worker and print what was done; for `forked`."""
    outcome = run_study(
        parse_spec(spec),
        out,
        executor=LocalExecutor(workers, "cpu", cpus=1),
        cache_dir=Path(cache),
    )
    assert not outcome.failed, outcome.failed
    print(json.dumps({name: getattr(outcome, name) for name in ("total", "kept", "measured")}))


def measured(record: RunRecord) -> dict[str, Any]:
    """All of a record but when and how fast it was made."""
    body = record.model_dump(mode="json", exclude={"timing", "checksum"})
    for epoch in body["history"]:
        epoch.pop("train_seconds")
    return body
