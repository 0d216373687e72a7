"""What the whole grid would read: the runs that are missing, drawn many times from those at hand.

Of each number that decides (accuracy, retention on each transfer set; at each alpha) a Gaussian
process models what the runs gained since the early reading of their cell:

    final(c, s) = early(c) + linear(x_c) + smooth(x_c) + m_c + u_s + e_cs

c a cell and s a seed; x_c are the cell's early reading and the logarithm of its rate, m is the
cell's own, u what a seed does to all of its runs (they are matched), e the rest. The SDs of the
five parts are drawn too, by elliptical slice sampling: with few runs they are hardly known, and the
best guess of them would promise too much. Accuracies are modelled as the arcsine of their root and
losses of retention on a scale that is logarithmic beyond `KNEE_PP`: runs differ about alike there.

Reference: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 2.22 to 2.24;
Murray, Adams & MacKay (2010), Elliptical slice sampling, AISTATS, figure 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

Floats = NDArray[np.float64]
KNEE_PP = 2.0
"""Loss of retention in points up to which its scale is about linear."""
TYPICAL = np.log([0.5, 0.3, 0.2, 0.15, 0.2])
"""Prior medians of the SDs of linear, smooth, cell, seed and run, where the SD of early readings
over cells is 1."""
SPREAD = 1.0
"""SD of the logarithm of each of them: a factor of 2.7 either way."""
WARM_UP, THIN, N_SCALES = 30, 3, 25
"""Of the draws of the SDs: left out first, one in so many kept, kept."""
WIDEN = 1.5
"""Factor on what the process leaves open: its form is not that of every study, and without it races
on made-up grids (`benchmarks/race_replay.py --simulated`) were right less often than promised."""
LEAST_SPREAD = 0.05
"""On the scales of `to_scale`: 5 points of accuracy at 50 %, 0.1 of retention near 100 %."""
JITTER = 1e-6


class Numbers(NamedTuple):
    """What is known of a target's C cells and S seeds; NaN where it is not.

    early: (C, S, 1 + T) accuracy as a fraction, then retention in percent on T sets, after an early
    epoch; at least one seed of each cell. final: (C, S, A, 1 + T) the same at the end, at A alphas.
    rates: (C,) learning rates, above 0. able: (C, A) whether a cell can be read at an alpha.
    """

    early: Floats
    final: Floats
    rates: Floats
    able: NDArray[np.bool_]


def imputed(known: Numbers, n_draws: int, rng: np.random.Generator) -> Floats:
    """Means over all seeds, (C, A, 1 + T, n_draws): known runs as they are, the others drawn."""
    start = np.nanmean(to_scale(known.early), axis=1)
    final = to_scale(known.final)
    parts = _parts(_features(start, known.rates), known.final.shape[1])
    out = np.empty((*known.final.shape[:1], *known.final.shape[2:], n_draws))
    for alpha, k in np.ndindex(*known.final.shape[2:]):
        begin, read = start[:, k, None], known.final[:, :, alpha, k]
        scale = max(float(start[:, k].std()), LEAST_SPREAD)
        drawn = _drawn((final[:, :, alpha, k] - begin) / scale, parts, n_draws, rng)
        values = from_scale(begin[..., None] + scale * drawn, accuracy=k == 0)
        values = np.where(np.isfinite(read)[..., None], read[..., None], values)
        out[:, alpha, k] = values.mean(axis=1)
    return out


def to_scale(values: Floats) -> Floats:
    """Of the last axis accuracy, then retentions."""
    out = np.arcsinh((100 - values) / KNEE_PP)
    out[..., 0] = np.arcsin(np.sqrt(np.clip(values[..., 0], 0, 1)))
    return out


def from_scale(values: Floats, *, accuracy: bool) -> Floats:
    """
    >>> there = to_scale(np.array([0.8, 97.0]))
    >>> float(from_scale(there[0], accuracy=True)), float(from_scale(there[1], accuracy=False))
    (0.8, 97.0)
    """
    if accuracy:
        return np.asarray(np.sin(np.clip(values, 0, np.pi / 2)) ** 2).round(12)
    return np.maximum(100 - KNEE_PP * np.sinh(np.clip(values, -3, 6)), 0.0).round(12)


def _features(start: Floats, rates: Floats) -> Floats:
    raw = np.column_stack([start, np.log(rates)])
    spread = raw.std(axis=0)
    return np.asarray((raw - raw.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _parts(x: Floats, n_seeds: int) -> Floats:
    """Covariances of the five parts at an SD of 1, (5, C S, C S), runs by cell and seed."""
    apart = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    of_cells = [1 + x @ x.T, np.exp(-apart / (2 * x.shape[1])), np.eye(len(x))]
    same_seed = np.tile(np.eye(n_seeds), (len(x), len(x)))
    each = np.ones((n_seeds, n_seeds))
    return np.stack([*(np.kron(one, each) for one in of_cells), same_seed, np.eye(len(same_seed))])


def _drawn(gain: Floats, parts: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Gains of every run, (C, S, n_draws), given those of (C, S) that are not NaN."""
    flat = gain.ravel()
    at = np.flatnonzero(np.isfinite(flat))
    out = []
    for scales in _scales(parts[:, at[:, None], at], flat[at], rng):
        whole = _covariance(scales, parts)
        lower = cholesky(whole[at[:, None], at], lower=True)
        pull = whole[:, at]
        left = whole - pull @ cho_solve((lower, True), pull.T)
        root = cholesky(left + JITTER * np.eye(len(left)), lower=True)
        noise = WIDEN * (root @ rng.standard_normal((len(flat), -(-n_draws // N_SCALES))))
        out.append((pull @ cho_solve((lower, True), flat[at]))[:, None] + noise)
    return np.hstack(out)[:, :n_draws].reshape(*gain.shape, n_draws)


def _covariance(scales: Floats, parts: Floats) -> Floats:
    summed = np.tensordot(np.exp(2 * (TYPICAL + SPREAD * scales)), parts, axes=1)
    return np.asarray(summed + JITTER * np.eye(summed.shape[0]))


def _scales(parts: Floats, gain: Floats, rng: np.random.Generator) -> list[Floats]:
    """Draws of the SDs given n gains, as log(SD / typical) / `SPREAD`."""

    def fit(scales: Floats) -> float:
        lower = cholesky(_covariance(scales, parts), lower=True)
        half = solve_triangular(lower, gain, lower=True)
        return float(-half @ half / 2 - np.log(np.diag(lower)).sum())

    if not len(gain):
        return list(rng.standard_normal((N_SCALES, len(parts))))
    scales, kept = np.zeros(len(parts)), []
    for step in range(WARM_UP + THIN * N_SCALES):
        scales = _next_scales(scales, fit, rng)
        if step >= WARM_UP and (step - WARM_UP) % THIN == 0:
            kept.append(scales)
    return kept


def _next_scales(now: Floats, fit: Callable[[Floats], float], rng: np.random.Generator) -> Floats:
    """One step of elliptical slice sampling under a standard normal prior."""
    other, level = rng.standard_normal(len(now)), fit(now) + np.log(rng.random())
    angle = rng.uniform(0, 2 * np.pi)
    low, high = angle - 2 * np.pi, angle
    while True:
        found = np.asarray(now * np.cos(angle) + other * np.sin(angle))
        if fit(found) > level:
            return found
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = rng.uniform(low, high)
