"""Which records count as runs, each once, and the numbers that they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from clipdrift.records import RunRecord
from clipdrift.records.readings import Reading

RUN_KEY = ["backbone", "target", "method", "learning_rate", "seed"]
"""What makes two records the same run."""
CELL_KEY = ["backbone", "target", "role", "method", "learning_rate"]
SORT_KEY = [*CELL_KEY, "seed", "run_id"]


def usable_records(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Finished runs in `SORT_KEY` order, each once.

    Records of the same run (equal `RUN_KEY`) that agree on all numbers and fingerprints count
    once, the first by run id. Where they disagree nothing says which is right, so none is used.
    `warnings.rows` lists both cases, and diverged and failed runs.
    """
    return [group[0] for group in same_run_groups(records) if len(group) == 1 or agree(group)]


def same_run_groups(records: Sequence[RunRecord]) -> Iterator[list[RunRecord]]:
    """Finished records grouped by run, in `SORT_KEY` order."""
    finished = sorted((r for r in records if r.status == "finished"), key=attrgetter(*SORT_KEY))
    by_run: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in finished:
        by_run.setdefault(attrgetter(*RUN_KEY)(record), []).append(record)
    yield from by_run.values()


def agree(records: Sequence[RunRecord]) -> bool:
    """Whether records hold the same numbers, final and per epoch, under the same conditions."""
    # As text, because NaN does not equal itself.
    texts = {
        repr(
            (
                [numbers(reading) for reading in (record.result, *record.history)],
                record.result.drift_per_block,
                sorted(record.fingerprints.items()),
            )
        )
        for record in records
    }
    return len(texts) == 1


def numbers(reading: Reading) -> dict[str, float]:
    """The scalar readings by dotted name; undefined (null, NaN, infinite) is NaN.

    A score stands in the column that accuracies of other targets stand in.
    """
    return {_column(name): or_nan(value) for name, value in reading.numbers().items()}


def _column(name: str) -> str:
    """
    >>> _column("extra.interpolation.0.5.test_score"), _column("val_accuracy")
    ('extra.interpolation.0.5.test_accuracy', 'val_accuracy')
    """
    head, _, last = name.rpartition("_")
    return f"{head}_accuracy" if last == "score" and head.endswith(("val", "test")) else name


def or_nan(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan
