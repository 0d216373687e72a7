"""Whether two studies hold the same records, but for when and where they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec

WHEN_AND_WHERE = {"timing", "provenance", "checksum"}


def measured(path: Path) -> dict[str, dict[str, Any]]:
    """Run id -> its record without times and provenance; hashes of its weights included."""
    records, faults = StudyFolder(path).records()
    assert not faults
    found = {}
    for record in records:
        body = record.model_dump(mode="json", exclude=WHEN_AND_WHERE)
        for epoch in body["history"]:
            del epoch["train_seconds"]
        found[record.run_id] = body
    return found


def two_runs(spec: StudySpec) -> StudySpec:
    """A part of a study: its first two methods at its largest rate."""
    part = {"methods": spec.methods[:2], "learning_rates": spec.learning_rates[-1:]}
    return spec.model_copy(update=part)
