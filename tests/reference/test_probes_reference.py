"""Every probe function against scipy or an implementation written here with plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import distance

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
from clipdrift.probes.representation import (
    embedding_drift,
    embedding_drift_per_image,
    linear_cka,
)
from clipdrift.probes.rollout import rollout_cls, rollout_step
from clipdrift.probes.weights import weight_drift_rel
from clipdrift.probes.zero_shot import cosines, largest
from clipdrift.records.correct import Correct

Array = NDArray[np.float64]
SEEDS = [0, 1, 2]


def random_attention(seed: int, *, batch: int = 3, heads: int = 4, tokens: int = 10) -> Array:
    """[B, H, T, T], rows sum to 1, from nearly uniform to nearly one-hot images."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.1, 6.0, batch)[:, None, None, None]
    weights = np.exp(scale * rng.normal(size=(batch, heads, tokens, tokens)))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def random_rows(seed: int) -> Array:
    """[B, H, P] CLS attention over patches."""
    row = random_attention(seed)[:, :, 0, 1:]
    return np.asarray(row / row.sum(-1, keepdims=True))


def each_row(measure: Callable[[Sequence[float]], float], rows: Array) -> Array:
    flat = [measure([float(v) for v in row]) for row in rows.reshape(-1, rows.shape[-1])]
    return np.array(flat).reshape(rows.shape[:-1])


def gini_by_differences(a: Sequence[float]) -> float:
    """Half the relative mean absolute difference, over all ordered pairs."""
    n = len(a)
    return sum(abs(x - y) for x in a for y in a) / (2 * n * n * (sum(a) / n))


def erf_by_sorting(a: Sequence[float], mass: float = 0.95) -> float:
    taken, count = 0.0, 0
    for weight in sorted(a, reverse=True):
        taken, count = taken + weight, count + 1
        if taken >= mass - 1e-12:
            break
    return count / len(a)


def diversity_by_pairs(maps: Array) -> float:
    """[H, P] -> 1 - mean cosine over pairs of heads."""
    heads = range(len(maps))
    pairs = [(i, j) for i in heads for j in heads if i < j]
    cosines = [
        maps[i] @ maps[j] / math.sqrt(maps[i] @ maps[i]) / math.sqrt(maps[j] @ maps[j])
        for i, j in pairs
    ]
    return 1 - sum(cosines) / len(pairs)


def cka_by_hsic(x: Array, y: Array) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with Gram matrices and a centring matrix."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, gram_y = x @ x.T, y @ y.T

    def hsic(a: Array, b: Array) -> float:
        return float(np.trace(a @ centring @ b @ centring)) / (n - 1) ** 2

    return hsic(k, gram_y) / math.sqrt(hsic(k, k) * hsic(gram_y, gram_y))


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_is_that_of_scipy(seed: int) -> None:
    rows = random_rows(seed)
    a = torch.from_numpy(rows)
    np.testing.assert_allclose(entropy_nats(a), stats.entropy(rows, axis=-1), rtol=1e-9)
    np.testing.assert_allclose(entropy_bits(a), stats.entropy(rows, base=2, axis=-1), rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_cls_row_by_loops(seed: int) -> None:
    attn = random_attention(seed)
    expected = np.empty((3, 4, 9))
    for b, h in np.ndindex(3, 4):
        row = [float(v) for v in attn[b, h, 0]][1:]
        expected[b, h] = [v / math.fsum(row) for v in row]
    np.testing.assert_allclose(cls_patch_attention(torch.from_numpy(attn)), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_gini_by_mean_absolute_difference(seed: int) -> None:
    rows = random_rows(seed)
    expected = each_row(gini_by_differences, rows)
    np.testing.assert_allclose(gini(torch.from_numpy(rows)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mass", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_erf_by_a_sorted_loop(seed: int, mass: float) -> None:
    rows = random_rows(seed)
    expected = each_row(lambda a: erf_by_sorting(a, mass), rows)
    # mass 1.0: both stop early by their own slack where the smallest weights are lost in rounding
    tolerance = 1 / rows.shape[-1] if mass == 1.0 else 1e-12
    found = erf95(torch.from_numpy(rows), mass)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance + 1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_head_diversity_by_pairs(seed: int) -> None:
    rows = random_rows(seed)
    found = head_diversity(torch.from_numpy(rows))
    np.testing.assert_allclose(found, [diversity_by_pairs(m) for m in rows], rtol=0, atol=1e-12)
    paper = head_diversity_paper(torch.from_numpy(rows)).item()
    assert paper == pytest.approx(diversity_by_pairs(rows.mean(axis=0)), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_patch_entropy_by_rows(seed: int) -> None:
    attn = random_attention(seed)
    expected = np.empty((3, 4))
    for b, h in np.ndindex(3, 4):
        rows = attn[b, h, 1:, 1:]  # scipy renormalises each row
        expected[b, h] = np.mean([stats.entropy(row, base=2) for row in rows])
    np.testing.assert_allclose(patch_entropy_bits(torch.from_numpy(attn)), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_rollout_by_matrix_products(seed: int) -> None:
    blocks = [random_attention(10 * seed + block) for block in range(5)]
    rollout = None
    for attn in blocks:
        rollout = rollout_step(rollout, torch.from_numpy(attn).mean(dim=1))
    assert rollout is not None
    expected, expected_cls = np.empty((3, 10, 10)), np.empty((3, 9))
    for b in range(3):
        mixed = [0.5 * attn[b].mean(axis=0) + 0.5 * np.eye(10) for attn in blocks]
        expected[b] = np.linalg.multi_dot(mixed[::-1])
        expected_cls[b] = expected[b, 0, 1:] / expected[b, 0, 1:].sum()
    np.testing.assert_allclose(rollout, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rollout_cls(rollout), expected_cls, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "width", "other"), [(6, 20, 20), (40, 5, 5), (12, 12, 3)])
@pytest.mark.parametrize("seed", SEEDS)
def test_cka_by_gram_matrices(seed: int, n: int, width: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) + 1.0
    y = x @ rng.normal(size=(width, other)) + rng.normal(size=(n, other))
    found = linear_cka(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(cka_by_hsic(x, y), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_embedding_drift_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 8, 16))
    expected = [distance.cosine(a, b) for a, b in zip(x, y, strict=True)]
    found = embedding_drift_per_image(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    mean = embedding_drift(torch.from_numpy(x), torch.from_numpy(y))
    assert mean == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_weight_drift_by_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = {
        "a.weight": rng.normal(size=(5, 3)),
        "a.bias": rng.normal(size=5),
        "c": rng.normal(size=()),
    }
    moved = {name: value + 0.01 * rng.normal(size=np.shape(value)) for name, value in start.items()}
    flat = [np.concatenate([np.ravel(v) for v in w.values()]) for w in (moved, start)]
    expected = np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
    found = weight_drift_rel(
        {k: torch.tensor(v).double() for k, v in moved.items()},
        {k: torch.tensor(v).double() for k, v in reversed(start.items())},
    )
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_zero_shot_by_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, classes = rng.normal(size=(30, 6)), rng.normal(size=(7, 6))
    labels = rng.integers(0, 7, size=30)
    expected = [min(range(7), key=lambda c: distance.cosine(x, classes[c])) for x in images]
    found = largest(cosines(torch.from_numpy(images), torch.from_numpy(classes)))
    assert found.tolist() == expected
    accuracy = Correct.of(found.numpy() == labels).accuracy
    right = sum(int(a == b) for a, b in zip(expected, labels, strict=True))
    assert accuracy == pytest.approx(right / 30, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_float32_agrees_with_float64(seed: int) -> None:
    attn = torch.from_numpy(random_attention(seed, tokens=50))
    a = cls_patch_attention(attn)
    for measure in (entropy_nats, erf95, gini, head_diversity, head_diversity_paper):
        torch.testing.assert_close(measure(a.float()).double(), measure(a), rtol=1e-5, atol=1e-7)
    rows = patch_entropy_bits(attn.float()).double()
    torch.testing.assert_close(rows, patch_entropy_bits(attn), rtol=1e-5, atol=1e-7)
