"""The accuracy-retention plane: what each cell reaches on the target and keeps elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.questions.frontier import Unbeaten
from clipdrift.analysis.rows import rate_text
from clipdrift.report.digits import fixed
from clipdrift.report.figures.chart import (
    Chart,
    Layout,
    Trace,
    hovering,
    layout,
    level_line,
    meta,
    metric_axis,
    text,
)
from clipdrift.report.metrics import metric
from clipdrift.report.palette import N_METHOD_COLOURS, Look
from clipdrift.report.printed import mean_sd_text
from clipdrift.report.source import CellId, Place, Study, as_shown

Point = tuple[CellId, CellMetric, CellMetric]
ISO_ACCURACY_PP = (0, 2, 5, 10)
"""Lines of equal accuracy, below the best cell: what is kept at this much less accuracy."""
HEIGHT = 400


def plane_chart(study: Study, place: Place, outcome: str, chart_id: str) -> Chart | None:
    """Cells of a place in (target accuracy, retention); None where no cell has both."""
    points = plane_points(study, place, outcome)
    if not points:
        return None
    front = frontier(study, place, outcome)
    traces = [front_line(points, front)] if front else []
    for method, look in study.looks.items():
        own = [point for point in points if point[0].method == method]
        if own:
            traces.append(_method(study, own, look, front))
    shape = _layout(study, outcome, [as_shown(x) for _, x, _ in points])
    title = f"{study.title(place)}: {metric(outcome).label}"
    words = (
        f"{metric(study.accuracy).label} against {metric(outcome).label} for {len(points)} cells "
        f"of {study.title(place)}; {len(front)} are not beaten in both."
    )
    return Chart(chart_id, title, words, traces, shape, HEIGHT)


def plane_points(study: Study, place: Place, outcome: str) -> list[Point]:
    """Cells of a place that have both an accuracy and the outcome, with both rows."""
    return [
        (cell, x, y)
        for cell in study.cells_of(place)
        if (x := study.known(cell, study.accuracy)) and (y := study.known(cell, outcome))
    ]


def _layout(study: Study, outcome: str, reached: Sequence[float]) -> Layout:
    x, y = metric(study.accuracy), metric(outcome)
    lines = [level_line(100.0, "untouched model")] if outcome.endswith("retention_pct") else []
    best, least = max(reached), min(reached)
    for below in ISO_ACCURACY_PP:
        if best - below >= least:
            label = f"{fixed(-below, 0)} pp" if below else "best"
            lines.append(level_line(best - below, label, horizontal=False))
    return layout(
        metric_axis(x),
        metric_axis(y),
        shapes=[shape for shape, _ in lines],
        annotations=[note for _, note in lines],
    )


def frontier(study: Study, place: Place, outcome: str) -> set[tuple[str, float]]:
    transfer = outcome.split(".", 1)[1].rsplit(".", 1)[0]
    where = {"backbone": place.backbone, "target": place.target, "transfer": transfer}
    return {(row.method, row.learning_rate) for row in study.rows(Unbeaten, **where)}


def label_of(study: Study, cell: CellId, front: set[tuple[str, float]]) -> str:
    """What stands beside the point of a cell: its rate.

    Where colours come again, for there are more methods than colours, only cells of the frontier
    have a label, with the name of the method.
    """
    rate = rate_text(cell.learning_rate)
    if len(study.looks) <= N_METHOD_COLOURS:
        return rate
    return f"{cell.method} {rate}" if (cell.method, cell.learning_rate) in front else ""


def front_line(points: Sequence[Point], front: set[tuple[str, float]]) -> Trace:
    """The edge of what was reached: a staircase through the non-dominated cells."""
    kept = sorted(
        (as_shown(x), as_shown(y))
        for cell, x, y in points
        if (cell.method, cell.learning_rate) in front
    )
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in kept],
        "y": [y for _, y in kept],
        "line": {"color": "@rule", "width": 5, "shape": "vh"},
        "opacity": 0.35,
        "hoverinfo": "skip",
        "meta": {"part": "frontier"},
    }


def _method(
    study: Study,
    own: Sequence[Point],
    look: Look,
    front: set[tuple[str, float]],
) -> Trace:
    ordered = sorted(own, key=lambda point: point[0].learning_rate)
    x_shown, y_shown = metric(ordered[0][1].metric), metric(ordered[0][2].metric)
    on_front = [(cell.method, cell.learning_rate) in front for cell, _, _ in ordered]
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": text(look.method),
        "x": [as_shown(x) for _, x, _ in ordered],
        "y": [as_shown(y) for _, _, y in ordered],
        "error_x": _bars([x.sd for _, x, _ in ordered], x_shown.scale, look),
        "error_y": _bars([y.sd for _, _, y in ordered], y_shown.scale, look),
        "text": [text(label_of(study, cell, front)) for cell, _, _ in ordered],
        "textposition": "top right",
        "textfont": {"size": 10, "color": "@muted"},
        "cliponaxis": False,
        "line": {"color": f"{look.colour}/0.45", "width": 1.5},
        "marker": {
            "color": look.colour,
            "symbol": [
                look.open_symbol if study.mark(cell) else look.symbol for cell, _, _ in ordered
            ],
            "size": [13 if flag else 9 for flag in on_front],
            "line": {"width": [2 if flag else 1 for flag in on_front], "color": "@ink"},
        },
        **hovering(
            [
                [
                    study.index.encode(set(x.run_ids) & set(y.run_ids)),
                    _hover(study, cell, x, y),
                    [x_shown.name, y_shown.name],
                ]
                for cell, x, y in ordered
            ]
        ),
        "meta": meta("mean", y_shown.name, method=look.method, x_metric=x_shown.name),
    }


def _bars(sds: Sequence[float | None], scale: float, look: Look) -> Trace:
    return {
        "type": "data",
        "array": [None if sd is None else sd * scale for sd in sds],
        "thickness": 1,
        "width": 0,
        "color": f"{look.colour}/0.6",
    }


def _hover(study: Study, cell: CellId, x: CellMetric, y: CellMetric) -> str:
    lines = [f"<b>{text(cell.method)}</b> at {rate_text(cell.learning_rate)}"]
    for row in (x, y):
        shown = metric(row.metric)
        value = mean_sd_text(shown.name, row.mean, row.sd)
        lines.append(f"{text(shown.label)}: {value} {shown.unit}")
    mark = study.mark(cell)
    lines.append(f"{x.n} runs" + (f" · {mark}" if mark else ""))
    return "<br>".join(lines)
