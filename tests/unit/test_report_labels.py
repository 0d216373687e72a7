"""Labels of a figure for papers: none covers another or a marker."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from clipdrift.report.labels import spread


def crowded() -> Any:
    """Thirty labelled points, most of them in a heap."""
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = np.random.default_rng(0).normal(size=(30, 2)) ** 3
    axes.plot(*points.T, "o", markersize=4)
    for x, y in points:
        axes.annotate(
            "0.001", (x, y), (4, 4), textcoords="offset points", arrowprops={"arrowstyle": "-"}
        )
    figure.draw_without_rendering()
    return figure


def meeting(figure: Any) -> tuple[int, int]:
    """Labels that are shown, and how often one meets another or a marker, by matplotlib's boxes."""
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_visible()]
    pairs = sum(a.overlaps(b) for a, b in combinations(boxes, 2))
    middles = axes.transData.transform(axes.lines[0].get_xydata())
    return len(boxes), pairs + sum(box.contains(*at) for box in boxes for at in middles)


def test_no_label_meets_another_or_a_marker() -> None:
    figure = crowded()
    shown, met = meeting(figure)
    assert shown == 30
    assert met > 10
    spread(figure)
    shown, met = meeting(figure)
    assert shown > 12
    assert met == 0
