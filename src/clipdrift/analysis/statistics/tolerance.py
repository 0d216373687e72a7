"""How far a mean of ours may lie from a published one when both are of the same thing.

Both are means over seeds, and each has its error. What was published of it, an SD over seeds, is
taken; where none was, theirs is taken to scatter as ours does, and an accuracy gets the binomial
error of the images it was read on beside it. So a figure is never held to a band that was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from clipdrift.analysis.statistics.intervals import LEVEL, Floats

ONE_SEED = "one seed here and no SD published: nothing says how far seeds scatter"


class Theirs(NamedTuple):
    """A published mean: its value, seeds behind it, SD over them if known, how it was rounded.

    images: of an accuracy (a fraction), those it was read on; None for what is no accuracy, and
    where the SD is known. decimals: digits behind the point.
    """

    value: float
    seeds: int
    sd: float | None
    images: int | None
    decimals: int


def tolerance(theirs: Theirs, ours: Sequence[Floats]) -> float | None:
    """Largest difference that errors explain in 95 of 100 comparisons; None if no error is known.

    Half the width h of an interval for the difference: h^2 = sum over errors of (t_df SE)^2, with
    the degrees of freedom of each, which is at least as wide as an interval of the sum; and half a
    unit of the last digit that was published.

    Args:
        ours: per cell that our mean is made of, its values over seeds.

    >>> round(tolerance(Theirs(0.5, 5, None, 10_000, 4), [np.array([0.5, 0.5])]), 4)
    0.0098
    """
    cells = len(ours)
    half = 0.0
    for values in ours:
        n = len(values)
        if n > 1:
            half += _squared(float(np.var(values, ddof=1)), n, n - 1) / cells**2
        if theirs.sd is None and n > 1:
            half += _squared(float(np.var(values, ddof=1)), theirs.seeds, n - 1) / cells**2
        elif theirs.sd is not None:
            own = 0 if n > 1 else 1 / n  # one run of ours scatters as theirs did
            half += theirs.sd**2 * (1 / theirs.seeds + own) * _t(theirs.seeds - 1) ** 2
        else:
            return None
    if theirs.images is not None:
        share = theirs.value * (1 - theirs.value)
        half += _t(np.inf) ** 2 * share / theirs.images
    return float(np.sqrt(half)) + rounding(theirs)


def between_parts(theirs: Theirs, cv: Floats, n_parts: int) -> float | None:
    """The tolerance of a mean over images that a fixed model reads; None without any `cv`.

    Args:
        cv: SD / |mean| over `n_parts` equal parts of the images, of one model or of several.
    """
    if not cv.size:
        return None
    error = float(cv.mean()) * abs(theirs.value) / np.sqrt(n_parts)
    return float(_t(n_parts - 1) * error) + rounding(theirs)


def rounding(theirs: Theirs) -> float:
    """Half a unit of the last digit that was published."""
    return 0.5 * 10.0**-theirs.decimals


def _squared(variance: float, n: int, df: float) -> float:
    return _t(df) ** 2 * variance / n


def _t(df: float) -> float:
    return float(stdtrit(df, (1 + LEVEL) / 2))
