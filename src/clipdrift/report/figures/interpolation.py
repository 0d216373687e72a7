"""Weights between untouched and adapted: the way of a cell through the accuracy-retention plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipdrift.analysis.frame import BASELINE
from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.questions.untouched import Untouched
from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.extras import PATHS, interpolations
from clipdrift.report.figures.chart import (
    Chart,
    Trace,
    hovering,
    layout,
    level_line,
    meta,
    metric_axis,
    text,
)
from clipdrift.report.figures.plane import front_line, frontier, plane_points
from clipdrift.report.metrics import metric
from clipdrift.report.source import CellId, Place, Study, as_shown

HEIGHT = 360
MIN_POINTS = 2
DASHES = dict(zip(PATHS, ("dot", "solid", "dash"), strict=True))
Stop = tuple[float, float, float, str, list[str]]
"""alpha, x, y as shown, the encoded runs, and the metrics of them that x and y are made of."""


def interpolation_chart(study: Study, place: Place, outcome: str, chart_id: str) -> Chart | None:
    """Accuracy and outcome along the way of every cell; None where no cell was read on its way."""
    lines = trajectories(study, place, outcome)
    if not lines:
        return None
    front = frontier(study, place, outcome)
    edge = [front_line(plane_points(study, place, outcome), front)] if front else []
    levels = [level_line(100.0, "untouched model")] if outcome.endswith("retention_pct") else []
    shape = layout(
        metric_axis(metric(study.accuracy)),
        metric_axis(metric(outcome)),
        shapes=[line for line, _ in levels],
        annotations=[note for _, note in levels],
    )
    title = f"{study.title(place)}: {metric(outcome).label}"
    words = f"{title} against accuracy at weights between untouched and adapted, one line per cell."
    return Chart(chart_id, title, words, [*edge, *lines], shape, HEIGHT)


def trajectories(study: Study, place: Place, outcome: str) -> list[Trace]:
    """A line per cell and path on which its runs were read at several alphas."""
    traces = []
    for cell in study.cells_of(place):
        for path in PATHS:
            stops = _stops(study, study.cells[cell], outcome, path)
            if len(stops) >= MIN_POINTS:
                traces.append(_line(study, cell, outcome, stops, path))
    return traces


def _stops(study: Study, found: Mapping[str, CellMetric], outcome: str, path: str) -> list[Stop]:
    at: dict[float, dict[str, CellMetric]] = {}
    for item in interpolations(found, path):
        if found[item.name].mean is not None:
            at.setdefault(item.alpha, {})[item.metric] = found[item.name]
    out = []
    for alpha, rows in sorted(at.items()):
        x, y = rows.get(study.accuracy), _outcome(study, rows, outcome)
        if x is not None and y is not None:
            value, row, made_of = y
            runs = study.index.encode(set(x.run_ids) & set(row.run_ids))
            reached = as_shown(x)
            out.append((alpha, reached, value, runs, [x.metric, *made_of]))
    return out


def _outcome(
    study: Study, rows: Mapping[str, CellMetric], outcome: str
) -> tuple[float, CellMetric, list[str]] | None:
    """Retention, as recorded or from the accuracy and that of the untouched model."""
    if outcome in rows:
        row = rows[outcome]
        return as_shown(row), row, [row.metric]
    accuracy, before = (outcome.rpartition(".")[0] + end for end in (".accuracy", BASELINE))
    if accuracy not in rows:
        return None
    row = rows[accuracy]
    where = {"backbone": row.backbone, "target": row.target, "metric": before}
    known = [one.accuracy for one in study.rows(Untouched, **where) if one.accuracy > 0]
    return (as_shown(row) / known[0], row, [row.metric, before]) if known else None


def _line(study: Study, cell: CellId, outcome: str, stops: Sequence[Stop], path: str) -> Trace:
    look = study.looks[cell.method]
    shown, reached = metric(outcome), metric(study.accuracy)
    hover = []
    for alpha, x, y, runs, made_of in stops:
        head = f"<b>{text(cell.method)}</b> at {rate_text(cell.learning_rate)}, α = {alpha:g}"
        lines = [
            f"{text(reached.label)}: {reached.number(x / reached.scale)} {reached.unit}",
            f"{text(shown.label)}: {shown.number(y / shown.scale)} {shown.unit}",
        ]
        hover.append([runs, "<br>".join([head, *lines]), made_of])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{text(cell.method)} at {rate_text(cell.learning_rate)}, "
        f"{PATHS[path]} interpolated",
        "x": [stop[1] for stop in stops],
        "y": [stop[2] for stop in stops],
        "line": {"color": f"{look.colour}/0.6", "width": 1.5, "dash": DASHES[path]},
        "marker": {
            "color": look.colour,
            "symbol": look.symbol,
            "size": [10 if alpha == 1 else 5 for alpha, *_ in stops],
        },
        **hovering(hover),
        "meta": meta("interpolated", outcome, method=cell.method),
    }
