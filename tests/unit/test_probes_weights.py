"""Relative weight drift: closed forms, key accounting, undefined values."""

from __future__ import annotations

import math

import pytest
import torch

from clipdrift.probes.weights import weight_drift_rel


def test_all_tensors_count_together() -> None:
    baseline = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    adapted = {"b": torch.tensor([[4.0 + 0.4]]).double(), "a": torch.tensor([3.0 - 0.3])}
    assert weight_drift_rel(adapted, baseline) == pytest.approx(0.1, abs=1e-7)  # 0.3 in float32


def test_equal_weights_have_drift_exactly_zero() -> None:
    weights = {"a": torch.randn(5, 7), "b": torch.randn(3)}
    assert weight_drift_rel({k: v.clone() for k, v in weights.items()}, weights) == 0.0


def test_a_low_rank_update() -> None:
    torch.manual_seed(0)
    w, a, b = torch.randn(6, 6).double(), torch.randn(2, 6).double(), torch.randn(6, 2).double()
    for scaling in (1.0, 2.0):
        drift = weight_drift_rel({"w": w + scaling * b @ a}, {"w": w})
        assert drift == pytest.approx(scaling * ((b @ a).norm() / w.norm()).item(), abs=1e-12)


def test_small_updates_are_not_lost_among_large_weights() -> None:
    baseline = {"w": torch.full((1000, 100), 1.0)}
    adapted = {"w": torch.full((1000, 100), 1.0 + 2.0**-23)}
    assert weight_drift_rel(adapted, baseline) == pytest.approx(2.0**-23, rel=1e-12)


def test_trained_parameters_are_taken_as_they_are() -> None:
    layer = torch.nn.Linear(3, 2)
    start = {k: v.detach().clone() for k, v in layer.named_parameters()}
    assert weight_drift_rel(dict(layer.named_parameters()), start) == 0.0


def test_names_and_shapes_must_match() -> None:
    one = torch.ones(2)
    with pytest.raises(ValueError, match="got 'b' only in adapted, 'c' only in baseline") as error:
        weight_drift_rel({"a": one, "b": one}, {"a": one, "c": one})
    assert "Compare weights in effect under the baseline's names." in str(error.value)
    with pytest.raises(ValueError, match=r"got 'a' \[2\] against \[2, 1\]"):
        weight_drift_rel({"a": one}, {"a": one[:, None]})
    with pytest.raises(ValueError, match="'4' only in adapted and 3 more"):
        weight_drift_rel({str(i): one for i in range(8)}, {})


@pytest.mark.parametrize("weights", [{}, {"a": torch.zeros(3)}])
def test_no_size_to_compare_with(weights: dict[str, torch.Tensor]) -> None:
    assert weight_drift_rel(weights, weights) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    assert weight_drift_rel({"a": torch.tensor([value])}, {"a": torch.ones(1)}) is None
    assert weight_drift_rel({"a": torch.ones(1)}, {"a": torch.tensor([value])}) is None
