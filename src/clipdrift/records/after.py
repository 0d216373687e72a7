"""AfterReading: what was read of weights made from finished runs, without training.

They lie beside the runs, in `after/`, and change no record. Each names the runs it was made from by
their identities: where one of them is gone or was measured anew, it is out of date and not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from clipdrift.errors import Fault, RecordError
from clipdrift.records.checked import Sealed, read_checked
from clipdrift.records.folder import StudyFolder
from clipdrift.records.readings import Result
from clipdrift.records.schema import RunRecord
from clipdrift.records.transfer import Number
from clipdrift.records.writing import ours

FOLDER = "after"
VERSION = 1
Kind = Literal["soup", "scaled", "lines", "damped", "tempered"]
WORDS: dict[Kind, str] = {
    "scaled": "update times {:g}",
    "lines": "LiNeS from {:g}",
    "damped": "intruders times {:g}",
    "tempered": "attention tempered by {:g}",
}
"""What weights are, by the number that they were made with."""


class AfterReading(Sealed):
    """One reading of merged weights.

    kind: `soup`, the mean over the seeds of a cell, then mixed with the untouched weights by
    `alpha`; or one run rescaled, `scale` the number: `scaled`, the movement of its vision tower
    times it; `lines`, growing from it at the first block to 1 at the last; `damped`, intruder
    dimensions times it; `tempered`, the entropy of attention brought back by that much.
    head_inits: how many different heads the runs began with.
    """

    version: int = VERSION
    name: str
    identity: str
    kind: Kind
    alpha: Number = None
    scale: Number = None
    backbone: str
    target: str
    method: str
    role: Literal["matched", "reference"]
    learning_rate: float
    seeds: list[int]
    runs: dict[str, str] = Field(description="run id -> identity")
    head_inits: int = 1
    leaks: list[str] = Field(default_factory=list)
    result: Result
    undefined: dict[str, str] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    checksum: str = ""

    @model_validator(mode="after")
    def _made_by_a_number(self) -> Self:
        made_by = self.alpha if self.kind == "soup" else self.scale
        if made_by is None:
            raise ValueError("a soup has an alpha, a rescaled run a scale")
        return self

    @property
    def cell(self) -> tuple[str, str, str, str, float]:
        """Backbone, target, role, method, learning rate."""
        return (self.backbone, self.target, self.role, self.method, self.learning_rate)

    @property
    def weights(self) -> str:
        """For people: what the weights are."""
        if self.kind != "soup":
            return WORDS[self.kind].format(self.scale)
        return "soup" if self.alpha == 1 else f"soup at alpha {self.alpha:g}"


def after_path(folder: StudyFolder, name: str, identity: str) -> Path:
    return folder.path / FOLDER / f"{name}-{identity[:8]}.json"


def read_after(path: Path) -> AfterReading:
    """Read and verify one reading.

    Raises:
        RecordError: if it is missing, torn, edited or of another version.
    """
    step = "Run 'clipdrift after' again to redo it"
    return read_checked(path, AfterReading, VERSION, "a reading", step)


def readings(
    folder: StudyFolder, records: Sequence[RunRecord]
) -> tuple[list[AfterReading], list[Fault]]:
    """Readings that are of the runs as they are now, in a fixed order, and faults of unusable ones.

    A soup counts while it is of all finished runs of its cell.
    """
    found, faults = [], []
    finished = {r.run_id: r.identity for r in records if r.status == "finished"}
    whole = _cells(records)
    for path in ours(folder.path / FOLDER, "*.json"):
        try:
            one = read_after(path)
        except RecordError as error:
            faults += error.faults
            continue
        if path != after_path(folder, one.name, one.identity):
            continue  # a copy of another name, as programs for backups make them
        now = all(finished.get(run_id) == identity for run_id, identity in one.runs.items())
        if now and (one.kind != "soup" or set(one.runs) == whole.get(one.cell)):
            found.append(one)
    return sorted(found, key=_order), faults


def _cells(records: Iterable[RunRecord]) -> dict[tuple[str, str, str, str, float], set[str]]:
    out: dict[tuple[str, str, str, str, float], set[str]] = defaultdict(set)
    for r in records:
        if r.status == "finished":
            out[r.backbone, r.target, r.role, r.method, r.learning_rate].add(r.run_id)
    return dict(out)


def _order(one: AfterReading) -> tuple[Any, ...]:
    value = one.alpha if one.kind == "soup" else one.scale
    return (*one.cell, one.kind, -(value or 0.0), sorted(one.seeds), one.identity)
