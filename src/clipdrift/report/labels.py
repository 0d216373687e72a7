"""Labels beside the points of a figure for papers: each where it covers no other and no marker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

DISTANCES = (5.0, 15.0, 27.0)
"""Points from the middle of a marker to the label; from the second on a line joins the two."""
ANGLES = (45, 135, 225, 315, 0, 180, 90, 270)
"""Degrees, the first choice first: across the corners a label keeps clear of most whiskers."""


class Box(NamedTuple):
    """A rectangle whose sides are parallel to those of the figure."""

    left: float
    low: float
    right: float
    high: float

    def apart(self, other: Box) -> bool:
        """
        >>> Box(0, 0, 2, 1).apart(Box(1, 0, 3, 1)), Box(0, 0, 2, 1).apart(Box(2, 0, 3, 1))
        (False, True)
        """
        across = self.right <= other.left or other.right <= self.left
        return across or self.high <= other.low or other.high <= self.low

    def holds(self, other: Box) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.low <= other.low and other.high <= self.high


def spread(figure: Any) -> None:
    """Move the annotations of a laid-out figure apart; one that finds no room is not shown.

    Each takes the first place around its point that is free and inside of its axes, in the order
    in which they were made: the greedy method of Christensen, Marks and Shieber (1995).
    """
    unit = figure.dpi / 72
    for axes in figure.axes:
        labels = [text for text in axes.texts if hasattr(text, "xy")]
        taken = list(_markers(axes, unit)) if labels else []
        inside = Box(*axes.get_window_extent().extents)
        for label in labels:
            label.set(ha="left", va="bottom")  # what offsets are to
            found = next(_free(axes, label, taken, inside, unit), None)
            label.set_visible(found is not None)
            if found is not None:
                distance, offset, box = found
                label.set_position(offset)
                label.arrow_patch.set_visible(distance > DISTANCES[0])
                taken.append(box)


def _free(
    axes: Any, label: Any, taken: Iterable[Box], inside: Box, unit: float
) -> Iterator[tuple[float, tuple[float, float], Box]]:
    """Distance and offset in points of the label's lower left corner, and where it then lies."""
    from matplotlib.text import Text

    x, y = axes.transData.transform(label.xy)
    # The words alone: an annotation's own extent holds its line too, and would grow with it.
    extent = Text.get_window_extent(label)
    wide, high = extent.width / unit, extent.height / unit
    for distance in DISTANCES:
        for angle in ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The side that faces the point lies on the circle.
            dx = distance * across + wide / 2 * (np.sign(round(across, 3)) - 1)
            dy = distance * up + high / 2 * (np.sign(round(up, 3)) - 1)
            left, low = x + dx * unit, y + dy * unit
            box = Box(left, low, left + extent.width, low + extent.height)
            if inside.holds(box) and all(map(box.apart, taken)):
                yield distance, (dx, dy), box


def _markers(axes: Any, unit: float) -> Iterator[Box]:
    for line in axes.lines:
        if line.get_marker() not in ("", "None", None):
            half = line.get_markersize() * unit / 2
            for x, y in axes.transData.transform(line.get_xydata()):
                yield Box(x - half, y - half, x + half, y + half)
