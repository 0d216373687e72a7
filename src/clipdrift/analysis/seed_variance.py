"""The seed variance of a random-intercept model, by restricted maximum likelihood in one dimension.

statsmodels' optimisers search over all parameters and stop in the wrong place when the seed
variance is small: at infinite likelihood, or where they started. With one random intercept the
likelihood depends on one number only, the variance ratio, which a line search finds reliably.
`mixed` uses it to know when there is no seed variance and to start statsmodels at the optimum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from clipdrift.analysis.signals import Floats

RATIOS = 10.0 ** np.arange(-6, 4.25, 0.25)


class Likelihood:
    """Profile restricted likelihood of the ratio of seed variance to residual variance.

    With V = I + r Z Z', Z the seeds' indicators:
    l(r) = -1/2 [(n - k) ln RSS_r + sum_g ln(1 + r n_g) + ln |X' V^-1 X|] + constant.

    Args:
        x: full-rank fixed effects, shape (n, k).
        y: response, shape (n,).
        groups: seed of each run, shape (n,).

    Reference: Laird & Ware (1982), Biometrics 38(4).
    """

    def __init__(self, x: Floats, y: Floats, groups: Any) -> None:
        codes = np.unique(groups, return_inverse=True)[1]
        both = np.column_stack([x, y])
        self.n, self.k = x.shape
        self.sizes = np.bincount(codes).astype(np.float64)
        self.products = both.T @ both
        self.sums = np.zeros((len(self.sizes), self.k + 1))
        np.add.at(self.sums, codes, both)

    def _moments(self, ratio: float) -> Floats:
        """[X y]' V^-1 [X y], shape (k + 1, k + 1)."""
        shrink = ratio / (1 + ratio * self.sizes)
        return np.asarray(self.products - (self.sums * shrink[:, None]).T @ self.sums)

    def coefficients(self, ratio: float) -> Floats:
        """Generalised least squares at a ratio, shape (k,)."""
        moments = self._moments(ratio)
        return np.asarray(np.linalg.solve(moments[:-1, :-1], moments[:-1, -1]))

    def __call__(self, ratio: float) -> float:
        moments = self._moments(ratio)
        xx, xy = moments[:-1, :-1], moments[:-1, -1]
        rss = moments[-1, -1] - xy @ np.linalg.solve(xx, xy)
        sign, logdet = np.linalg.slogdet(xx)
        if sign <= 0 or rss <= 0:
            return -np.inf
        spread = np.log1p(ratio * self.sizes).sum()
        return float(-((self.n - self.k) * np.log(rss) + spread + logdet) / 2)

    def best_ratio(self) -> float:
        """The ratio with the highest likelihood; 0 where nothing beats 0."""
        heights = [self(ratio) for ratio in RATIOS]
        top = int(np.argmax(heights))
        if heights[top] <= self(0.0):
            return 0.0
        ends = np.log(RATIOS[[max(top - 1, 0), min(top + 1, len(RATIOS) - 1)]])
        found = minimize_scalar(
            lambda log: -self(float(np.exp(log))),
            bounds=tuple(ends),
            method="bounded",
            options={"xatol": 1e-8},
        )
        return float(np.exp(found.x))


__all__ = ["Likelihood"]
