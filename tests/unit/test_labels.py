"""Labels beside the points of a figure: none covers another or a marker, as matplotlib lays out."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from clipdrift.report.labels import spread


def crowded(points: np.ndarray) -> Any:
    figure = Figure(figsize=(4, 3), dpi=150)
    axes = figure.subplots()
    axes.plot(*points.T, "o", markersize=5, linestyle="none")
    line = {"arrowstyle": "-"}
    for i, point in enumerate(points):
        axes.annotate(f"{i}e-{i}", point, (4, 4), textcoords="offset points", arrowprops=line)
    figure.draw_without_rendering()
    spread(figure)
    figure.draw_without_rendering()
    return axes


def boxes(axes: Any) -> tuple[list[Bbox], list[Bbox]]:
    shown = [mpl.text.Text.get_window_extent(t) for t in axes.texts if t.get_visible()]
    half = 5 * axes.figure.dpi / 72 / 2
    (line,) = axes.lines
    middles = axes.transData.transform(line.get_xydata())
    return shown, [Bbox([[x - half, y - half], [x + half, y + half]]) for x, y in middles]


def meet(one: Bbox, other: Bbox) -> bool:
    """By half a pixel or more: text is laid out in whole ones."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    return bool(min(across, min(one.y1, other.y1) - max(one.y0, other.y0)) > 0.5)


@pytest.mark.parametrize("spread_out", [0.02, 0.2, 1.0])
def test_no_label_covers_another_or_a_marker_or_leaves_the_figure(spread_out: float) -> None:
    rng = np.random.default_rng(3)
    axes = crowded(np.vstack([rng.normal(0, spread_out, (30, 2)), [[-3, -3], [3, 3]]]))
    shown, markers = boxes(axes)
    assert len(shown) >= 8
    assert not [pair for pair in combinations(shown, 2) if meet(*pair)]
    assert not [(a, b) for a in shown for b in markers if meet(a, b)]
    area = axes.get_window_extent()
    assert all(area.x0 <= b.x0 and b.x1 <= area.x1 for b in shown)
    assert all(area.y0 <= b.y0 and b.y1 <= area.y1 for b in shown)


def test_a_label_with_room_stands_up_right_of_its_point_without_a_line() -> None:
    axes = crowded(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    label = axes.texts[1]
    assert min(label.xyann) > 0
    assert not label.arrow_patch.get_visible()
