"""What a record holds of a model at one moment: after an epoch, and at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clipdrift.records.correct import Correct
from clipdrift.records.transfer import (
    RETENTIONS,
    RETRIEVAL_NUMBERS,
    Number,
    Retrieval,
    ScoreName,
    TransferReading,
    is_none,
)

TARGET_ZERO_SHOT = "target_zero_shot"
OF_SETS = {"val_accuracy", "score_name", "val_score", "transfer", "correct"}
"""Fields of a reading in which the probe set has no part."""


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
