"""TransferReading: one set of images zero-shot, and whether retention on it means anything."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = float | None
RETENTIONS = ("retention_pct", "chance_corrected_retention_pct")
TRANSFER_NUMBERS = ("accuracy", "baseline_accuracy", *RETENTIONS, "delta_accuracy_pp")
Z = 1.959963984540054
"""Of a two-sided interval of 95 %."""


def is_none(value: object) -> bool:
    """For fields that are left out of the JSON, so that older records keep their checksum."""
    return value is None


class TransferReading(BaseModel):
    """Zero-shot result on one dataset; accuracies are fractions.

    chance: accuracy of always naming the commonest class of the images, 1 / C where they are
    balanced. Retention of what is not told from it is none: it is null, in records that were
    written with a number too.
    """

    model_config = ConfigDict(extra="forbid")

    accuracy: Number
    baseline_accuracy: Number = None
    retention_pct: Number = None
    chance_corrected_retention_pct: Number = None
    delta_accuracy_pp: Number = None
    n_images: int | None = None
    n_classes: int | None = None
    chance: Number = Field(None, exclude_if=is_none)

    @model_validator(mode="after")
    def _nothing_of_chance(self) -> Self:
        if self.at_chance is not None:
            self.retention_pct = self.chance_corrected_retention_pct = None
        return self

    @property
    def guess(self) -> float | None:
        """Chance: as it was read, else that of balanced classes."""
        return self.chance if self.chance is not None or not self.n_classes else 1 / self.n_classes

    @property
    def at_chance(self) -> str | None:
        """Why there is no retention where the baseline is not told from chance, else None."""
        n, p, guess = self.n_images, self.baseline_accuracy, self.guess
        if not n or n < 0 or p is None or guess is None or not 0 <= p <= 1:
            return None
        if wilson_low(p, n) > guess:
            return None
        right = f"{round(p * n):,} of {n:,} right"
        return f"the untouched model is not told from chance: {right}, chance {100 * guess:.3g} %"


def wilson_low(p: float, n: int) -> float:
    """Lower end of Wilson's 95 % interval of a proportion `p` of `n`.

    Reference: Wilson (1927), Journal of the American Statistical Association 22.

    >>> round(wilson_low(0.01, 100), 5), wilson_low(0.0, 10)
    (0.00177, 0.0)
    """
    half = Z * math.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2)
    return max(0.0, p + Z**2 / (2 * n) - half) / (1 + Z**2 / n)


__all__ = ["RETENTIONS", "TRANSFER_NUMBERS", "Number", "TransferReading", "is_none", "wilson_low"]
