"""Attention measurements: closed forms, invariances, precision, undefined values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipdrift.probes.attention import (
    cls_patch_attention,
    entropy_bits,
    entropy_nats,
    erf95,
    gini,
    head_diversity,
    head_diversity_paper,
    patch_entropy_bits,
)

SPREAD = [entropy_nats, entropy_bits, erf95, gini]
EXACT = {"rtol": 0.0, "atol": 1e-12}
small = settings(max_examples=40, deadline=None)
shapes = st.tuples(
    st.integers(1, 5), st.integers(2, 6), st.integers(2, 30), st.integers(0, 2**32 - 1)
)


def random_maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Peaked attention: softmax of normal logits with SD 2 over the last axis."""
    draw = np.random.default_rng(seed).normal(scale=2.0, size=shape)
    return torch.from_numpy(draw).softmax(dim=-1).to(dtype)


def uniform(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.full((n,), 1.0, dtype=dtype) / n


def test_cls_row_without_its_own_weight() -> None:
    attn = random_maps(2, 3, 5, 5)
    expected = attn[:, :, 0, 1:] / (1 - attn[:, :, 0, :1])
    torch.testing.assert_close(cls_patch_attention(attn), expected, **EXACT)


@pytest.mark.parametrize("n", [1, 2, 7, 49, 576])
def test_uniform_attention(n: int) -> None:
    a = uniform(n)
    assert entropy_nats(a).item() == pytest.approx(math.log(n), abs=1e-12)
    assert entropy_bits(a).item() == pytest.approx(math.log2(n), abs=1e-12)
    assert gini(a).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 49, 576])
def test_one_patch(n: int) -> None:
    a = torch.eye(n, dtype=torch.float64)
    zero = torch.zeros(n, dtype=torch.float64)
    torch.testing.assert_close(entropy_nats(a), zero, **EXACT)
    torch.testing.assert_close(erf95(a), zero + 1 / n, **EXACT)
    torch.testing.assert_close(gini(a), zero + (1 - 1 / n), **EXACT)


@pytest.mark.parametrize("n", [2, 5, 49])
def test_gini_of_linearly_growing_weights(n: int) -> None:
    a = torch.arange(1, n + 1, dtype=torch.float64)
    assert gini(a / a.sum()).item() == pytest.approx((n - 1) / (3 * n), abs=1e-12)


def test_entropy_of_geometric_weights() -> None:
    a = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=torch.float64)
    assert entropy_bits(a).item() == pytest.approx(1.875, abs=1e-12)
    assert entropy_nats(a).item() == pytest.approx(1.875 * math.log(2), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_erf_meets_a_mass_that_is_reached_exactly(dtype: torch.dtype) -> None:
    for n in range(1, 600):
        needed = (19 * n + 19) // 20  # ceil(0.95 n) in integers
        assert erf95(uniform(n, dtype)).item() == pytest.approx(needed / n, rel=1e-7), n


def test_erf_just_below_and_at_the_mass() -> None:
    assert erf95(torch.tensor([0.949, 0.051]).double()).item() == 1.0
    assert erf95(torch.tensor([0.951, 0.049]).double()).item() == 0.5
    assert erf95(torch.tensor([0.5, 0.5]).double(), mass=0.5).item() == 0.5
    assert erf95(torch.tensor([0.6, 0.4, 0.0]).double(), mass=1.0).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("mass", [0.0, -0.1, 1.1, math.nan])
def test_erf_of_an_impossible_mass(mass: float) -> None:
    with pytest.raises(ValueError, match=r"mass: expected a share in \(0, 1\], got .*Give 0.95"):
        erf95(uniform(3), mass)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 3, math.pi / 2])
def test_diversity_of_two_heads_at_an_angle(angle: float) -> None:
    a = torch.tensor([[[1.0, 0.0], [math.cos(angle), math.sin(angle)]]], dtype=torch.float64)
    assert head_diversity(a).item() == pytest.approx(1 - math.cos(angle), abs=1e-12)


def test_diversity_of_heads_that_agree_is_zero_in_float32() -> None:
    a = random_maps(4, 1, 49, dtype=torch.float32).expand(4, 12, 49)
    assert head_diversity(a).abs().max().item() < 1e-12
    assert (head_diversity(a) >= 0).all()


def test_paper_diversity_depends_on_the_batch_and_ours_does_not() -> None:
    a = random_maps(6, 4, 9)
    one_by_one = torch.cat([head_diversity(image[None]) for image in a])
    torch.testing.assert_close(head_diversity(a), one_by_one, rtol=0.0, atol=0.0)
    paper = [head_diversity_paper(a[:n]).item() for n in (1, 2, 6)]
    assert paper[0] > paper[1] > paper[2]
    assert paper[0] == pytest.approx(head_diversity(a)[0].item(), abs=1e-12)


def test_patch_rows_leave_cls_out() -> None:
    n = 4
    attn = torch.full((1, 1, n + 1, n + 1), 0.1 / n, dtype=torch.float64)
    attn[..., 0] = 0.9  # most of it on CLS: the rest is uniform
    torch.testing.assert_close(patch_entropy_bits(attn), torch.full((1, 1), 2.0).double(), **EXACT)
    attn[..., 0, :] = torch.tensor([0, 1, 0, 0, 0]).double()  # nor does its row count
    torch.testing.assert_close(patch_entropy_bits(attn), torch.full((1, 1), 2.0).double(), **EXACT)


def test_undefined_is_nan_and_stays_in_its_place() -> None:
    a = torch.stack([uniform(4), torch.zeros(4).double() / 0.0, uniform(4)])
    for measure in SPREAD:
        assert measure(a).isnan().tolist() == [False, True, False], measure.__name__
    assert erf95(torch.zeros(3)).isnan()
    assert head_diversity(random_maps(2, 1, 5)).isnan().all()
    only_cls = torch.eye(3)[None, None]
    only_cls[..., 0] = 1.0
    assert cls_patch_attention(only_cls * torch.tensor([1.0, 0, 0])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_as_float32(dtype: torch.dtype) -> None:
    attn = random_maps(2, 3, 10, 10).to(dtype)
    a = cls_patch_attention(attn)
    assert a.dtype == torch.float32
    for measure in [*SPREAD, head_diversity, head_diversity_paper]:
        low, wide = measure(a.to(dtype)), measure(a.to(dtype).float())
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, wide, rtol=0.0, atol=0.0)
    torch.testing.assert_close(patch_entropy_bits(attn), patch_entropy_bits(attn.float()))
    one_hot = torch.eye(4, dtype=dtype)
    assert entropy_nats(one_hot).tolist() == [0.0] * 4  # float16 alone gives NaN


def test_float64_stays_float64() -> None:
    attn = random_maps(2, 3, 10, 10)
    measures = [*SPREAD, head_diversity, head_diversity_paper]
    assert {m(cls_patch_attention(attn)).dtype for m in measures} == {torch.float64}
    assert patch_entropy_bits(attn).dtype == torch.float64


@small
@given(shapes)
def test_order_of_patches_does_not_matter(shape: tuple[int, int, int, int]) -> None:
    batch, heads, patches, seed = shape
    a = random_maps(batch, heads, patches, seed=seed)
    moved = a[..., torch.from_numpy(np.random.default_rng(seed).permutation(patches))]
    for measure in [*SPREAD, head_diversity]:
        torch.testing.assert_close(measure(moved), measure(a), **EXACT)


@small
@given(shapes)
def test_order_of_heads_does_not_matter(shape: tuple[int, int, int, int]) -> None:
    batch, heads, patches, seed = shape
    attn = random_maps(batch, heads, patches + 1, patches + 1, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(heads))
    a, moved = cls_patch_attention(attn), cls_patch_attention(attn[:, order])
    for measure in SPREAD:
        torch.testing.assert_close(measure(moved), measure(a)[:, order], rtol=0.0, atol=0.0)
    torch.testing.assert_close(head_diversity(moved), head_diversity(a), **EXACT)
    torch.testing.assert_close(head_diversity_paper(moved), head_diversity_paper(a), **EXACT)
    rows = patch_entropy_bits(attn)
    torch.testing.assert_close(patch_entropy_bits(attn[:, order]), rows[:, order], **EXACT)


@small
@given(shapes)
def test_ranges(shape: tuple[int, int, int, int]) -> None:
    batch, heads, patches, seed = shape
    a = random_maps(batch, heads, patches, seed=seed)
    tiny = 1e-12
    for values, low, high in (
        (entropy_nats(a), 0, math.log(patches)),
        (erf95(a), 1 / patches, 1),
        (gini(a), 0, 1 - 1 / patches),
        (head_diversity(a), 0, 1),
    ):
        assert ((values >= low - tiny) & (values <= high + tiny)).all()
