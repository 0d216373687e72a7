"""Records and the plan of a study folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.strategies import as_json, edited
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from small_records import record

from clipdrift.records import StudyFolder, read_record
from clipdrift.spec import content_hash
from clipdrift.study.status import study_status


def feed_record(data: bytes, folder: Path) -> None:
    path = folder / "runs" / "one" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    StudyFolder(folder).records()
    assert read_record(path).to_json()


def feed_plan(data: bytes, folder: Path) -> None:
    study = StudyFolder(folder)
    good = record()
    study.record_path(good.run_id).parent.mkdir(parents=True)
    study.record_path(good.run_id).write_text(good.to_json())
    study.plan_path.write_bytes(data)
    study_status(folder)
    study.records()


def record_seeds() -> list[bytes]:
    return [record().to_json().encode()]


def plan_seeds() -> list[bytes]:
    good = record()
    plans: list[dict[str, Any]] = [{"runs": {good.run_id: good.identity}}, {"runs": {"a": "b"}}]
    return [as_json({**plan, "checksum": content_hash(plan)}) for plan in plans]


def shaped_records() -> SearchStrategy[bytes]:
    """Edited records, most with the checksum that they would need."""
    trees = [json.loads(seed) for seed in record_seeds()]
    return st.tuples(edited(trees), st.integers(0, 4)).map(lambda p: _sealed(*p))


def _sealed(tree: Any, dice: int) -> bytes:
    if dice and isinstance(tree, dict):
        body = {key: value for key, value in tree.items() if key != "checksum"}
        with suppress(ValueError, TypeError):  # NaN has no hash
            tree = {**body, "checksum": content_hash(body)}
    return as_json(tree)


def shaped_plans() -> SearchStrategy[bytes]:
    return edited([json.loads(seed) for seed in plan_seeds()]).map(as_json)


TARGETS = [
    Target("run record", feed_record, record_seeds, shaped_records, examples=80),
    Target("plan of a study", feed_plan, plan_seeds, shaped_plans, examples=40),
]
