"""CKA and embedding drift: closed forms, invariances, undefined values, messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipdrift.probes.representation import (
    embedding_drift,
    embedding_drift_per_image,
    linear_cka,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_cka_of_single_columns_is_the_squared_correlation() -> None:
    x, y = normal(20, 1, seed=1), normal(20, 1, seed=2)
    expected = np.corrcoef(x[:, 0].numpy(), y[:, 0].numpy())[0, 1] ** 2
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)


def test_cka_of_unrelated_directions_is_zero() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    y = torch.tensor([[0.0], [0.0], [1.0], [-1.0]])
    assert linear_cka(x, y) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_cka_sees_no_rotation_shift_or_scale(n: int, width: int, seed: int) -> None:
    x = normal(n, width, seed=seed)
    rotation = torch.linalg.qr(normal(width, width, seed=seed + 1)).Q
    assert linear_cka(x, x) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, -3.0 * x @ rotation + 5.0) == pytest.approx(1.0, abs=1e-10)  # shift rounds
    y = normal(n, 3, seed=seed + 2)
    value = linear_cka(x, y)
    assert value is not None
    assert 0.0 <= value <= 1.0
    assert linear_cka(y, x) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cka_of_tiny_and_huge_activations(scale: float) -> None:
    x, y = normal(9, 4).float(), normal(9, 4, seed=1).float()
    assert linear_cka(x * scale, y) == pytest.approx(linear_cka(x, y), rel=1e-5)  # float32 product


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_cka_is_computed_in_float64(dtype: torch.dtype) -> None:
    x, y = (normal(50, 8, seed=s).to(dtype) + 100 for s in (0, 1))
    assert linear_cka(x, y) == linear_cka(x.double(), y.double())


@pytest.mark.parametrize(
    "x",
    [
        torch.full((5, 3), 0.1),
        torch.full((5, 3), 0.1, dtype=torch.float64),
        torch.zeros(5, 3),
        torch.full((5, 3), math.nan),
        torch.tensor([[math.inf, 0, 0]] + [[0.0, 0, 0]] * 4),
    ],
)
def test_cka_without_variance_is_undefined(x: Tensor) -> None:
    y = normal(5, 3)
    assert linear_cka(x, y) is None
    assert linear_cka(y, x) is None
    assert linear_cka(y[:1], y[:1]) is None


def test_cka_of_different_probe_sets() -> None:
    with pytest.raises(
        ValueError, match=r"expected \[N, D\] and \[N, E\], got \[4, 3\] and \[5, 3\]"
    ):
        linear_cka(normal(4, 3), normal(5, 3))
    with pytest.raises(ValueError, match="Use one probe set"):
        linear_cka(normal(4), normal(4))


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.5, math.pi / 2, math.pi])
def test_drift_of_a_rotation(angle: float) -> None:
    x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[3 * math.cos(angle), 3 * math.sin(angle)]], dtype=torch.float64)
    # 1 - cos t = 2 sin^2(t / 2), which keeps its digits for small t: so must ours.
    expected = 2 * math.sin(angle / 2) ** 2
    assert embedding_drift(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_embeddings_have_drift_exactly_zero(dtype: torch.dtype) -> None:
    x = normal(30, 17).to(dtype)
    assert torch.equal(embedding_drift_per_image(x, x.clone()), torch.zeros(30).double())
    assert embedding_drift(x, x.clone()) == 0.0


def test_length_of_embeddings_does_not_matter() -> None:
    x, y = normal(6, 4), normal(6, 4, seed=1)
    scale = torch.rand(6, 1).double() + 0.5
    torch.testing.assert_close(
        embedding_drift_per_image(x * scale, y), embedding_drift_per_image(x, y)
    )


def test_a_zero_embedding_is_undefined() -> None:
    x, y = normal(3, 4), normal(3, 4, seed=1)
    x[1] = 0.0
    assert embedding_drift_per_image(x, y).isnan().tolist() == [False, True, False]
    assert embedding_drift(x, y) is None
    assert embedding_drift(x[:0], y[:0]) is None


def test_drift_of_different_probe_sets() -> None:
    with pytest.raises(ValueError, match=r"expected \[N, E\] twice, got \[3, 4\] and \[1, 4\]"):
        embedding_drift(normal(3, 4), normal(1, 4))
