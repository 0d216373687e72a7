"""Dose-response: a metric against the learning rate, every run as a point, mean and SD per cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.cell_means import by_rate
from clipdrift.analysis.statistics.fit import fits
from clipdrift.report.figures.chart import (
    MAX_POINTS,
    Chart,
    Layout,
    Trace,
    hovering,
    layout,
    level_line,
    meta,
    metric_axis,
    rate_axis,
    text,
)
from clipdrift.report.metrics import Metric, metric
from clipdrift.report.palette import LIGHT, Look, looks, resolve
from clipdrift.report.printed import RunIndex, mean_sd_text
from clipdrift.report.source import Place, Study, mark_of

PANEL_HEIGHT = 290
Marks = Mapping[tuple[str, float], str]
"""Method and learning rate -> the word for a cell that does not fit, else nothing."""


def dose_response_figure(frame: pd.DataFrame, metric: str, target: str) -> Any:
    """One dose-response panel as a plotly figure, for notebooks.

    Every run is a point; the line joins the means of the cells and the band is their SD over
    seeds (ddof 1). Hollow markers: cells that underfit or are damaged, their mean test accuracy
    below 0.9 of the best of the target. References outside the grid are dotted lines at their
    mean.

    Args:
        frame: as `analysis.frame.runs_frame` makes it; one backbone.
        metric: a column of it, such as `drift.cls_entropy_pct`.
        target: a target dataset of it.

    Returns:
        `plotly.graph_objects.Figure`; accuracies in percent.

    Raises:
        ValueError: if the frame has no such metric, no such target, or several backbones.
    """
    from plotly.graph_objects import Figure

    for name, known in (("metric", list(frame.columns)), ("target", sorted(set(frame["target"])))):
        asked = metric if name == "metric" else target
        if asked not in known:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {asked!r}")
    runs = frame[frame["target"] == target]
    if runs["backbone"].nunique() > 1:
        raise ValueError("frame: expected one backbone; select one, they are never pooled")
    marks = {(method, lr): mark_of(fit) for (*_, method, lr), fit in fits(runs).items()}
    styles = looks(list(zip(runs["method"], runs["role"], strict=True)))
    index = RunIndex(runs["run_id"].tolist())
    traces, shape = dose_panel(runs, metric, styles, marks, index)
    shown = {**shape, "showlegend": True, "height": 360, "paper_bgcolor": "@paper"}
    return Figure(data=resolve(traces, LIGHT), layout=resolve(shown, LIGHT))


def dose_panel(
    runs: pd.DataFrame,
    name: str,
    styles: Mapping[str, Look],
    marks: Marks,
    index: RunIndex,
) -> tuple[list[Trace], Layout]:
    """Traces and layout of one panel; `runs` are those of one backbone and target."""
    defined = runs[runs[name].notna()]
    shown = metric(name)
    matched = defined[defined["role"] == "matched"]
    grid = sorted(set((matched if len(matched) else defined)["learning_rate"]))
    traces: list[Trace] = []
    lines: list[Trace] = []
    for method, look in styles.items():
        own = defined[defined["method"] == method]
        inside = own[own["learning_rate"].between(grid[0] / 1.5, grid[-1] * 1.5)] if grid else own
        if len(inside):
            traces += _method(inside, shown, look, marks, index)
        for rate, cell in own.drop(inside.index).groupby("learning_rate", sort=True):
            lines.append(_level(cell, float(str(rate)), shown, look, grid, index))
    shapes, notes = _resting(shown)
    rates = sorted({*grid, *(rate for trace in traces for rate in trace["x"])})
    return [*lines, *traces], layout(
        rate_axis(rates), metric_axis(shown), shapes=shapes, annotations=notes
    )


def dose_chart(study: Study, place: Place, name: str, chart_id: str) -> Chart | None:
    """One panel of the page; None where no run of the place has the metric."""
    here = (study.runs["backbone"] == place.backbone) & (study.runs["target"] == place.target)
    runs = study.runs[here]
    if not runs[name].notna().any():
        return None
    marks = {(c.method, c.learning_rate): study.mark(c) for c in study.cells_of(place)}
    traces, shape = dose_panel(runs, name, study.looks, marks, study.index)
    words = f"{metric(name).axis} against learning rate on {study.title(place)}."
    return Chart(chart_id, metric(name).label, words, traces, shape, PANEL_HEIGHT)


def _method(
    own: pd.DataFrame, shown: Metric, look: Look, marks: Marks, index: RunIndex
) -> list[Trace]:
    means = by_rate(own, shown.name)
    traces = []
    spread = means[means["std"].notna()]
    if len(spread) > 1 and look.role == "matched":
        traces.append(_band(spread, shown, look))
    if len(own) <= MAX_POINTS:
        traces.append(_points(own, shown, look, index))
    return [*traces, _line(means, shown, look, marks, index)]


def _band(means: pd.DataFrame, shown: Metric, look: Look) -> Trace:
    high = ((means["mean"] + means["std"]) * shown.scale).tolist()
    low = ((means["mean"] - means["std"]) * shown.scale).tolist()
    rates = means["learning_rate"].tolist()
    return {
        "type": "scatter",
        "x": [*rates, *reversed(rates)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": f"{look.colour}/0.16",
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"method": look.method},
    }


def _points(own: pd.DataFrame, shown: Metric, look: Look, index: RunIndex) -> Trace:
    columns = zip(own["run_id"], own["seed"], strict=True)
    hover = [[index.encode([run_id]), f"{text(run_id)}<br>seed {seed}"] for run_id, seed in columns]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": own["learning_rate"].tolist(),
        "y": (own[shown.name] * shown.scale).tolist(),
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 5, "opacity": 0.55},
        "customdata": hover,
        "hovertemplate": "%{customdata[1]}<br>%{y:.4~g} " + text(shown.unit) + "<extra></extra>",
        "showlegend": False,
        "meta": meta("value", shown.name, method=look.method),
    }


def _line(means: pd.DataFrame, shown: Metric, look: Look, marks: Marks, index: RunIndex) -> Trace:
    rates = means["learning_rate"].tolist()
    words = [marks.get((look.method, rate), "") for rate in rates]
    joined = look.role == "matched"
    return {
        "type": "scatter",
        "mode": "lines+markers" if joined else "markers",
        "name": text(look.method),
        "x": rates,
        "y": (means["mean"] * shown.scale).tolist(),
        "line": {"color": look.colour, "width": 2},
        "marker": {
            "color": look.colour,
            "symbol": [look.open_symbol if mark else look.symbol for mark in words],
            "size": 9,
            "line": {"width": 1.5, "color": look.colour},
        },
        **hovering(_cell_hover(means, shown, look, words, index)),
        "meta": meta("mean", shown.name, method=look.method),
    }


def _cell_hover(
    means: pd.DataFrame, shown: Metric, look: Look, words: list[str], index: RunIndex
) -> list[list[str]]:
    out = []
    for row, mark in zip(means.itertuples(index=False), words, strict=True):
        rate, count, mean, sd, ids = row
        value = mean_sd_text(shown.name, mean, None if pd.isna(sd) else sd)
        head = f"<b>{text(look.method)}</b> at {rate_text(rate)}"
        tail = f"<br>{mark}" if mark else ""
        runs = "1 run: no SD" if count == 1 else f"mean ± SD over {count} runs"
        label = f"{head}<br>{value} {text(shown.unit)}<br>{runs}{tail}"
        out.append([index.encode(ids), label])
    return out


def _level(
    cell: pd.DataFrame, rate: float, shown: Metric, look: Look, grid: list[float], index: RunIndex
) -> Trace:
    """A reference outside the grid: a line across, for its rate means nothing on this axis."""
    means = by_rate(cell, shown.name)
    hover = _cell_hover(means, shown, look, [""], index)[0]
    ends = [grid[0], grid[-1]] if len(grid) > 1 else [rate, rate]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{text(look.method)} at {rate_text(rate)}",
        "x": ends,
        "y": [float(means["mean"].iloc[0]) * shown.scale] * 2,
        "line": {"color": look.colour, "width": 1.5, "dash": "dash"},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6},
        **hovering([hover, hover]),
        "meta": meta("mean", shown.name, method=look.method),
    }


def _resting(shown: Metric) -> tuple[list[Trace], list[Trace]]:
    """The value of the untouched model, where the metric has one."""
    value = resting(shown)
    if value is None:
        return [], []
    shape, note = level_line(value, "untouched model")
    return [shape], [note]


def resting(shown: Metric) -> float | None:
    """What the untouched model reads: 100 % retention, similarity 1, drift 0; None if unknown."""
    if shown.name.endswith("retention_pct"):
        return 100.0
    if shown.similarity:
        return 1.0
    return 0.0 if shown.signed else None
