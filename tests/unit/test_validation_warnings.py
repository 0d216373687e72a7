"""Validation parts too small for what is chosen on them are told before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipdrift.run.conditions import validation_warnings


def materials(*counts: int) -> Any:
    """A target with so many validation images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    target = SimpleNamespace(
        score_name="accuracy",
        val=SimpleNamespace(labels=labels, captions=None),
        prompts=[["a"]] * len(counts),
    )
    return SimpleNamespace(targets={"pets": target})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Two binomial errors of 90 %: 2 sqrt(0.9 * 0.1 / n), 1 point at 3,600 images.
        ((1_800, 1_800), []),
        ((0, 0), []),
        (
            (450, 450),
            ["on 900 validation images two standard errors of an accuracy of 90 % are 2.0"],
        ),
        ((3_600, 4), ["4 validation images in its smallest class, fewer than 5"]),
        ((3_600, 0), ["0 validation images in its smallest class, fewer than 5"]),
        ((5, 4), ["on 9 validation images", "4 validation images in its smallest class"]),
    ],
)
def test_validation_parts_that_are_too_small(counts: tuple[int, ...], expected: list[str]) -> None:
    found = validation_warnings(materials(*counts))
    assert len(found) == len(expected)
    for warning, text in zip(found, expected, strict=True):
        assert warning.startswith(f"target pets: {text}")
