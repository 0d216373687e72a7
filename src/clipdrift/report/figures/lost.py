"""What was lost of each transfer set, at every method's best rate: hidden or gone, which classes.

One version of each figure a set; a selector shows that of one set in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clipdrift.analysis.questions.calibrated import Calibrated
from clipdrift.report.digits import fixed
from clipdrift.report.figures.chart import (
    Chart,
    Layout,
    Trace,
    axis,
    hovering,
    layout,
    meta,
    text,
)
from clipdrift.report.figures.lost_classes import Version, class_map, flow_bars, hover
from clipdrift.report.metrics import metric
from clipdrift.report.printed import mean_sd_text
from clipdrift.report.source import Place, Study


def of_set(name: str) -> str:
    """What the selector calls a transfer set by."""
    return f"transfer.{name}.delta_accuracy_pp"


def read_in_full(study: Study) -> list[str]:
    """The transfer sets that some run was read in full on."""
    return [name for name in study.transfers if f"transfer.{name}.lost_pp" in study.metrics]


def lost_charts(study: Study, place: Place, number: int) -> Iterator[Chart]:
    """The figures of one target."""
    sets = read_in_full(study)
    yield from _chart(
        f"hidden-{number}",
        "Misaligned or gone",
        "bars by method: points that a linear read-out still finds, and that are gone",
        {name: _hidden(study, place, name) for name in sets},
    )
    yield from _chart(
        f"calibrated-{number}",
        "Calibration error",
        "by method: untouched, adapted, and adapted with the temperature refit",
        {name: _calibration(study, place, name) for name in sets},
    )
    yield from _chart(
        f"classes-{number}",
        "Change by class (pp; * p < 0.05 by Holm)",
        "rows are classes, columns methods, numbers percentage points",
        {name: class_map(study, place, name) for name in sets},
    )
    for i, method in enumerate(study.best_methods(place)):
        yield from _chart(
            f"flow-{number}-{i}",
            f"Where lost images fell, {method}",
            "bars are numbers of images: their class, and what they are taken for",
            {name: flow_bars(study, place, method, name) for name in sets},
        )


def _chart(
    chart_id: str, title: str, words: str, versions: dict[str, tuple[int, Version] | None]
) -> Iterator[Chart]:
    """None where no set has anything to show; of a set without, an empty figure says so."""
    found = [version for version in versions.values() if version is not None]
    if not found:
        return
    drawn = {of_set(name): one[1] if one else _nothing() for name, one in versions.items()}
    height = max(height for height, _ in found)
    traces, shape = next(iter(drawn.values()))
    yield Chart(chart_id, title, f"{title}: {words}", traces, shape, height, variants=drawn)


def _nothing() -> Version:
    note = {"text": "nothing to show of this set", "showarrow": False, "xref": "paper",
            "yref": "paper", "x": 0.5, "y": 0.5, "font": {"color": "@muted"}}  # fmt: skip
    hidden = {"visible": False}
    return [], layout(hidden, hidden, annotations=[note])


def _hidden(study: Study, place: Place, name: str) -> tuple[int, Version] | None:
    """Stacked: gone, and misaligned; a marker with its interval for both together."""
    parts = {"gone": ("gone_pp", "@m1"), "misaligned": ("misaligned_pp", "@m5")}
    traces = [
        {"type": "bar", "name": words, "marker": {"color": colour}, "width": 0.5, **found}
        for words, (field, colour) in parts.items()
        if (found := _means(study, place, f"transfer.{name}.{field}"))
    ]
    if not traces:
        return None
    lost = _means(study, place, f"transfer.{name}.lost_pp")
    marker = {"color": "@ink", "size": 8, "symbol": "diamond"}
    traces.append(
        {"type": "scatter", "mode": "markers", "name": "lost in all", "marker": marker, **lost}
    )
    own = axis("Accuracy lost (pp)", zeroline=True, zerolinecolor="@rule")
    return 300, (traces, _by_method(own, barmode="relative"))


def _means(study: Study, place: Place, name: str) -> dict[str, Any]:
    """Mean of every method at its best rate, with its interval; empty where there is none."""
    rows = [
        (method, row)
        for method, cell in study.best_methods(place).items()
        if (row := study.known(cell, name)) is not None
    ]
    if not rows:
        return {}
    points = [
        [study.runs_of(row), hover(method, row.learning_rate, _said(row))] for method, row in rows
    ]
    found: dict[str, Any] = {
        "x": [text(method) for method, _ in rows],
        "y": [row.mean for _, row in rows],
        **hovering(points),
        "meta": meta("mean", name),
    }
    if name.endswith("lost_pp"):
        found["error_y"] = _errors([(row.mean, row.ci_low, row.ci_high) for _, row in rows])
    return found


def _said(row: Any) -> str:
    shown = metric(row.metric)
    words = f"{shown.label}: {mean_sd_text(row.metric, row.mean, row.sd)} {shown.unit}"
    if row.ci_low is None:
        return words
    ends = (shown.number(end) for end in (row.ci_low, row.ci_high))
    return f"{words}<br>95 % interval over {row.interval_over}: {' to '.join(ends)}"


def _errors(ends: Sequence[tuple[Any, Any, Any]]) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [0 if high is None else high - mean for mean, _, high in ends],
        "arrayminus": [0 if low is None else mean - low for mean, low, _ in ends],
        "color": "@ink",
        "thickness": 1.2,
        "width": 4,
    }


def _by_method(y: dict[str, Any], **more: Any) -> Layout:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}}
    x = axis("", type="category", showgrid=False, ticklen=0)
    margin = {"l": 58, "r": 14, "t": 34, "b": 40}
    return layout(x, y, showlegend=True, legend=legend, margin=margin, **more)


def _calibration(study: Study, place: Place, name: str) -> tuple[int, Version] | None:
    wanted = f"transfer.{name}.ece"
    rows = {
        row.method: row
        for row in study.rows(Calibrated, backbone=place.backbone, target=place.target)
        if row.metric == wanted and study.at_best(row)
    }  # fmt: skip
    series = (
        ("untouched", "before", "circle-open", "@muted"),
        ("adapted", "now", "circle", "@m1"),
        ("adapted, temperature refit", "refit_now", "x", "@m0"),
    )
    traces = []
    for words, field, symbol, colour in series:
        known = [(m, row, value) for m, row in rows.items()
                 if (value := getattr(row, field)) is not None]  # fmt: skip
        if not known:
            continue
        points = [
            [study.runs_of(row), hover(m, row.learning_rate, f"{words}: {fixed(value, 3)}")]
            for m, row, value in known
        ]
        trace: Trace = {
            "type": "scatter",
            "mode": "markers",
            "name": words,
            "marker": {"color": colour, "size": 9, "symbol": symbol},
            "x": [text(method) for method, _, _ in known],
            "y": [value for _, _, value in known],
            **hovering(points),
            "meta": meta("mean", wanted) if field == "now" else meta("", ""),
        }
        if field == "now":
            trace["error_y"] = _errors([(row.now, row.ci_low, row.ci_high) for _, row, _ in known])
        traces.append(trace)
    y = axis("Calibration error", rangemode="tozero")
    return (300, (traces, _by_method(y))) if traces else None
