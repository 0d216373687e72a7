"""Two methods at equal learning rate, equal validation accuracy and equal weight movement.

The first is the paired test at each rate, the others are matched views.
"""

from __future__ import annotations

from typing import NamedTuple

from clipdrift.analysis.questions.matched_views import MatchedView
from clipdrift.analysis.questions.paired import Paired
from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.method_curves import WEIGHT_DRIFT
from clipdrift.report.digits import significant
from clipdrift.report.figures.chart import (
    Chart,
    Trace,
    axis,
    hovering,
    layout,
    level_line,
    rate_axis,
    text,
)
from clipdrift.report.metrics import metric
from clipdrift.report.source import Place, Study

HEIGHT = 280
EQUAL_LR = "equal_learning_rate"
VIEWS = {
    EQUAL_LR: "Equal learning rate",
    "equal_val_accuracy": "Equal validation accuracy",
    "equal_weight_drift": "Equal weight movement",
}


def matched_pairs_of(study: Study, place: Place) -> list[tuple[str, str]]:
    rows = study.rows(MatchedView, **place._asdict())
    return list(dict.fromkeys((row.method_a, row.method_b) for row in rows))


def matched_chart(
    study: Study, place: Place, pair: tuple[str, str], view: str, name: str, chart_id: str
) -> Chart | None:
    """Difference of a metric with the band of its intervals, where both methods get to."""
    rows = _points(study, place, pair, view, name)
    if not rows:
        return None
    shown = metric(name)
    runs = study.runs_where(place.backbone, place.target, pair)
    shape, note = level_line(0.0, "no difference")
    y = axis(f"{pair[0]} − {pair[1]} ({shown.difference_unit})".replace(" ()", ""))
    traces = [*_band(rows, shown.scale), _line(rows, runs)]
    title = VIEWS[view]
    what = f"{shown.label}, {pair[0]} minus {pair[1]}"
    return Chart(
        chart_id,
        title,
        f"{what}, on {study.title(place)}: {title}.",
        traces,
        layout(_x_axis(view, rows), y, shapes=[shape], annotations=[note]),
        HEIGHT,
    )


class Point(NamedTuple):
    """A difference where two methods are held equal; sides: each method and its value there."""

    view: str
    at: float
    metric: str
    diff: float
    ends: tuple[float, float] | None
    sides: list[tuple[str, float | None]]


def _points(study: Study, place: Place, pair: tuple[str, str], view: str, name: str) -> list[Point]:
    """Of matched views; at equal learning rate of the paired tests."""
    where = {**place._asdict(), "metric": name, "method_a": pair[0], "method_b": pair[1]}
    rows: list[tuple[float | None, float | None, Paired | MatchedView]]
    if view == EQUAL_LR:
        tests = study.rows(Paired, **where, scope="per_lr")
        rows = [(row.learning_rate, row.mean_diff, row) for row in tests]
    else:
        rows = [(row.at, row.diff, row) for row in study.rows(MatchedView, **where, view=view)]
    found = []
    for at, diff, row in rows:
        if at is not None and diff is not None:
            low, high = row.ci_low, row.ci_high
            ends = None if low is None or high is None else (low, high)
            sides = []
            if isinstance(row, MatchedView):
                sides = [(row.method_a, row.value_a), (row.method_b, row.value_b)]
            found.append(Point(view, at, name, diff, ends, sides))
    return sorted(found, key=lambda point: point.at)


def _x_axis(view: str, rows: list[Point]) -> dict[str, object]:
    if view == EQUAL_LR:
        return rate_axis([row.at for row in rows])
    if view == "equal_val_accuracy":
        return axis("Validation accuracy (%)")
    title = f"{metric(WEIGHT_DRIFT).label} ({metric(WEIGHT_DRIFT).unit}, log scale)"
    return axis(title, type="log", nticks=4, tickangle=0)


def _at(row: Point) -> float:
    held = {"equal_val_accuracy": "val_accuracy", "equal_weight_drift": WEIGHT_DRIFT}
    scale = metric(held[row.view]).scale if row.view in held else 1.0
    return float(row.at) * scale


def _band(rows: list[Point], scale: float) -> list[Trace]:
    known = [(_at(row), *row.ends) for row in rows if row.ends is not None]
    if len(known) < 2:
        return []
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [at for at, _, _ in [*known, *reversed(known)]],
            "y": [high * scale for _, _, high in known]
            + [low * scale for _, low, _ in reversed(known)],
            "fill": "toself",
            "fillcolor": "@m3/0.18",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "meta": {"part": "band"},
        }
    ]


def _line(rows: list[Point], runs: str) -> Trace:
    scale = metric(rows[0].metric).scale
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [_at(row) for row in rows],
        "y": [row.diff * scale for row in rows],
        "line": {"color": "@m3", "width": 2},
        "marker": {"color": "@m3", "size": 7},
        **hovering([[runs, _hover(row)] for row in rows]),
        "meta": {"part": "matched_view"},
    }


def _hover(row: Point) -> str:
    shown = metric(row.metric)
    at = rate_text(row.at) if row.view == EQUAL_LR else significant(_at(row))
    sides = [
        f"{text(method)}: {shown.number(value)} {text(shown.unit)}" for method, value in row.sides
    ]
    found = f"difference {shown.number(row.diff, signed=True)}"
    if row.ends is not None:
        ends = (shown.number(end, signed=True) for end in row.ends)
        found += " (95 % interval {} to {})".format(*ends)
    return "<br>".join([f"at {at}", *sides, found])
