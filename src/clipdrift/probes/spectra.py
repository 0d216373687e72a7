"""Singular values and directions of weights: of the update, and of the weight that it changes.

All in float64 through the eigenvectors of the smaller Gram matrix, which takes a third of the time
of an SVD: of a singular value s beside the largest s_1 the relative error is about 2e-16 (s_1/s)^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
INTRUDER = 0.5
"""Largest |cosine| with any untouched direction below which a direction is an intruder."""
SMALLEST = 1e-7
"""Of the largest singular value: below it a Gram matrix in float64 tells nothing."""


class Spectrum(NamedTuple):
    """Singular values [k] of a weight [m, n], largest first, and vectors of its shorter side.

    near: [min(m, n), k], left singular vectors where m <= n, else right ones. Those of the longer
        side follow from the weight, so that a spectrum takes no more memory than it has to.
    """

    weight: NDArray[np.floating]
    values: Floats
    near: Floats

    def left(self, some: slice = slice(None)) -> Floats:
        """Some left singular vectors, [m, .]."""
        return self.near[:, some] if self._wide else self._far(self.weight, some)

    def right(self, some: slice = slice(None)) -> Floats:
        """Some right singular vectors, [n, .]."""
        return self._far(self.weight.T, some) if self._wide else self.near[:, some]

    def cosines(self, others: Floats) -> Floats:
        """Of all left singular vectors with vectors [m, j] of length 1: [k, j]."""
        if self._wide:
            return self.near.T @ others
        return self.near.T @ (self.weight.T @ others) / self._divisors[:, None]

    @property
    def _wide(self) -> bool:
        m, n = self.weight.shape
        return bool(m <= n)

    def _far(self, weight: NDArray[np.floating], some: slice) -> Floats:
        out: Floats = weight @ self.near[:, some] / self._divisors[some]
        return out

    @property
    def _divisors(self) -> Floats:
        """Vectors of the longer side are 0 where the singular value is."""
        return np.where(self.values > SMALLEST * self.values[0], self.values, np.inf)


def spectrum(weight: NDArray[np.floating], leading: int | None = None) -> Spectrum:
    """The singular value decomposition of a weight [m, n], whole or its leading part.

    Args:
        leading: how many directions; default all min(m, n).

    >>> spectrum(np.diag([2.0, 3.0])).values.round(6).tolist()
    [3.0, 2.0]
    """
    from scipy.linalg import eigh

    gram = _gram(weight)
    n = len(gram)
    part = {"subset_by_index": (max(0, n - leading), n - 1)} if leading else {"driver": "evd"}
    squares, vectors = eigh(gram, **part)
    return Spectrum(weight, np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1])


def _gram(weight: NDArray[np.floating]) -> Floats:
    """Of the shorter side."""
    w = np.asarray(weight, dtype=np.float64)
    return w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w


def update_values(adapted: Floats, baseline: Floats) -> Floats:
    """Singular values of an update, largest first, [min(m, n)].

    0 for those that rounding of the adapted weight to float32 can make: below
    2^-24 rms(W) (sqrt(m) + sqrt(n)), the norm of such a random matrix. A merged update of rank 8
    has rank 8.

    Reference for that norm: Vershynin 2012, "Introduction to the non-asymptotic analysis of random
    matrices", theorem 5.32.
    """
    squares = np.linalg.eigvalsh(_gram(adapted - baseline))[::-1]
    values = np.sqrt(np.maximum(squares, 0.0))
    rounding = 2.0**-24 * np.sqrt(np.square(adapted).mean()) * np.sqrt(adapted.shape).sum()
    out: Floats = np.where(values > max(rounding, SMALLEST * values[0]), values, 0.0)
    return out


def stable_rank(values: Floats) -> float | None:
    """|W|_F^2 / |W|_2^2 from singular values, largest first: 1 to the rank; None of zeros.

    Reference: Rudelson & Vershynin 2007, "Sampling from large matrices", section 1.

    >>> stable_rank(np.array([2.0, 2.0, 0.0])), stable_rank(np.zeros(2))
    (2.0, None)
    """
    return float(np.square(values / values[0]).sum()) if values[0] > 0 else None


def entropy_rank(values: Floats) -> float | None:
    """exp of the entropy of singular values as shares of their sum: 1 to the rank; None of zeros.

    Reference: Roy & Vetterli 2007, "The effective rank", eq. 4.

    >>> round(entropy_rank(np.array([1.0, 1.0, 0.0])), 12), entropy_rank(np.zeros(2))
    (2.0, None)
    """
    if not values.sum() > 0:
        return None
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def energy_within(update: Floats, left: Floats, right: Floats) -> float | None:
    """Share of an update's squared norm between some singular directions: |L'WR|_F^2 / |W|_F^2.

    Of a random update k^2 / (m n) for k directions.

    Args:
        update: [m, n]. left: [m, k] and right: [n, k] orthonormal columns.

    >>> eye = np.eye(2)
    >>> energy_within(np.diag([3.0, 4.0]), eye[:, :1], eye[:, :1])
    0.36
    """
    whole = float(np.square(update).sum())
    return float(np.square(left.T @ update @ right).sum()) / whole if whole > 0 else None


def are_intruders(adapted: Floats, baseline: Spectrum) -> NDArray[np.bool_]:
    """Which leading directions of the adapted weight are like none of the untouched one, [k].

    Those whose largest |cosine| with any untouched singular vector is below `INTRUDER`.

    Args:
        adapted: [m, k] its leading left singular vectors.
        baseline: all singular vectors of the untouched weight.

    Reference: Shuttleworth et al. 2024, arXiv 2410.21228, section 4, which varies k and threshold.

    >>> untouched = spectrum(np.diag([5.0, 4.0, 3.0, 2.0, 1.0]))
    >>> are_intruders(np.array([[1.0, 5**-0.5]] + [[0.0, 5**-0.5]] * 4), untouched)
    array([False,  True])
    """
    found: NDArray[np.bool_] = np.abs(baseline.cosines(adapted)).max(axis=0) < INTRUDER
    return found
