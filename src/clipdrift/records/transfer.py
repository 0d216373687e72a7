"""What is read of one set of images without a head, and whether retention on it means anything."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = float | None
RETENTIONS = ("retention_pct", "chance_corrected_retention_pct")
TRANSFER_NUMBERS = ("accuracy", "baseline_accuracy", *RETENTIONS, "delta_accuracy_pp")
RECALLS = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
RETRIEVAL_NUMBERS = (*RECALLS, "mean_recall", "i2t_median_rank", "t2i_median_rank")
ScoreName = Literal["accuracy", "mean_recall", "map"]
"""What a set is scored by: of classes, of pairs, of images with several labels."""
Z = 1.959963984540054
"""Of a two-sided interval of 95 %."""
FEW_RIGHT = 400
"""Below so many right images two standard errors of a retention of 50 % are over 5 points."""


def is_none(value: object) -> bool:
    """For fields that are left out of the JSON, so that older records keep their checksum."""
    return value is None


def _none() -> Number:
    """A number of some sets, that records of the others do not name."""
    number: Number = Field(None, exclude_if=is_none)
    return number


class Retrieval(BaseModel):
    """How images find their captions (i2t) and captions their image (t2i): `probes.retrieval`.

    Recalls are fractions, median ranks count from 1. None of them where images have classes.
    """

    model_config = ConfigDict(extra="forbid")

    i2t_r1: Number = _none()
    i2t_r5: Number = _none()
    i2t_r10: Number = _none()
    t2i_r1: Number = _none()
    t2i_r5: Number = _none()
    t2i_r10: Number = _none()
    mean_recall: Number = _none()
    i2t_median_rank: Number = _none()
    t2i_median_rank: Number = _none()
    n_captions: int | None = Field(None, exclude_if=is_none)


class AveragePrecision(BaseModel):
    """Of images with any number of labels: average precision of each class, and their mean.

    A class that no image is of has none, and is in no mean.
    """

    model_config = ConfigDict(extra="forbid")

    map: float
    classes: list[Number]


class TransferReading(Retrieval):
    """What is read of one dataset without a head; accuracies are fractions.

    Of images with captions it is retrieval: accuracies are null, the score is `mean_recall`, and
    retention is that of `baseline_mean_recall`.

    chance: accuracy of always naming the commonest class of the images, 1 / C where they are
    balanced; of retrieval the mean recall of a random order; of mean average precision the mean
    share of images of a class. Retention of what is not told from it
    is none: it is null, in records that were written with a number too.
    in_full: what is read beside where a study asks for it; see `reading.in_full`.
    """

    accuracy: Number
    baseline_accuracy: Number = None
    retention_pct: Number = None
    chance_corrected_retention_pct: Number = None
    delta_accuracy_pp: Number = None
    n_images: int | None = None
    n_classes: int | None = None
    chance: Number = Field(None, exclude_if=is_none)
    baseline_mean_recall: Number = _none()
    in_full: dict[str, Number] = Field(default_factory=dict, exclude_if=lambda found: not found)
    map: Number = _none()
    baseline_map: Number = _none()

    @model_validator(mode="after")
    def _nothing_of_chance(self) -> Self:
        if self.at_chance is not None:
            self.retention_pct = self.chance_corrected_retention_pct = None
        return self

    @property
    def score_name(self) -> ScoreName:
        """What it is scored by."""
        if self.mean_recall is not None:
            return "mean_recall"
        return "accuracy" if self.map is None else "map"

    @property
    def score(self) -> Number:
        """Accuracy, mean recall of retrieval, or mean average precision."""
        score: Number = getattr(self, self.score_name)
        return score

    @property
    def baseline_score(self) -> Number:
        """That of the untouched model."""
        score: Number = getattr(self, f"baseline_{self.score_name}")
        return score

    def numbers(self) -> dict[str, Number]:
        """The scalars by name: of classes accuracies and retention, of pairs recalls for them."""
        if self.mean_recall is None:
            return {field: getattr(self, field) for field in TRANSFER_NUMBERS} | self.in_full
        names = (*RETRIEVAL_NUMBERS, "baseline_mean_recall", *RETENTIONS)
        return {field: getattr(self, field) for field in names}

    @property
    def guess(self) -> float | None:
        """Chance: as it was read, else that of balanced classes."""
        return self.chance if self.chance is not None or not self.n_classes else 1 / self.n_classes

    @property
    def at_chance(self) -> str | None:
        """Why there is no retention where the baseline is at chance, else None.

        By Wilson's interval over images. A recall is a mean of values from 0 to 1 that are not all
        0 or 1: its interval is then wider than need be.
        """
        if self.score_name == "map":  # no mean over images
            return None
        n, p, guess = self.n_images, self.baseline_score, self.guess
        if not n or n < 0 or p is None or guess is None or not 0 <= p <= 1:
            return None
        if wilson_low(p, n) > guess:
            return None
        read = f"{round(p * n):,} of {n:,} right"
        if self.mean_recall is not None:
            read = f"mean recall {100 * p:.3g} % of {n:,} images"
        told = f"{read}, chance {100 * guess:.3g} %"
        return f"the untouched model is not distinguishable from chance: {told}"

    @property
    def few_right(self) -> str | None:
        """What a retention that rests on few right images cannot tell, else None.

        With b of them a retention of 50 % has a standard error of 50 / sqrt(b) points from the
        images that were lost alone.
        """
        right = self.baseline_accuracy, self.n_images
        if self.retention_pct is None or right[0] is None or not right[1]:
            return None
        n = round(right[0] * right[1])
        if n >= FEW_RIGHT:
            return None
        return (
            f"retention is of the {n:,} of {right[1]:,} images that the untouched model was right "
            f"on: near 50 % two standard errors from these alone are {100 / n**0.5:.0f} points"
        )


def wilson_low(p: float, n: int) -> float:
    """Lower end of Wilson's 95 % interval of a proportion `p` of `n`.

    Reference: Wilson (1927), Journal of the American Statistical Association 22.

    >>> round(wilson_low(0.01, 100), 5), wilson_low(0.0, 10)
    (0.00177, 0.0)
    """
    half = Z * math.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2)
    return max(0.0, p + Z**2 / (2 * n) - half) / (1 + Z**2 / n)
