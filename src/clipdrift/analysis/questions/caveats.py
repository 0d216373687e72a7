"""What a reader must know before the numbers: runs left out, values missing, a design with gaps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pandas as pd

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.rows import Row, RunIds, Said
from clipdrift.analysis.statistics.columns import matched_runs, parts
from clipdrift.analysis.statistics.pairs import matched_pairs, method_pairs
from clipdrift.analysis.usable import (
    RUN_KEY,
    agree,
    numbers,
    same_run_groups,
    usable_records,
)
from clipdrift.errors import Fault
from clipdrift.records import RunRecord
from clipdrift.records.race_log import RaceLog, left_out

NAMED = 3
SCORES = {
    "mean_recall": "the mean of R@1, 5 and 10, of captions for images and of images for captions",
    "map": "mean average precision over classes",
}


@dataclass(frozen=True, kw_only=True)
class Caveat(Row):
    """What limits the analysis: runs left out, values missing, gaps in the design.

    learning_rate: null where it is not about one
    count: runs or pairs it is about
    """

    table: ClassVar = "warnings"

    kind: str
    backbone: str | None = None
    target: str | None = None
    method: str | None = None
    learning_rate: Annotated[float | None, Said("rate")] = None
    seed: int | None = None
    count: Annotated[int, Said("count")] = 1
    detail: str
    run_ids: RunIds = field(default_factory=list)


Caveats = Iterator[Caveat]


def of_race(
    records: Sequence[RunRecord], planned: Collection[str] | None, race: RaceLog | None
) -> list[Caveat]:
    """One row, `raced`, of a study that was raced: the runs that were not worth measuring."""
    if race is None:
        return []
    return [Caveat(kind="raced", detail=left_out(planned or (), records))]


def rows(
    records: Sequence[RunRecord],
    faults: Sequence[Fault] = (),
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    planned: Collection[str] | None = None,
) -> list[Caveat]:
    """Everything that limits the analysis, one row per kind and place.

    Kinds: `runs_to_do` (planned, without a record), `unreadable_record`, `run_not_finished`
    (diverged or failed: listed, in no mean), `run_stopped` (paused by a race: listed, in
    no mean),
    `duplicate_kept_once`, `duplicate_dropped`, `run_warning`, `trained_elsewhere` (by no
    run of clipdrift's), `leak` (the test part was read before the end, or sets share images),
    `undefined_value`, `several_backbones` (never pooled), `one_method`, `one_learning_rate`,
    `one_seed`, `few_right_images` (a retention of few images), `pairs_dropped`,
    `pairs_not_compared`, `other_score` (a target without classes).

    Args:
        faults: of records that could not be read.
        planned: run ids that there were to be, where that is known.
    """
    frame = runs_frame(records)
    return [
        *_unmeasured(records, planned or ()),
        *_unreadable(faults),
        *_unfinished(records),
        *_duplicates(records),
        *_other_scores(records),
        *_few_right(records),
        *_remarks(records),
        *_trained_elsewhere(records),
        *_undefined(records),
        *_design(frame),
        *_dropped_pairs(frame, varied, compare_with),
        *_not_compared(frame, compare_with),
    ]


def to_do(records: Sequence[RunRecord], planned: Collection[str]) -> list[str]:
    """Planned runs without a record, in the order of the plan."""
    there = {record.run_id for record in records}
    return [run_id for run_id in planned if run_id not in there]


def _unmeasured(records: Sequence[RunRecord], planned: Collection[str]) -> Caveats:
    left = to_do(records, planned)
    if left:
        names = ", ".join(left[:NAMED]) + (", ..." if len(left) > NAMED else "")
        there = len(planned) - len(left)
        detail = f"{there} of {len(planned)} planned, {len(left)} to do: {names}"
        yield Caveat(kind="runs_to_do", detail=detail)


def _unreadable(faults: Sequence[Fault]) -> Caveats:
    for text in sorted(map(str, faults)):
        yield Caveat(kind="unreadable_record", detail=text)


def _unfinished(records: Sequence[RunRecord]) -> Caveats:
    for record in sorted(records, key=lambda record: record.run_id):
        if record.status != "finished":
            yield Caveat(
                kind="run_stopped" if record.status == "stopped" else "run_not_finished",
                **_place(record),
                detail=f"{record.status}: {record.reason or 'no reason given'}",
                run_ids=[record.run_id],
            )


def _duplicates(records: Sequence[RunRecord]) -> Caveats:
    for group in same_run_groups(records):
        if len(group) == 1:
            continue
        same = agree(group)
        detail = "records of the same run differ: none is used"
        if same:
            detail = f"records of the same run agree: {group[0].run_id} is used"
        yield Caveat(
            kind="duplicate_kept_once" if same else "duplicate_dropped",
            **_place(group[0]),
            count=len(group),
            detail=detail,
            run_ids=[record.run_id for record in group],
        )


def _remarks(records: Sequence[RunRecord]) -> Caveats:
    """Warnings and leaks, once per text with the runs they are about."""
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for text in dict.fromkeys(record.leaks):
            said["leak", text].append(record.run_id)
        for text in dict.fromkeys(record.warnings):
            said["run_warning", text].append(record.run_id)
    for (kind, text), ids in sorted(said.items()):
        yield Caveat(kind=kind, count=len(ids), detail=text, run_ids=sorted(ids))


def _other_scores(records: Sequence[RunRecord]) -> Caveats:
    """Targets of which "accuracy" in tables is another score."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        if record.result.score_name != "accuracy":
            found[record.target, record.result.score_name].append(record.run_id)
    for (target, name), ids in sorted(found.items()):
        detail = f"what tables call accuracy on {target} is {SCORES[name]}"
        yield Caveat(kind="other_score", target=target, detail=detail, run_ids=sorted(ids))


def _few_right(records: Sequence[RunRecord]) -> Caveats:
    """Transfer datasets on which images alone leave retention open by more than 5 points."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in usable_records(records):
        for name, reading in record.result.transfer.items():
            if (why := reading.few_right) is not None:
                found[record.backbone, f"{name}: {why}"].append(record.run_id)
    for (backbone, detail), ids in sorted(found.items()):
        kind = "few_right_images"
        yield Caveat(kind=kind, backbone=backbone, detail=detail, run_ids=sorted(ids))


def _trained_elsewhere(records: Sequence[RunRecord]) -> Caveats:
    """Runs whose training clipdrift did not see, among others."""
    ids = sorted(one.run_id for one in records if "outside" in one.provenance)
    if ids:
        detail = "measured here: nothing proves that images, order, head and schedule are the same"
        yield Caveat(kind="trained_elsewhere", count=len(ids), detail=detail, run_ids=ids)


def _undefined(records: Sequence[RunRecord]) -> Caveats:
    """Undefined numbers by name and reason; NaN and infinities of a record count as such."""
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        if record.status != "finished":
            continue
        for name, reason in record.undefined.items():
            said[name, reason].add(record.run_id)
        usable = numbers(record.result)
        for name, value in _given(record).items():
            if value is not None and math.isnan(usable.get(name, 0.0)):
                said[name, "NaN or infinite in the record"].add(record.run_id)
    for (name, reason), ids in sorted(said.items()):
        yield Caveat(
            kind="undefined_value",
            count=len(ids),
            detail=f"{name}: {reason}",
            run_ids=sorted(ids),
        )


def _given(record: RunRecord) -> dict[str, float | None]:
    """The final numbers as the record gives them, undefined or not."""
    result = record.result
    kind = "accuracy" if result.score_name == "accuracy" else "score"
    out = {f"{part}_accuracy": getattr(result, f"{part}_{kind}") for part in ("val", "test")}
    for name, transfer in result.transfer.items():
        out[f"transfer.{name}.{transfer.score_name}"] = transfer.score
        out[f"transfer.{name}.retention_pct"] = transfer.retention_pct
    for kind in ("levels", "drift", "extra"):
        out |= {f"{kind}.{name}": value for name, value in getattr(result, kind).items()}
    return out


def _design(frame: pd.DataFrame) -> Caveats:
    backbones = sorted(set(frame["backbone"]))
    if len(backbones) > 1:
        detail = f"{', '.join(backbones)}: analysed apart, never pooled"
        yield Caveat(kind="several_backbones", count=len(backbones), detail=detail)
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        for column, kind, effect in (
            ("method", "one_method", "no comparison of methods"),
            ("learning_rate", "one_learning_rate", "no dose-response"),
            ("seed", "one_seed", "no SD, no interval, no test"),
        ):
            values = sorted(set(runs[column].tolist()))
            if len(values) == 1:
                detail = f"only {values[0]} among the matched runs: {effect}"
                yield Caveat(kind=kind, backbone=backbone, target=target, detail=detail)


def _not_compared(frame: pd.DataFrame, compare_with: Collection[str] | None) -> Caveats:
    methods = set(matched_runs(frame)["method"])
    every, compared = (len(method_pairs(methods, names)) for names in (None, compare_with))
    if compared < every:
        names = ", ".join(sorted(compare_with or []))
        yield Caveat(
            kind="pairs_not_compared",
            count=every - compared,
            detail=f"{len(methods)} matched methods: tests and matched views compare them with "
            f"{names} only, and all are ranked; compare_with in the study names others",
        )


def _dropped_pairs(
    frame: pd.DataFrame, varied: Collection[str], compare_with: Collection[str] | None
) -> Caveats:
    for pairs in matched_pairs(frame, varied, compare_with):
        by_reason: dict[tuple[float, str], int] = defaultdict(int)
        for drop in pairs.dropped:
            by_reason[drop.learning_rate, drop.why] += 1
        for (rate, why), count in sorted(by_reason.items()):
            yield Caveat(
                kind="pairs_dropped",
                backbone=pairs.backbone,
                target=pairs.target,
                learning_rate=rate,
                count=count,
                detail=f"{pairs.method_a} against {pairs.method_b}: {why}",
            )


def _place(record: RunRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in RUN_KEY}
