"""Which classes of a transfer set fell, and into which: a map by method, the largest flows."""

from __future__ import annotations

from collections.abc import Sequence

from clipdrift.analysis.questions.lost_classes import LostClass
from clipdrift.analysis.questions.lost_images import MOST_FLOWS as MAX_FLOWS
from clipdrift.analysis.questions.lost_images import LostFlow
from clipdrift.analysis.rows import rate_text
from clipdrift.report.digits import fixed, p_text
from clipdrift.report.figures.chart import (
    Layout,
    Trace,
    axis,
    heatmap,
    hovering,
    layout,
    meta,
    text,
)
from clipdrift.report.source import Place, Study

MAX_CLASSES = 20
MAX_NAME = 22
ROW_HEIGHT = 22
SURE = 0.05
Version = tuple[list[Trace], Layout]


def hover(method: str, rate: float, words: str) -> str:
    return f"<b>{text(method)}</b> at {rate_text(rate)}<br>{words}"


def class_map(study: Study, place: Place, name: str) -> tuple[int, Version] | None:
    """The classes that changed most, the largest fall above."""
    best = study.best_methods(place)
    every = [row for row in study.rows(LostClass) if row.transfer == name and study.at_best(row)]
    rows = [row for row in every if (row.backbone, row.target) == place]
    changes: dict[str, list[float]] = {}
    for row in rows:
        changes.setdefault(row.class_name, []).append(row.change_pp)
    largest = sorted(changes, key=lambda one: (-max(map(abs, changes[one])), one))[:MAX_CLASSES]
    shown = sorted(largest, key=lambda one: sum(changes[one]) / len(changes[one]))
    at = {(row.class_name, row.method): row for row in rows}
    grid = [[at.get((one, method)) for method in best] for one in shown]
    reach = max((abs(row.change_pp) for row in every), default=0.0) or 1.0
    values = [[None if row is None else row.change_pp for row in line] for line in grid]
    points = [
        [["", ""] if row is None else [study.runs_of(row), _of_class(row)] for row in line]
        for line in grid
    ]
    trace: Trace = {
        **heatmap([*range(len(best))], [*range(len(shown))], values, -reach, reach),
        **hovering(points),
        "text": [[_change(row) for row in line] for line in grid],
        "texttemplate": "%{text}",
        "textfont": {"size": 10},
        "hoverongaps": False,
        "meta": meta("", "", axis="z"),
    }
    version = ([trace], layout(_names(list(best)), _names(shown, y=True)))
    return (70 + ROW_HEIGHT * len(shown), version) if shown else None


def _change(row: LostClass | None) -> str:
    """With a star where it is told from 0."""
    if row is None:
        return ""
    star = "*" if row.p_holm is not None and row.p_holm < SURE else ""
    return fixed(row.change_pp, 0, signed=True) + star


def _of_class(row: LostClass) -> str:
    ends = (
        "" if row.ci_low is None else f" [{fixed(row.ci_low, 1)}, {fixed(row.ci_high or 0.0, 1)}]"
    )
    words = f"{text(row.class_name)}: {fixed(row.change_pp, 1, signed=True)} pp{ends}"
    words += f", p (Holm) {p_text(row.p_holm)}<br>{row.n_images} images"
    if row.fell_into is not None:
        words += f"; most are taken for {text(row.fell_into)}"
    return hover(row.method, row.learning_rate, words)


def flow_bars(study: Study, place: Place, method: str, name: str) -> tuple[int, Version] | None:
    """The largest flows, a bar each with its two classes on it, so that it reads at any width."""
    rows = [
        row
        for row in study.rows(LostFlow, backbone=place.backbone, target=place.target)
        if (row.method, row.transfer) == (method, name) and study.at_best(row)
    ]
    if not rows:
        return None
    at = list(range(len(rows)))
    bars: Trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row.n_lost for row in rows],
        "y": at,
        "marker": {"color": "@m5/0.4"},
        **hovering([[study.runs_of(row), _of_flow(row)] for row in rows]),
        "meta": meta("", ""),
    }
    words = [f"{_cut(r.class_name)} → {_cut(r.fell_into)} {_count(r.n_lost)}" for r in rows]
    names: Trace = {
        "type": "scatter",
        "mode": "text",
        "x": [0] * len(rows),
        "y": at,
        "text": [text(f" {one}") for one in words],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": "@ink"},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    whole = fixed(rows[0].n_lost_in_set, 1)
    shown = f"{100 * sum(row.share for row in rows):.0f} % of the {whole} lost"
    title = f"Images, mean over seeds; {shown}"
    y = axis("", range=[MAX_FLOWS - 0.4, -0.6], showticklabels=False, ticks="", showgrid=False)
    x = axis(title, rangemode="tozero")
    margin = {"l": 8, "r": 14, "t": 4, "b": 46}
    return 60 + 20 * MAX_FLOWS, ([bars, names], layout(x, y, margin=margin, bargap=0.15))


def _count(n: float) -> str:
    return fixed(n, 0 if n == round(n) else 1)


def _of_flow(row: LostFlow) -> str:
    words = f"{text(row.class_name)} taken for {text(row.fell_into)}: {_count(row.n_lost)} images"
    return hover(row.method, row.learning_rate, f"{words}<br>{100 * row.share:.0f} % of all lost")


def _names(names: Sequence[str], *, y: bool = False) -> Layout:
    """An axis of positions with names at them: long ones are cut, and need not differ then."""
    ends = [len(names) - 0.5, -0.5] if y else [-0.5, len(names) - 0.5]
    ticks = {"tickvals": list(range(len(names))), "ticktext": [text(_cut(one)) for one in names]}
    return axis("", showgrid=False, ticklen=0, range=ends, tickangle=0, **ticks)


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
