"""Monotone interpolation along a method's learning-rate curve, for many resamples at a time."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class _Piece(NamedTuple):
    """Draws whose knots are made of the same points, so that they are computed together."""

    draws: list[int]
    x: Floats
    y: Floats
    slopes: Floats


class Curve:
    """Metrics along a rising abscissa, PCHIP through the knots, one curve per draw.

    Args:
        x: mean per learning rate and draw, (n_rates, n_draws).
        y: the metrics there, (n_rates, n_metrics, n_draws).
    """

    def __init__(self, x: Floats, y: Floats) -> None:
        self.shape = y.shape[1:]
        self.pieces: list[_Piece] = []
        draws_of: dict[Blocks, list[int]] = defaultdict(list)
        for draw in range(x.shape[1]):
            draws_of[knot_blocks(x[:, draw])].append(draw)
        for blocks, draws in draws_of.items():
            if len(blocks) < 2:
                continue
            knots = np.stack([x[list(block)][:, draws].mean(axis=0) for block in blocks])
            values = np.stack([y[list(block)][:, :, draws].mean(axis=0) for block in blocks])
            self.pieces.append(_Piece(draws, knots, values, _slopes(knots, values)))

    def span(self, draw: int) -> tuple[float, float] | None:
        """Lowest and highest abscissa of one draw; None if it has fewer than two knots."""
        for piece in self.pieces:
            if draw in piece.draws:
                ends = piece.x[:, piece.draws.index(draw)]
                return float(ends[0]), float(ends[-1])
        return None

    def at(self, place: float) -> Floats:
        """The metrics where the abscissa reaches `place`, (n_metrics, n_draws).

        NaN outside a draw's curve (nothing is extrapolated), for draws of fewer than two knots,
        and for metrics undefined at some knot.
        """
        out = np.full(self.shape, np.nan)
        for piece in self.pieces:
            value = _hermite(piece.x, piece.y, piece.slopes, place)
            inside = (piece.x[0] <= place) & (place <= piece.x[-1])
            out[:, piece.draws] = np.where(inside, value, np.nan)
        return out


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
    knots, values = (np.stack([v[list(block)].mean(axis=0) for block in blocks]) for v in (x, y))
    across = float(np.diff(knots).min())
    up = np.abs(values).max(axis=0)
    up = np.where(up > 0, up, 1.0)
    steps, nothing = STEP * np.eye(len(knots)), np.zeros((len(knots), len(knots)))
    stay = nothing[:, :1]
    moved_x = knots[:, None] + across * np.hstack([stay, steps, nothing])
    moved_y = values[:, :, None] + up[:, None] * np.hstack([stay, nothing, steps])[:, None]
    found = _hermite(moved_x, moved_y, _slopes(moved_x, moved_y), place)
    slopes = (found[:, 1:] - found[:, :1]) / STEP
    # A knot is the mean of its points: each moves it by its share.
    share = np.zeros((len(knots), len(x)))
    for knot, block in enumerate(blocks):
        share[knot, list(block)] = 1 / len(block)
    by_x, by_y = slopes[:, : len(knots)] / across, slopes[:, len(knots) :] / up[:, None]
    return by_x @ share, by_y @ share


def _slopes(x: Floats, y: Floats) -> Floats:
    """Derivatives that keep each piece monotone: x (K, n_draws), y (K, n_metrics, n_draws).

    Reference: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2); ends three-point, as in
    `scipy.interpolate.PchipInterpolator`.
    """
    h = np.diff(x, axis=0)[:, None, :]
    secant = np.diff(y, axis=0) / h
    if len(x) == 2:
        return np.concatenate([secant, secant])
    before, after, h0, h1 = secant[:-1], secant[1:], h[:-1], h[1:]
    same_way = before * after > 0
    w0, w1 = 2 * h1 + h0, h1 + 2 * h0
    safe_before, safe_after = (np.where(same_way, values, 1.0) for values in (before, after))
    inner = np.where(same_way, (w0 + w1) / (w0 / safe_before + w1 / safe_after), 0.0)
    first = _end_slope(h[0], h[1], secant[0], secant[1])
    last = _end_slope(h[-1], h[-2], secant[-1], secant[-2])
    slopes = np.concatenate([first[None], inner, last[None]])
    # A knot without a value would otherwise pass for one where the curve turns.
    return np.where(np.isnan(y).any(axis=0), np.nan, slopes)


def _end_slope(h0: Floats, h1: Floats, near: Floats, far: Floats) -> Floats:
    slope = ((2 * h0 + h1) * near - h0 * far) / (h0 + h1)
    overshoots = (np.sign(near) != np.sign(far)) & (np.abs(slope) > 3 * np.abs(near))
    kept = np.where(overshoots, 3 * near, slope)
    return np.where(np.sign(slope) == np.sign(near), kept, 0.0)


def _hermite(x: Floats, y: Floats, slopes: Floats, at: float) -> Floats:
    """Cubic Hermite value at one place: (n_metrics, n_draws); outside, of the nearest piece."""
    left = np.clip((x <= at).sum(axis=0) - 1, 0, len(x) - 2)
    draws = np.arange(x.shape[1])
    h = x[left + 1, draws] - x[left, draws]
    t = (at - x[left, draws]) / h
    y0, y1, d0, d1 = (
        values[index, :, draws].T for values in (y, slopes) for index in (left, left + 1)
    )
    value: Floats = (
        (1 + 2 * t) * (1 - t) ** 2 * y0
        + t * (1 - t) ** 2 * h * d0
        + t**2 * (3 - 2 * t) * y1
        + t**2 * (t - 1) * h * d1
    )
    return value
