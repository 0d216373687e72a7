"""Zero-shot predictions and retention: closed forms and undefined values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipdrift.probes.zero_shot import (
    chance_corrected_retention_pct,
    retention_pct,
    zero_shot_accuracy,
    zero_shot_predict,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_direction_decides_and_not_length(dtype: torch.dtype) -> None:
    images = torch.tensor([[1.0, 0.1], [0.1, 1.0], [30.0, 3.0], [-1.0, 0.5]], dtype=dtype)
    classes = torch.tensor([[1.0, 0.0], [0.0, 1000.0]], dtype=dtype)
    assert zero_shot_predict(images, classes).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_an_image_without_a_direction_is_never_right(bad: list[float]) -> None:
    images = torch.tensor([bad, [1.0, 0.0]])
    assert zero_shot_predict(images, torch.eye(2)).tolist() == [-1, 0]
    assert zero_shot_accuracy(images, torch.eye(2), torch.tensor([0, 0])) == 0.5


def test_accuracy_is_a_fraction() -> None:
    images = torch.eye(4)[torch.tensor([0, 1, 2, 3, 3])]
    assert zero_shot_accuracy(images, torch.eye(4), torch.tensor([0, 1, 2, 3, 0])) == 0.8


@pytest.mark.parametrize("labels", [torch.tensor([0]), torch.tensor([[0], [1]])])
def test_one_label_an_image(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"labels: expected one for each of N > 0 images, got"):
        zero_shot_accuracy(torch.eye(2), torch.eye(2), labels)


def test_accuracy_of_no_images() -> None:
    with pytest.raises(ValueError, match="Check the set"):
        zero_shot_accuracy(torch.eye(2)[:0], torch.eye(2), torch.tensor([], dtype=torch.int64))


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
