"""Spectral and geometric measures against numpy's SVD, scipy's linear programs and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linprog
from scipy.spatial.distance import pdist
from scipy.stats import entropy, ortho_group, spearmanr

from clipdrift.probes import similarity, spectra
from clipdrift.probes.flow import attention_flow
from clipdrift.probes.gradient import gradient_energy
from clipdrift.probes.weight_updates import WeightUpdate, over_weights, weight_updates

RNG = np.random.default_rng(5)
X = RNG.normal(size=(30, 16)) * np.linspace(3, 0.5, 16)
Y = X @ RNG.normal(size=(16, 16)) * 0.1 + X + RNG.normal(size=(30, 16)) * 0.2
TURN = ortho_group.rvs(16, random_state=3)
NAME = "encoder.layers.{}.mlp.fc1.weight"


def updated(before: np.ndarray, after: np.ndarray) -> WeightUpdate:
    """By the public path, from float32 weights."""
    states = [{NAME.format(0): torch.from_numpy(w).float()} for w in (after, before)]
    (found,) = weight_updates(*states)
    known: dict[str, spectra.Spectrum] = {}
    for _ in range(2):  # the second time by what the first has found of the untouched weight
        assert weight_updates(*states, known) == [found]
    return found


@pytest.mark.parametrize("shape", [(40, 40), (60, 40), (40, 60)])
def test_an_update_against_numpys_decompositions(shape: tuple[int, int]) -> None:
    before = RNG.normal(size=shape).astype(np.float32)
    after = (before + 1.5 * RNG.normal(size=shape)).astype(np.float32)
    found = updated(before, after)
    update = after.astype(float) - before.astype(float)
    values = np.linalg.svd(update, compute_uv=False)
    u, _, vt = np.linalg.svd(before.astype(float), full_matrices=False)
    leading = np.linalg.svd(after.astype(float))[0][:, :10]
    assert found.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-9)
    assert found.effective_rank == pytest.approx(math.exp(entropy(values)), rel=1e-9)
    inside = np.square(u.T @ update @ vt.T)
    whole = np.square(update).sum()
    assert found.top_energy == pytest.approx(inside[:4, :4].sum() / whole, rel=1e-7)
    assert found.bottom_energy == pytest.approx(inside[-4:, -4:].sum() / whole, rel=1e-7)
    cosines = np.linalg.svd(u[:, :10].T @ leading, compute_uv=False)
    np.testing.assert_allclose(found.angles_deg, np.rad2deg(np.arccos(cosines)), rtol=1e-6)
    strangers = (np.abs(u.T @ leading).max(axis=0) < 0.5).sum()
    assert found.intruder_dimensions == strangers
    assert strangers  # the case says something


def test_a_large_update_of_rank_one_is_one_intruder() -> None:
    """A strong direction that is no untouched one comes first; all else stays where it was."""
    before = np.diag(np.linspace(2, 1, 64))
    new = np.full(64, 1 / 8)
    found = updated(before, before + 40 * np.outer(new, new))
    assert found.intruder_dimensions == 1
    assert found.stable_rank == pytest.approx(1, abs=1e-9)
    assert found.effective_rank == pytest.approx(1, abs=1e-5)
    assert found.top_energy == pytest.approx((6 / 64) ** 2, rel=1e-4)  # |6 of 64 entries|^2, twice
    assert updated(before, 1.5 * before).intruder_dimensions == 0


def test_a_rotation_turns_the_leading_span_by_its_angle() -> None:
    """Of 12 directions the last two of the ten leading ones turn into two others by 30 degrees."""
    before = np.diag([*np.linspace(9, 5, 10), 0.2, 0.1])
    turn, c, s = np.eye(12), math.cos(math.pi / 6), math.sin(math.pi / 6)
    for i, j in ((8, 10), (9, 11)):
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -s, s
    found = updated(before, turn @ before)
    np.testing.assert_allclose(found.angles_deg, [0] * 8 + [30, 30], atol=1e-4)
    assert found.intruder_dimensions == 0  # cos 30 degrees is above the threshold
    assert found.leading_angle_deg == pytest.approx(6)


def test_a_merged_update_has_the_rank_of_its_factors() -> None:
    """Beside float32 weights, whose rounding fills all directions a little."""
    before = (0.05 * RNG.normal(size=(128, 128))).astype(np.float32)
    factors = ortho_group.rvs(128, random_state=1)[:, :8], ortho_group.rvs(128, random_state=2)[:8]
    after = (before + 1e-3 * (factors[0] @ factors[1]).astype(np.float32)).astype(np.float32)
    found = updated(before, after)
    assert found.effective_rank == pytest.approx(8, abs=0.01)
    assert found.stable_rank == pytest.approx(8, abs=0.01)


def test_weights_that_did_not_move_are_exactly_at_rest() -> None:
    still = {NAME.format(i): torch.randn(20, 12) for i in range(2)} | {"pre.weight": torch.ones(2)}
    moved = {**still, NAME.format(1): still[NAME.format(1)] + 1}
    rest, other = weight_updates(moved, still)
    assert rest == WeightUpdate(
        weight=NAME.format(0), block=1, intruder_dimensions=0, angles_deg=(0.0,) * 10
    )
    assert (other.block, other.stable_rank) == (2, pytest.approx(1))
    found = over_weights([rest, other], 2)
    assert found["update_stable_rank"] == other.stable_rank
    assert found["update_stable_rank_per_block"] == [None, other.stable_rank]
    assert found["intruder_dimensions_per_block"] == [0, other.intruder_dimensions]
    assert over_weights(None, 2)["intruder_dimensions"] is None
    broken = {**moved, NAME.format(0): still[NAME.format(0)] * math.nan}
    assert weight_updates(broken, still)[0] == WeightUpdate(weight=NAME.format(0), block=1)


def test_procrustes_by_scipys_best_rotation() -> None:
    a, b = ((one - one.mean(axis=0)) for one in (X, Y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turn, _ = orthogonal_procrustes(a, b)
    expected = np.linalg.norm(a @ turn - b) ** 2 / 2
    assert similarity.procrustes_residual(X, Y) == pytest.approx(expected, rel=1e-6)


def test_what_each_measure_does_not_see() -> None:
    """Rotation, shift and scale: all but the subspace and, of the scale, the Gram matrix."""
    turned = 2 * X @ TURN + 1
    assert similarity.procrustes_residual(turned, X) == pytest.approx(0, abs=1e-9)
    assert similarity.debiased_cka(turned, X) == pytest.approx(1, abs=1e-9)
    assert similarity.gram_distortion(X @ TURN, X) == pytest.approx(0, abs=1e-9)
    assert similarity.gram_distortion(turned, X) == pytest.approx(3)  # 2^2 - 1
    angle = similarity.subspace_angle_deg(turned, X)
    assert angle is not None
    assert angle > 10
    assert similarity.subspace_angle_deg(2 * X + 1, X) == pytest.approx(0, abs=1e-5)
    assert similarity.rsa(3 * X, X) == pytest.approx(1)


def test_rsa_by_scipys_distances() -> None:
    expected = spearmanr(pdist(X, "correlation"), pdist(Y, "correlation")).statistic
    assert similarity.rsa(X, Y) == pytest.approx(expected, rel=1e-12)


def test_debiased_cka_is_unbiased_where_cka_is_not() -> None:
    """By the sums over distinct indices that define the estimate; near 0 of unrelated noise."""
    k, m = ((one - one.mean(axis=0)) @ (one - one.mean(axis=0)).T for one in (X[:7], Y[:7]))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        n, places = len(a), range(len(a))
        pairs = [a[i, j] * b[i, j] for i in places for j in places if i != j]
        triples = [
            a[i, j] * b[i, k]
            for i in places for j in places for k in places if len({i, j, k}) == 3
        ]  # fmt: skip
        fours = [
            a[i, j] * b[k, q]
            for i in places for j in places for k in places for q in places
            if len({i, j, k, q}) == 4
        ]  # fmt: skip
        assert len(fours) == math.perm(n, 4)
        return float(np.mean(pairs) - 2 * np.mean(triples) + np.mean(fours))

    expected = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    assert similarity.debiased_cka(X[:7], Y[:7]) == pytest.approx(expected, rel=1e-9)
    draws = [
        similarity.debiased_cka(RNG.normal(size=(20, 50)), RNG.normal(size=(20, 50))) or 0.0
        for _ in range(40)
    ]
    assert abs(np.mean(draws)) < 0.05  # linear CKA of such draws is 0.7


def test_equal_activations_are_exactly_at_rest_and_constant_ones_undefined() -> None:
    x = torch.from_numpy(X)
    at_rest = {name: rest for name, (_, rest) in similarity.MEASURES.items()}
    assert similarity.compared(x, x.clone()) == at_rest
    assert set(similarity.compared(torch.ones(30, 16), x).values()) == {None}
    assert similarity.compared(x[:3], torch.from_numpy(Y[:3]))["debiased_cka"] is None


def test_flow_is_what_a_linear_program_finds() -> None:
    """Of three blocks and five tokens; the program knows nothing of augmenting paths."""
    maps = RNG.dirichlet(np.full(5, 0.2), size=(3, 5))
    held = 0.5 * maps[::-1] + 0.5 * np.eye(5)
    edges = [(level, i, j) for level in range(3) for i in range(5) for j in range(5)]
    for patch, found in enumerate(attention_flow(maps), start=1):
        inner = [(level, token) for level in range(1, 3) for token in range(5)]
        kept = np.array(
            [
                [((lv + 1, j) == node) - float((lv, i) == node) for lv, i, j in edges]
                for node in inner
            ]
        )
        blocked = [(lv == 0 and i != 0) or (lv == 2 and j != patch) for lv, i, j in edges]
        most = [0 if no else held[e] for e, no in zip(edges, blocked, strict=True)]
        value = [-float(lv == 2) for lv, _, _ in edges]
        bounds = [(0, one) for one in most]
        best = linprog(value, A_eq=kept, b_eq=np.zeros(len(inner)), bounds=bounds)
        assert found == pytest.approx(-best.fun, abs=1e-4)  # capacities are rounded to 1e-6


def test_the_gradients_energy_of_a_linear_model_is_its_weights() -> None:
    """Two patches of 2 x 2 pixels, of which the second counts three times as much."""
    weight = torch.zeros(3, 2, 4)
    weight[:, :, :2], weight[:, :, 2:] = 1.0, 3.0

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        seen = (pixels * weight).flatten(1)
        return torch.stack([seen[:, ::2].sum(1), seen[:, 1::2].sum(1)], dim=1)

    energy = gradient_energy(encode, torch.randn(5, 3, 2, 4), 2)
    np.testing.assert_allclose(energy, [[0.1, 0.9]] * 5, rtol=1e-6)


def test_random_signs_give_the_gradient_of_the_whole_embedding() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 6), torch.nn.Tanh())
    pixels = torch.randn(2, 3, 4, 4)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(pixels)
    exact = jacobian.square().sum(dim=(1, 2)).reshape(2, 2, 2, 2, 2).sum(dim=(2, 4)).flatten(1)
    found = gradient_energy(model, pixels, 2, draws=400)
    np.testing.assert_allclose(
        found, (exact / exact.sum(1, keepdim=True)).detach(), atol=0.06
    )  # Monte Carlo


def test_spectrum_is_numpys() -> None:
    for shape in ((7, 5), (5, 7)):
        w = RNG.normal(size=shape)
        found = spectra.spectrum(w)
        np.testing.assert_allclose(found.values, np.linalg.svd(w)[1], rtol=1e-9)
        np.testing.assert_allclose(found.left() * found.values @ found.right().T, w, atol=1e-9)
        np.testing.assert_allclose(found.cosines(w), found.left().T @ w, atol=1e-12)
        np.testing.assert_array_equal(found.right(slice(-2, None)), found.right()[:, -2:])
    assert spectra.spectrum(w, 2).left().shape == (5, 2)
