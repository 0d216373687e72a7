"""RunRecord: what one run measured, under which conditions, on what.

A record is a JSON file with a schema version and a checksum over everything else in it. Numbers
that are undefined are null and `undefined` says why, by dotted name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records.checked import MAX_BYTES, Sealed
from clipdrift.records.consistent import contradictions
from clipdrift.records.ranges import LONGEST_TEXT, beyond, too_long
from clipdrift.records.readings import EpochReading, Result
from clipdrift.spec import RunConfig, content_hash

SCHEMA_VERSION = 2
"""2: a record of sets that were read in full. All others are written as 1, which versions that know
nothing of `in_full` read."""
RESTORE = "Restore the file or redo the run"
Status = Literal["finished", "diverged", "stopped", "failed"]


class RunRecord(Sealed):
    """One run: identity, conditions, history, result, provenance."""

    schema_version: int = 1
    run_id: str = Field(description="name of its folder")
    identity: str = Field(description="hash of configuration, data and code protocol")
    status: Status
    reason: str | None = None
    study: str
    backbone: str
    target: str
    method: str
    role: Literal["matched", "reference"] = "matched"
    learning_rate: float
    seed: int
    config: dict[str, Any] | None = Field(None, description="RunConfig; null if imported")
    fingerprints: dict[str, str] = Field(
        default_factory=dict, description="hash of each factor that matched runs share"
    )
    leaks: list[str] = Field(
        default_factory=list, description="what read the test part early; copies between sets"
    )
    selected_epoch: int | None = Field(None, description="the first best by `val_score`; kept")
    history: list[EpochReading] = Field(default_factory=list)
    result: Result = Field(default_factory=Result)
    undefined: dict[str, str] = Field(
        default_factory=dict, description="dotted name of a number that is null -> why"
    )
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict, description="file name -> SHA-256")
    timing: dict[str, float | None] = Field(default_factory=dict, description="seconds, bytes")
    provenance: dict[str, Any] = Field(
        default_factory=dict, description="versions, commit, hardware and settings of torch"
    )
    checksum: str = Field("", description="SHA-256 of all the rest")

    @model_validator(mode="after")
    def _why_nothing_of_chance(self) -> Self:
        self.undefined = {**self.undefined, **self.result.at_chance()}
        return self

    @property
    def core_seconds(self) -> float:
        """Seconds that the run took, times the cores it had; 0 where that was not written down."""
        threads = int(self.provenance.get("threads", 1))
        return (self.timing.get("wall_seconds") or 0.0) * threads

    @classmethod
    def of_run(
        cls, config: RunConfig, identity: str, *, study: str, backbone: str, status: Status
    ) -> RunRecord:
        """The record of one configuration, before anything was measured."""
        return cls(
            run_id=config.run_id(identity),
            identity=identity,
            status=status,
            study=study,
            backbone=backbone,
            target=config.target.name,
            method=config.method.name,
            role=config.method.role,
            learning_rate=config.learning_rate,
            seed=config.seed,
            config=config.model_dump(mode="json"),
        )

    def body(self) -> dict[str, Any]:
        """All that the checksum is of, in the oldest version that can hold it."""
        body = super().body()
        read = (*self.result.transfer.values(), self.result.target_zero_shot)
        if any(one is not None and one.in_full for one in read):
            body["schema_version"] = SCHEMA_VERSION
        return body


def read_record(path: Path) -> RunRecord:
    """Read and verify one record.

    Raises:
        RecordError: if it is missing, torn, edited, of a newer schema, has a number that no run can
            have, or is of another run than its configuration.
    """
    try:
        body = json.loads(read_file(path, MAX_BYTES))
    except OSError as error:
        raise _unusable(path, str(error.strerror), "Run the study again to redo it") from None
    except (ValueError, RecursionError):
        raise _unusable(
            path, "a half-written or damaged file", "Run the study again to redo it"
        ) from None
    version = body.get("schema_version") if isinstance(body, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _unusable(
            path, f"schema version {version}, newer than {SCHEMA_VERSION}", "Update clipdrift"
        )
    try:
        # Strict: the text "inf" in the place of a number is no number.
        record = RunRecord.model_validate(body, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "record"
        raise _unusable(
            path, f"{place}: {first['msg']}", "Run the study again to redo it"
        ) from None
    if not _sealed(body):
        raise _unusable(path, "a checksum that does not match its content", RESTORE)
    if too_long(body):
        raise _unusable(path, f"a text of more than {LONGEST_TEXT:,} characters", RESTORE)
    for name, allowed, value in beyond(body):
        raise _unusable(path, f"{name}: {value:g} instead of {allowed.words}", RESTORE)
    epochs = [reading.epoch for reading in record.history]
    if epochs and (kept := record.selected_epoch) not in (None, *epochs):
        raise _unusable(path, f"selected_epoch: {kept}, which its history has not", RESTORE)
    for name, given in contradictions(record):
        raise _unusable(path, f"another {name} than its configuration gives, {given}", RESTORE)
    return record


def _unusable(path: Path, got: str, next_step: str) -> RecordError:
    return RecordError(Fault(str(path), "a valid run record", got, next_step))


def _sealed(body: dict[str, Any]) -> bool:
    """Whether the checksum is that of the rest; NaN, which JSON does not have, has no hash."""
    stored = body.pop("checksum", "")
    try:
        return bool(content_hash(body) == stored)
    except (ValueError, RecursionError):
        return False
