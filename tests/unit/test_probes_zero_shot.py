"""Zero-shot predictions and retention: closed forms and undefined values."""

from __future__ import annotations

import math

import pytest
import torch

from clipdrift.probes.zero_shot import (
    chance_corrected_retention_pct,
    cosines,
    largest,
    retention_pct,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_direction_decides_and_not_length(dtype: torch.dtype) -> None:
    images = torch.tensor([[1.0, 0.1], [0.1, 1.0], [30.0, 3.0], [-1.0, 0.5]], dtype=dtype)
    classes = torch.tensor([[1.0, 0.0], [0.0, 1000.0]], dtype=dtype)
    assert largest(cosines(images, classes)).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_an_image_without_a_direction_is_never_right(bad: list[float]) -> None:
    images = torch.tensor([bad, [1.0, 0.0]])
    assert largest(cosines(images, torch.eye(2))).tolist() == [-1, 0]


def test_retention() -> None:
    assert retention_pct(0.6022, 0.6022) == 100.0
    assert retention_pct(0.0, 0.5) == 0.0
    assert retention_pct(0.75, 0.5) == 150.0
    assert retention_pct(0.5, 0.0) is None


def test_chance_corrected_retention() -> None:
    assert chance_corrected_retention_pct(0.5, 0.5, 10) == 100.0
    assert chance_corrected_retention_pct(0.1, 0.6, 10) == 0.0
    assert chance_corrected_retention_pct(0.0, 0.6, 10) == pytest.approx(-20.0, abs=1e-12)
    assert chance_corrected_retention_pct(0.5, 0.1, 10) is None
    assert chance_corrected_retention_pct(0.5, 0.05, 10) is None
    assert chance_corrected_retention_pct(1.0, 1.0, 1) is None
