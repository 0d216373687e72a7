"""How sure is a mean over seeds and images, when every seed was read on the same images?"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.intervals import LEVEL, ROUNDING, UNDEFINED, Interval

RIGHT_AND_WRONG = (1.0, 1.0, 0.0, 0.0)
"""Images added for the error of an accuracy: two right, two wrong."""
WON_AND_LOST = (1.0, -1.0)
"""Images added for the error of a difference of two models: one won, one lost."""
SMALLEST_P = 1e-300
SEEDS: Final = "seeds"
SEEDS_AND_IMAGES: Final = "seeds and images"
"""What an interval draws."""


class Error(NamedTuple):
    """How sure a mean over seeds and images is: an interval of any level, and p that belongs to it.

    seed_se: error of the mean from drawing two seeds or more. shared_se: from drawing images, what
    all seeds share of it; 0 where images are not known.
    """

    seed_se: float
    shared_se: float
    n_seeds: int
    n_images: int = 2

    def half(self, alpha: float) -> float:
        """Half the width of the 1 - alpha interval.

        >>> round(Error(1.0, 0.0, 3).half(0.05), 3)
        4.303
        """
        seeds = float(stdtrit(self.n_seeds - 1, alpha / 2)) * self.seed_se
        images = float(stdtrit(self.n_images - 1, alpha / 2)) * self.shared_se
        return float(np.hypot(seeds, images))

    def p(self, distance: float) -> float:
        """Two-sided p of a mean this far from its null: 1 less the level that just reaches it.

        >>> t = 0.95 * 2**0.5 / (1 - 0.95**2) ** 0.5  # its 97.5 %, exactly
        >>> round(Error(1.0, 0.0, 3).p(t), 12), Error(1.0, 2.0, 3, 100).p(0.0)
        (0.05, 1.0)
        """
        away = abs(distance)
        if not self.shared_se:
            return float(2 * stdtr(self.n_seeds - 1, -away / self.seed_se))
        if away == 0:
            return 1.0
        ends = (float(np.log(SMALLEST_P)), 0.0)
        if self.half(SMALLEST_P) <= away:
            return SMALLEST_P
        found = brentq(lambda log: self.half(float(np.exp(log))) - away, *ends, xtol=1e-12)
        return float(np.exp(found))

    def p_above(self, distance: float) -> float:
        """One-sided p of a mean this far above its null; near 1 for one below it."""
        half = self.p(distance) / 2
        return half if distance > 0 else 1 - half


class Crossed(NamedTuple):
    """A mean over seeds x images, in the unit of the values.

    seed_se: error of the mean from drawing seeds, None with one seed. image_se: from drawing
    images. ci: of the mean, both drawn. shared_se: what of image_se the seeds share.
    """

    mean: float
    seed_se: float | None
    image_se: float
    ci: Interval
    shared_se: float


def crossed(values: Floats, added: ArrayLike = ()) -> Crossed:
    """Error and interval of a mean over seeds and images, both samples, every image in every seed.

    With a = var(row means) / G, b = var(column means) / n and d the interaction's mean square
    / (G n), b - d is what images share over seeds, and the half-width of the interval is
    sqrt((t_{G-1} a^0.5)^2 + t_{n-1}^2 max(b - d, 0)): the squares of what each sample alone
    would give. It is never narrower than the t interval over seeds. A Satterthwaite
    approximation in its place covers only 87 % with two seeds and 92 % with three.

    One seed has no interval. Nor have seeds whose means are equal: their error is not known.

    Args:
        values: (G, n) influence of each image in each seed on the mean: 1 or 0 for an accuracy;
            `influence.py` makes those of ratios and differences.
        added: of images that count in b alone, as if they had been read too. Answers are right or
            wrong: without `RIGHT_AND_WRONG` or `WON_AND_LOST` 50 right ones of 50 would have no
            error.

    Reference: Cornfield & Tukey (1956) for crossed random effects; Owen (2007) on resampling both;
    Howe (1974) and Graybill & Wang (1980) for the sum of squared half-widths; Agresti & Coull
    (1998) and Bonett & Price (2012) for the images that are added.

    >>> found = crossed(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    >>> round(found.mean, 3), round(found.seed_se, 3), round(found.image_se, 3)
    (0.5, 0.167, 0.289)
    """
    n_seeds, n = values.shape
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    whole = np.concatenate([columns, np.asarray(added, dtype=np.float64)])
    images = float(whole.var(ddof=1)) / len(whole) if len(whole) > 1 else 0.0
    if n_seeds < 2 or n < 2:
        return _crossed(rows, n, images, images)
    within = float(np.square(values).sum()) - n * float(rows @ rows)
    left = within - n_seeds * float(np.square(columns - columns.mean()).sum())
    apart = max(left, 0.0) / ((n_seeds - 1) * (n - 1) * n_seeds * n)
    return _crossed(rows, n, images, max(images - apart, 0.0))


def binomial(accuracies: Floats, n: int) -> Crossed:
    """`crossed` of accuracies whose single images are not known.

    All seeds are taken to err on the same images, which is the most that these can add.

    Args:
        accuracies: (G,) fractions, one a seed.
        n: images.

    >>> round(binomial(np.array([0.9]), 96).image_se, 4)
    0.0322
    """
    p = (float(accuracies.mean()) * n + 2) / (n + 4)
    images = p * (1 - p) / (n + 3)
    return _crossed(accuracies, n, images, images)


def _crossed(rows: Floats, n: int, images: float, shared: float) -> Crossed:
    """From the means of the seeds, the variance from images and what of it the seeds share."""
    mean = float(rows.mean())
    if len(rows) < 2:
        return Crossed(mean, None, images**0.5, UNDEFINED, shared**0.5)
    seeds = float(rows.var(ddof=1)) / len(rows)
    found = Crossed(mean, seeds**0.5, images**0.5, UNDEFINED, shared**0.5)
    if n < 2 or seeds**0.5 <= ROUNDING * float(np.abs(rows).max()):
        return found
    half = Error(seeds**0.5, shared**0.5, len(rows), n).half(1 - LEVEL)
    return found._replace(ci=Interval(mean - half, mean + half))
