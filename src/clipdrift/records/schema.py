"""RunRecord: what one run measured, under which conditions, on what.

A record is a JSON file with a schema version and a checksum over everything else in it. Numbers
that are undefined are null and `undefined` says why, by dotted name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records.consistent import contradictions
from clipdrift.records.correct import Correct
from clipdrift.records.ranges import LONGEST_TEXT, beyond, too_long
from clipdrift.records.transfer import (
    RETENTIONS,
    RETRIEVAL_NUMBERS,
    Number,
    Retrieval,
    ScoreName,
    TransferReading,
    is_none,
)
from clipdrift.spec import RunConfig, content_hash

SCHEMA_VERSION = 2
"""2: a record of sets that were read in full. All others are written as 1, which versions that know
nothing of `in_full` read."""
MAX_BYTES = 64_000_000
RESTORE = "Restore the file or redo the run"
TARGET_ZERO_SHOT = "target_zero_shot"
OF_SETS = {"val_accuracy", "score_name", "val_score", "transfer", "correct"}
"""Fields of a reading in which the probe set has no part."""
Status = Literal["finished", "diverged", "stopped", "failed"]


class Reading(BaseModel):
    """What can be read of a model at one moment.

    score_name: what the target is scored by; val_score: of its validation part, by that: where it
    is "accuracy", `val_accuracy` once more, so that every record has it under one name.
    correct: dotted name of an accuracy -> the images that it is the mean of, where they are known.
    """

    model_config = ConfigDict(extra="forbid")

    val_accuracy: Number = None
    score_name: ScoreName = "accuracy"
    val_score: Number = None
    transfer: dict[str, TransferReading] = Field(default_factory=dict)
    levels: dict[str, Number] = Field(default_factory=dict)
    drift: dict[str, Number] = Field(default_factory=dict)
    levels_per_block: dict[str, list[Number]] = Field(default_factory=dict)
    drift_per_block: dict[str, list[Number]] = Field(default_factory=dict)
    correct: dict[str, Correct] = Field(default_factory=dict, exclude_if=lambda found: not found)

    @model_validator(mode="after")
    def _accuracy_is_the_score(self) -> Self:
        if self.score_name == "accuracy":
            self.val_score = self.val_accuracy
        return self

    @model_validator(mode="after")
    def _correct_as_stated(self) -> Self:
        stated = dict(self.accuracies())
        for name, correct in self.correct.items():
            value = stated.get(name)
            if value is None or not math.isclose(value, correct.accuracy, abs_tol=1e-9):
                raise ValueError(f"{name} is {value}, its images say {correct.accuracy}")
        return self

    def numbers(self) -> dict[str, Number]:
        """The scalars by dotted name: `val_accuracy`, `transfer.<set>.<field>`, `drift.<name>`.

        Of a target that is scored otherwise `val_score` in the place of `val_accuracy`.
        """
        by_classes = self.score_name == "accuracy"
        out = {"val_accuracy": self.val_accuracy} if by_classes else {"val_score": self.val_score}
        for name, reading in sorted(self.transfer.items()):
            out |= {f"transfer.{name}.{field}": v for field, v in reading.numbers().items()}
        for group in ("levels", "drift"):
            found = sorted(getattr(self, group).items())
            out |= {f"{group}.{name}": value for name, value in found}
        return out

    def accuracies(self) -> Iterator[tuple[str, Number]]:
        """Every accuracy that single images can stand behind, by its dotted name."""
        yield "val_accuracy", self.val_accuracy
        for name, reading in self.transfer.items():
            yield from _of(f"transfer.{name}", reading)


def _of(name: str, reading: TransferReading) -> Iterator[tuple[str, Number]]:
    yield f"{name}.accuracy", reading.accuracy
    yield f"{name}.baseline_accuracy", reading.baseline_accuracy


class EpochReading(Reading):
    """One epoch of the history; epoch 0 is the model before the first step, with its first head.

    `transfer` is read on a fixed balanced part of each set, smaller than at the end. `train_loss`
    is the mean cross-entropy over the epoch, `penalties` that of each penalty before its weight.
    """

    epoch: int
    step: int
    train_loss: Number = None
    penalties: dict[str, Number] = Field(default_factory=dict)
    train_seconds: float = 0.0


class Result(Reading):
    """The reading at the selected epoch, with the test part, which is read once.

    test_score: as `val_score`. test_retrieval: of images with captions.
    test_average_precision: class -> AP, of images with any number of labels; the score is its mean.
    test_chance: accuracy of always naming the commonest class of the test part. target_zero_shot:
    the test part by class texts, without the head, of the untouched and of the adapted model: was
    fine-tuning needed?
    """

    test_accuracy: Number = None
    test_score: Number = None
    test_retrieval: Retrieval | None = Field(None, exclude_if=is_none)
    test_average_precision: dict[str, Number] | None = Field(None, exclude_if=is_none)
    test_loss: Number = None
    test_n_images: int | None = None
    test_chance: Number = Field(None, exclude_if=is_none)
    target_zero_shot: TransferReading | None = Field(None, exclude_if=is_none)
    parameters_trained: int | None = None
    parameters_total: int | None = None
    extra: dict[str, Number] = Field(
        default_factory=dict, description="signals of imported records, readings beside the result"
    )

    def numbers(self) -> dict[str, Number]:
        """As of a reading, with those of the test part and of `extra`."""
        out = super().numbers()
        if self.score_name == "accuracy":
            out["test_accuracy"] = self.test_accuracy
        else:
            out["test_score"] = self.test_score
        if (found := self.test_retrieval) is not None:
            out |= {f"test_retrieval.{field}": getattr(found, field) for field in RETRIEVAL_NUMBERS}
        return out | {f"extra.{name}": value for name, value in sorted(self.extra.items())}

    @model_validator(mode="after")
    def _accuracy_is_the_test_score(self) -> Self:
        if self.score_name == "accuracy":
            self.test_score = self.test_accuracy
        return self

    @model_validator(mode="after")
    def _nothing_of_chance(self) -> Self:
        """Interpolated weights are held against the same baseline as the adapted ones."""
        for name in self.at_chance():
            if name.startswith("extra."):
                self.extra[name.removeprefix("extra.")] = None
        return self

    def at_chance(self) -> dict[str, str]:
        """Dotted name of every retention that is none -> why: see `TransferReading`."""
        found: dict[str, str] = {}
        for name, reading in self.transfer.items():
            why = reading.at_chance
            if why is not None:
                found |= {f"transfer.{name}.{field}": why for field in RETENTIONS}
                found |= {
                    f"extra.{key}": why
                    for key in self.extra
                    if key.endswith(tuple(f".transfer.{name}.{field}" for field in RETENTIONS))
                }
        zero_shot = self.target_zero_shot
        if zero_shot is not None and (why := zero_shot.at_chance) is not None:
            found |= {f"{TARGET_ZERO_SHOT}.{field}": why for field in RETENTIONS}
        return found

    def accuracies(self) -> Iterator[tuple[str, Number]]:
        """As of a reading, with those of the test part and of `extra`."""
        yield from super().accuracies()
        yield "test_accuracy", self.test_accuracy
        if self.target_zero_shot is not None:
            yield from _of(TARGET_ZERO_SHOT, self.target_zero_shot)
        yield from ((f"extra.{name}", value) for name, value in self.extra.items())


class EarlyStop(BaseModel):
    """Why a run was ended: a forecast of its final retention, in percent, and the limit.

    epoch: the last one that was trained. learned_from: how many runs and cells, which records.
    """

    model_config = ConfigDict(extra="forbid")

    epoch: int
    read_after_epoch: int
    limit_pct: float
    forecast_pct: float
    low_pct: float
    high_pct: float
    level: float
    transfers: list[str]
    forecast_hash: str
    learned_from: dict[str, int | str]

    @property
    def words(self) -> str:
        """The decision in a sentence without a full stop."""
        return (
            f"retention on {', '.join(self.transfers)} forecast at {self.forecast_pct:.1f} % "
            f"({self.level:.0%} interval {self.low_pct:.1f} to {self.high_pct:.1f}) after epoch "
            f"{self.read_after_epoch}, below the limit of {self.limit_pct:g} %"
        )


class RunRecord(BaseModel):
    """One run: identity, conditions, history, result, provenance."""

    # NaN in a field of type Any would otherwise be written as null, without a reason.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    schema_version: int = 1
    run_id: str
    identity: str
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
    stopped_early: EarlyStop | None = Field(
        None,
        description="only of a run that was stopped: it has a history and no result",
        exclude_if=lambda value: value is None,
    )
    selected_epoch: int | None = None
    history: list[EpochReading] = Field(default_factory=list)
    result: Result = Field(default_factory=Result)
    undefined: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict, description="file name -> SHA-256")
    timing: dict[str, float | None] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    checksum: str = ""

    @model_validator(mode="after")
    def _why_nothing_of_chance(self) -> Self:
        self.undefined = {**self.undefined, **self.result.at_chance()}
        return self

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

    def to_json(self) -> str:
        """The record as JSON text with its checksum filled in.

        Raises:
            ValueError: if a number is NaN or infinite; undefined must be null.
        """
        body = self.model_dump(mode="json", exclude={"checksum"})
        read = (*self.result.transfer.values(), self.result.target_zero_shot)
        if any(one is not None and one.in_full for one in read):
            body["schema_version"] = SCHEMA_VERSION
        return json.dumps({**body, "checksum": content_hash(body)}, indent=1, allow_nan=False)


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
