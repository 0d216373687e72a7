"""A chart as data: plotly traces and a layout whose colours are tokens of the palette."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipdrift.analysis.rows import rate_text
from clipdrift.report.metrics import Metric

Trace = dict[str, Any]
Layout = dict[str, Any]
MAX_TICKS = 9
MAX_POINTS = 400
"""Above this many runs of a method, single runs would hide each other: only mean and SD stay."""


@dataclass(frozen=True)
class Chart:
    """One figure of the page.

    Every trace with numbers says in `meta` which statistic of which metric it shows and on which
    axis, and names in `customdata[i][0]` the runs of its i-th point: a click lists them, and the
    audit computes the point again from them. Their values are listed too: of that metric, or of
    those that `customdata[i][2]` names.

    variants: other versions of the figure by the name a selector offers, as (traces, layout).
    """

    id: str
    title: str
    description: str
    traces: list[Trace]
    layout: Layout
    height: int = 290
    wide: bool = False
    variants: Mapping[str, tuple[list[Trace], Layout]] = field(default_factory=dict)


def text(value: object) -> str:
    """A name for use inside a figure: plotly reads a subset of HTML in every text.

    >>> text("<b>lora</b>")
    '&lt;b&gt;lora&lt;/b&gt;'
    """
    return html.escape(str(value), quote=False)


def meta(stat: str, metric: str, *, axis: str = "y", **more: Any) -> dict[str, Any]:
    """What a trace shows, for the click and the audit."""
    return {"stat": stat, "metric": metric, "axis": axis, **more}


def hovering(points: Sequence[Any]) -> dict[str, Any]:
    """What a click and the hover tell of each point: its runs, and its text."""
    return {"customdata": points, "hovertemplate": "%{customdata[1]}<extra></extra>"}


def rate_line(
    rate: float, colour: str, x: Sequence[Any], y: Sequence[Any], points: Sequence[Any]
) -> Trace:
    """A line with markers, one of several learning rates."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": rate_text(rate),
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        **hovering(points),
    }


def heatmap(
    x: Sequence[Any], y: Sequence[Any], z: Sequence[Sequence[Any]], low: float, high: float
) -> Trace:
    """Cells with gaps between, coloured from one end of a scale to the other."""
    return {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": z,
        "zmin": low,
        "zmax": high,
        "colorscale": "@diverging",
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def with_room(low: float, high: float) -> list[float]:
    """The range of an axis on which these are the ends of what is drawn."""
    room = 0.06 * ((high - low) or 1.0)
    return [low - room, high + room]


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """A quiet axis: light grid, thin line, no zero line."""
    return {
        "title": {"text": text(title), "font": {"size": 12}, "standoff": 6},
        "gridcolor": "@grid",
        "linecolor": "@rule",
        "tickcolor": "@rule",
        "tickfont": {"size": 11, "color": "@muted"},
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def metric_axis(shown: Metric, **more: Any) -> dict[str, Any]:
    return axis(shown.axis, **more)


def rate_axis(rates: Sequence[float], **more: Any) -> dict[str, Any]:
    """Learning rate on a log axis whose ticks are the rates of the grid."""
    ticks = sorted(set(rates))
    if len(ticks) > MAX_TICKS:
        ticks = ticks[:: -(-len(ticks) // MAX_TICKS)]
    ticktext = [rate_text(rate) for rate in ticks]
    return axis("Learning rate (log scale)", type="log", tickvals=ticks, ticktext=ticktext, **more)


def layout(x: Mapping[str, Any], y: Mapping[str, Any], **more: Any) -> Layout:
    """The layout all figures share; dragging scrolls the page instead of zooming."""
    return {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 58, "r": 14, "t": 10, "b": 46},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "@paper",
            "bordercolor": "@rule",
            "font": {"color": "@ink", "size": 12},
            "align": "left",
        },
        "dragmode": False,
        "showlegend": False,
        "xaxis": dict(x),
        "yaxis": dict(y),
        **more,
    }


def level_line(value: float, label: str, *, horizontal: bool = True) -> tuple[Trace, Trace]:
    """A dotted line at a value with meaning, and its small label: (shape, annotation)."""
    along, across = ("x", "y") if horizontal else ("y", "x")
    shape = {
        "type": "line",
        f"{along}ref": f"{along} domain",
        f"{across}ref": across,
        f"{along}0": 0,
        f"{along}1": 1,
        f"{across}0": value,
        f"{across}1": value,
        "line": {"color": "@muted" if horizontal else "@rule", "width": 1, "dash": "dot"},
        "layer": "below",
    }
    note = {
        f"{along}ref": f"{along} domain",
        f"{across}ref": across,
        f"{along}": 1 if horizontal else 0.01,
        f"{across}": value,
        "text": text(label),
        "textangle": 0 if horizontal else -90,
        "showarrow": False,
        "yshift": 1 if horizontal else 0,
        "xshift": 0 if horizontal else -1,
        "xanchor": "right",
        "yanchor": "bottom",
        "font": {"size": 10, "color": "@muted"},
    }
    return shape, note
