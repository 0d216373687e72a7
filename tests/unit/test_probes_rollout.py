"""Rollout: closed forms and what block-by-block computation must keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipdrift.probes.attention import entropy_bits, erf95, gini
from clipdrift.probes.rollout import rollout_cls, rollout_step


def rolled(blocks: list[Tensor]) -> Tensor:
    rollout = None
    for attn in blocks:
        rollout = rollout_step(rollout, attn.mean(dim=1))
    assert rollout is not None
    return rollout


@pytest.mark.parametrize("n_blocks", [1, 2, 12])
def test_uniform_attention_fades_the_input_by_half_a_block(n_blocks: int) -> None:
    tokens = 10
    uniform = torch.full((2, 3, tokens, tokens), 1 / tokens, dtype=torch.float64)
    rollout = rolled([uniform] * n_blocks)
    left = 0.5**n_blocks  # (0.5 J/T + 0.5 I)^L = (1 - 2^-L) J/T + 2^-L I
    expected = (1 - left) / tokens + left * torch.eye(tokens, dtype=torch.float64)
    torch.testing.assert_close(rollout, expected.expand(2, -1, -1), rtol=0.0, atol=1e-12)
    a = rollout_cls(rollout)
    ninth = torch.full((2, tokens - 1), 1 / (tokens - 1), dtype=torch.float64)
    torch.testing.assert_close(a, ninth, rtol=0.0, atol=1e-12)
    assert entropy_bits(a).tolist() == pytest.approx([3.169925001442312] * 2, abs=1e-12)
    assert erf95(a).tolist() == [1.0, 1.0]
    assert gini(a).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_later_blocks_multiply_from_the_left() -> None:
    """CLS reads patch 1, which read patch 2 a block earlier: patch 2 reaches CLS."""
    first, second = torch.zeros(2, 1, 1, 3, 3, dtype=torch.float64).unbind()
    first[..., [0, 1, 2], [0, 2, 2]] = 1.0
    second[..., [0, 1, 2], [1, 1, 2]] = 1.0
    assert rolled([first, second])[0, 0].tolist() == [0.5, 0.25, 0.25]
    assert rolled([second, first])[0, 0].tolist() == [0.5, 0.5, 0.0]
    assert rollout_cls(rolled([first, second])).tolist() == [[0.5, 0.5]]


def test_rows_sum_to_one_and_inputs_are_left_alone() -> None:
    torch.manual_seed(0)
    blocks = [torch.randn(2, 4, 6, 6, dtype=torch.float64).softmax(-1) for _ in range(5)]
    copies = [attn.clone() for attn in blocks]
    total = rolled(blocks).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0.0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(blocks, copies, strict=True))


def test_order_of_heads_does_not_matter() -> None:
    torch.manual_seed(0)
    blocks = [torch.randn(2, 4, 6, 6, dtype=torch.float64).softmax(-1) for _ in range(3)]
    other = [attn[:, [2, 0, 3, 1]] for attn in blocks]
    torch.testing.assert_close(rolled(other), rolled(blocks), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_as_float32(dtype: torch.dtype) -> None:
    mean = torch.rand(1, 4, 4).softmax(-1).to(dtype)
    rollout = rollout_step(rollout_step(None, mean), mean)
    assert rollout.dtype == torch.float32
    torch.testing.assert_close(rollout, rolled([mean[:, None].float()] * 2), rtol=0.0, atol=0.0)


def test_attention_that_stays_where_it_is_has_no_patch_mass() -> None:
    rollout = rolled([torch.eye(3)[None, None]] * 2)
    assert torch.equal(rollout, torch.eye(3)[None])
    assert rollout_cls(rollout).isnan().all()
