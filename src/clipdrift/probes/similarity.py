"""How alike two sets of activations on the same images are, each measure blind to something else.

Klabunde et al. 2024, "ReSi", arXiv 2408.00531: no measure is best everywhere. CKA, RSA and the
Procrustes residual do not see a rotation; the angle between leading subspaces does; the Gram
distortion alone sees the scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
LEADING = 10
"""Principal directions of the activations whose span is compared."""


def procrustes_residual(x: Floats, y: Floats) -> float:
    """What the best rotation leaves: 1 - |Y'X|_* with X and Y centred and at unit norm, 0 to 1.

    Half the squared orthogonal Procrustes distance. Through the Gram matrices:
    |Y'X|_* = |Kx^(1/2) Ky^(1/2)|_*.

    Args:
        x, y: [N, D] activations of the same images, as in all below; none are constant.

    Reference: Ding, Denain & Steinhardt 2021, "Grounding Representation Similarity with
    Statistical Testing", section 2.

    >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    >>> abs(procrustes_residual(x, 5 * x[:, ::-1] + 1)) < 1e-12
    True
    """
    roots = [_root(_gram(one)) / np.linalg.norm(_centred(one)) for one in (x, y)]
    return max(0.0, 1.0 - float(np.linalg.norm(roots[0] @ roots[1], "nuc")))


def gram_distortion(x: Floats, y: Floats) -> float:
    """Relative change of the inner products of centred activations: |Kx - Ky|_F / |Ky|_F, from 0.

    >>> x = np.array([[1.0], [-1.0]])
    >>> gram_distortion(2 * x, x)
    3.0
    """
    before = _gram(y)
    return float(np.linalg.norm(_gram(x) - before) / np.linalg.norm(before))


def debiased_cka(x: Floats, y: Floats) -> float | None:
    """Linear CKA by the unbiased estimate of HSIC: about 0 of unrelated activations, at most 1.

    HSIC_1(K, L) = (tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)) / (n (n - 3)), K and L
    with zeros on the diagonal. None of fewer than four images, or where an estimate of activations
    with themselves is not above 0.

    Reference: Song et al. 2012, "Feature Selection via Dependence Maximization", eq. 5; Nguyen,
    Raghu & Kornblith 2021, "Do Wide and Deep Networks Learn the Same Things?", eq. 3.
    """
    if len(x) < 4:
        return None
    k, m = (one @ one.T * (1 - np.eye(len(one))) for one in (_centred(x), _centred(y)))
    own = _hsic(k, k) * _hsic(m, m)
    return float(_hsic(k, m) / np.sqrt(own)) if own > 0 else None


def _hsic(k: Floats, m: Floats) -> float:
    n, rows, columns = len(k), k.sum(axis=1), m.sum(axis=1)
    sums = rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 * rows @ columns / (n - 2)
    return float((np.vdot(k, m) + sums) / (n * (n - 3)))


def rsa(x: Floats, y: Floats) -> float | None:
    """Representational similarity analysis, -1 to 1; 1: images lie apart in the same order.

    Spearman's correlation over pairs of images of 1 - r, r being Pearson's correlation of their
    activations. None of fewer than three images, or where one image's activations are all equal.

    Reference: Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis".
    """
    from scipy.stats import spearmanr

    if len(x) < 3 or not (x.std(axis=1).all() and y.std(axis=1).all()):
        return None
    pairs = np.triu_indices(len(x), 1)
    near: list[Floats] = [np.asarray(np.corrcoef(one))[pairs] for one in (x, y)]
    rho = float(spearmanr(*near).statistic)
    return rho if np.isfinite(rho) else None


def subspace_angle_deg(x: Floats, y: Floats) -> float | None:
    """Mean principal angle between the spans of the 10 leading principal directions, 0 to 90.

    None where activations have fewer directions.

    Reference: Bjorck & Golub 1973, "Numerical Methods for Computing Angles Between Linear
    Subspaces".
    """
    from scipy.linalg import subspace_angles, svd

    spans = []
    for one in (x, y):
        _, values, directions = svd(_centred(one), full_matrices=False, lapack_driver="gesdd")
        if len(values) < LEADING or values[LEADING - 1] <= 1e-10 * values[0]:
            return None
        spans.append(directions[:LEADING].T)
    return float(np.rad2deg(subspace_angles(*spans)).mean())


def _centred(x: Floats) -> Floats:
    out: Floats = x - x.mean(axis=0)
    return out


def _gram(x: Floats) -> Floats:
    centred = _centred(x)
    return centred @ centred.T


def _root(gram: Floats) -> Floats:
    squares, vectors = np.linalg.eigh(gram)
    out: Floats = (vectors * np.sqrt(np.maximum(squares, 0.0))) @ vectors.T
    return out


MEASURES: dict[str, tuple[Callable[[Floats, Floats], float | None], float]] = {
    "debiased_cka": (debiased_cka, 1.0),
    "rsa": (rsa, 1.0),
    "procrustes_residual": (procrustes_residual, 0.0),
    "gram_distortion": (gram_distortion, 0.0),
    "subspace_angle_deg": (subspace_angle_deg, 0.0),
}
"""Name -> measure of adapted against untouched activations, and its value where nothing moved."""


def compared(adapted: Tensor, baseline: Tensor) -> dict[str, float | None]:
    """Every measure of one block's activations [N, D]; at rest exactly where they are equal.

    None, all of them, of activations that are not finite or the same for all images.
    """
    x, y = (one.double().numpy() for one in (adapted, baseline))
    if not np.isfinite(x).all() or any((np.ptp(one, axis=0) == 0).all() for one in (x, y)):
        return dict.fromkeys(MEASURES)
    if np.array_equal(x, y):
        return {name: rest for name, (_, rest) in MEASURES.items()}
    return {name: measure(x, y) for name, (measure, _) in MEASURES.items()}
