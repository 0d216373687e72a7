"""Monotone interpolation along a method's learning-rate curve."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Floats = NDArray[np.float64]
Blocks = tuple[tuple[int, ...], ...]
# Means that differ by rounding alone are one value: between them a slope would be noise.
SAME = 1e-12
STEP = 1e-6


def knot_blocks(x: Floats) -> Blocks:
    """Which points of a curve stand together as one knot, so that x rises strictly over the knots.

    Points come in order of learning rate. The curve ends at the largest x: beyond the best
    accuracy the same accuracy is met a second time, at a dose nobody would choose. Before it,
    neighbours out of order are pooled to their mean (pool adjacent violators, equal weights).

    Args:
        x: shape (n_rates,); NaN where undefined, such points are left out.

    Returns:
        Indices of the points of each knot; empty if no point is defined.

    Reference: Barlow et al. (1972), Statistical Inference under Order Restrictions, section 1.2.

    >>> knot_blocks(np.array([0.5, 0.8, 0.7, 0.9, 0.6]))
    ((0,), (1, 2), (3,))
    """
    defined = np.flatnonzero(np.isfinite(x))
    if not defined.size:
        return ()
    rising = defined[: int(np.argmax(x[defined])) + 1].tolist()
    same = SAME * float(np.abs(x[defined]).max())
    blocks: list[tuple[float, tuple[int, ...]]] = []
    for i in rising:
        total, members = float(x[i]), (i,)
        while blocks and blocks[-1][0] / len(blocks[-1][1]) >= total / len(members) - same:
            before, earlier = blocks.pop()
            total, members = total + before, earlier + members
        blocks.append((total, members))
    return tuple(members for _, members in blocks)


def pooled(values: Floats, blocks: Blocks) -> Floats:
    """Values at the knots, each the mean of its points: (n_rates, ...) -> (n_knots, ...)."""
    return np.stack([values[list(block)].mean(axis=0) for block in blocks])


class Curve:
    """Metrics along a rising abscissa, PCHIP through the knots, one curve per draw.

    Args:
        x: mean per learning rate and draw, (n_rates, n_draws).
        y: the metrics there, (n_rates, n_metrics, n_draws).

    Reference: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2), as scipy has it.
    """

    def __init__(self, x: Floats, y: Floats) -> None:
        self.n_metrics = y.shape[1]
        self.draws: list[_Drawn | None] = []
        for draw in range(x.shape[1]):
            blocks = knot_blocks(x[:, draw])
            knots = (pooled(own, blocks) for own in (x[:, draw], y[:, :, draw]))
            self.draws.append(_through(*knots) if len(blocks) > 1 else None)

    def span(self, draw: int) -> tuple[float, float] | None:
        """Lowest and highest abscissa of one draw; None if it has fewer than two knots."""
        one = self.draws[draw]
        return None if one is None else (float(one.pchip.x[0]), float(one.pchip.x[-1]))

    def at(self, place: float) -> Floats:
        """The metrics where the abscissa reaches `place`, (n_metrics, n_draws).

        NaN outside a draw's curve (nothing is extrapolated), for draws of fewer than two knots,
        and for metrics undefined at some knot.
        """
        return np.stack([self.at_draw(place, i) for i in range(len(self.draws))], axis=1)

    def at_draw(self, places: float | Floats, draw: int) -> Floats:
        """`at` of one draw alone, for one place or some: (n_metrics,) or (n_places, n_metrics)."""
        one = self.draws[draw]
        return one.at(places) if one else np.full((*np.shape(places), self.n_metrics), np.nan)


class _Drawn(NamedTuple):
    """The curve of one draw; `undefined` is NaN for metrics that are undefined at some knot."""

    pchip: Any
    undefined: Floats

    def at(self, place: float | Floats, *, beyond: bool = False) -> Floats:
        """The metrics there, (n_metrics,); `beyond` its ends the last piece goes on, or NaN."""
        return np.asarray(self.pchip(place, extrapolate=beyond) + self.undefined)


def _through(x: Floats, y: Floats) -> _Drawn:
    undefined = np.where(np.isnan(y).any(axis=0), np.nan, 0.0)
    return _Drawn(PchipInterpolator(x, np.nan_to_num(y)), undefined)


def sensitivity(x: Floats, y: Floats, place: float) -> tuple[Floats, Floats]:
    """How readings at a place follow the points that the curve goes through, its knots being kept.

    Args:
        x: one curve's abscissa, (n_rates,), of two knots or more. y: the metrics there, (n_rates,
            n_metrics).

    Returns:
        Derivatives of each metric's reading by each x and by each of its own y, (n_metrics,
        n_rates) both, by steps of a millionth of what lies between knots; 0 for points left out.
        At an end of the curve its last piece goes on, where a step moves the end past the place.
    """
    blocks = knot_blocks(x)
    knots, values = pooled(x, blocks), pooled(y, blocks)
    across, up = STEP * np.diff(knots).min(), STEP * np.abs(values).max(axis=0)
    up = np.where(up > 0, up, STEP)

    def read(by_x: Floats, by_y: Floats) -> Floats:
        moved = _through(knots + across * by_x, values + np.outer(by_y, up))
        return moved.at(place, beyond=True)

    stay, steps = np.zeros(len(knots)), np.eye(len(knots))
    here = read(stay, stay)
    by_x = [(read(step, stay) - here) / across for step in steps]
    by_y = [(read(stay, step) - here) / up for step in steps]
    # A knot is the mean of its points: each moves it by its share.
    share = np.zeros((len(knots), len(x)))
    for knot, block in enumerate(blocks):
        share[knot, list(block)] = 1 / len(block)
    return np.transpose(by_x) @ share, np.transpose(by_y) @ share
