"""The main figures for papers, as PNG and PDF drawn by matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.cell_means import by_rate
from clipdrift.errors import printable
from clipdrift.report.figures.dose import resting
from clipdrift.report.figures.layers import Panel, layer_signals, panels, scales
from clipdrift.report.figures.plane import frontier, label_of, plane_points
from clipdrift.report.labels import spread
from clipdrift.report.metrics import metric
from clipdrift.report.palette import LIGHT
from clipdrift.report.source import Place, Study, as_shown

MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "cross": "P",
    "star": "*",
    "hexagon": "h",
    "x": "X",
}
FORMATS = ("png", "pdf")
DPI = 200
PANEL = (3.1, 2.5)
STYLE = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#9aa3ad",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    # Names come from users: no character of them is a formula.
    "text.parse_math": False,
    "svg.hashsalt": "clipdrift",
}
# Panels side by side, so that a figure of many methods still fits a page.
MAX_ACROSS = 6
# Inches: of a legend's key and of a letter, at most; of a line.
KEY, LETTER, LEGEND_LINE = 0.45, 0.065, 0.18
Draw = Callable[[Any], None]


def static_figures(study: Study) -> Iterator[tuple[str, bytes]]:
    """File name and content of every figure of a study, each as PNG and PDF."""
    return drawn(_figures(study))


def drawn(figures: Iterable[tuple[str, tuple[float, float], Draw]]) -> Iterator[tuple[str, bytes]]:
    """File name and content of figures of a name, a size in inches and what draws them."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    for name, size, draw in figures:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure)
            for item in figure.findobj(Text):  # PDF has no glyphs for characters that hide
                item.set_text(printable(item.get_text(), keep="\n"))
            # Laid out once for both formats: this is most of the time a figure takes.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            spread(figure)
            for ending in FORMATS:
                out = io.BytesIO()
                # No date inside: the same study gives the same file.
                stamp = {"CreationDate": None} if ending == "pdf" else {"Software": None}
                figure.savefig(out, format=ending, dpi=DPI, metadata=stamp)
                yield f"{name}.{ending}", out.getvalue()


def slug(text: str, number: int) -> str:
    """A file name part that is safe and distinct whatever the name holds.

    >>> slug("../Pets (37)", 1)
    '1-pets-37'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
    return f"{number}-{plain}".rstrip("-")


def _figures(study: Study) -> Iterator[tuple[str, tuple[float, float], Draw]]:
    names = [study.accuracy, *study.main_drifts[:1], *study.outcomes]
    every = panels(study)
    for i, place in enumerate(study.places):
        own = [name for name in names if name in study.runs]
        wide = _with_legend(study, (PANEL[0] * len(own), PANEL[1] + 0.3))
        yield f"dose-response-{slug(study.title(place), i)}", wide, _dose(study, place, own)
        if study.outcomes:
            wide = _with_legend(study, (4.0 * len(study.outcomes), 3.4))
            yield f"plane-{slug(study.title(place), i)}", wide, _plane(study, place)
        shown = [panel for panel in every if panel.place == place]
        if shown:
            lines, across = _lines_and_across(len(shown))
            wide = (PANEL[0] * across + 0.5, 3.2 * lines)
            yield f"layers-{slug(study.title(place), i)}", wide, _layers(study, place, shown)


def _dose(study: Study, place: Place, names: Sequence[str]) -> Draw:
    runs = study.runs[
        (study.runs["backbone"] == place.backbone) & (study.runs["target"] == place.target)
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for ax, name in zip(axes, names, strict=True):
            for method in study.looks:
                own = runs[(runs["method"] == method) & runs[name].notna()]
                if len(own):
                    _dose_line(study, ax, own, name, method, place)
            _rate_ticks(ax, sorted(set(runs["learning_rate"])))
            _untouched(ax, name)
            ax.set_ylabel(metric(name).axis)
        _legend(figure, axes[0], study.title(place))

    return draw


def _dose_line(study: Study, ax: Any, own: Any, name: str, method: str, place: Place) -> None:
    look, scale = study.looks[method], metric(name).scale
    colour, marker = LIGHT[look.colour[1:]], MARKERS[look.symbol]
    means = by_rate(own, name)
    rates, mean = means["learning_rate"], means["mean"] * scale
    sd = means["std"].fillna(0.0) * scale
    ax.fill_between(rates, mean - sd, mean + sd, color=colour, alpha=0.16, linewidth=0)
    ax.plot(own["learning_rate"], own[name] * scale, ".", color=colour, alpha=0.5, markersize=3)
    line = "-" if look.role == "matched" else "none"
    ax.plot(rates, mean, color=colour, linestyle=line, linewidth=1.4)
    _markers(study, ax, place, method, rates.tolist(), mean.tolist())
    ax.plot([], [], color=colour, marker=marker, linestyle=line, label=method)


def _markers(
    study: Study, ax: Any, place: Place, method: str, rates: list[float], ys: list[float], **at: Any
) -> None:
    """Filled markers; hollow where a cell does not fit. `at["x"]` replaces the rates on it."""
    look = study.looks[method]
    colour = LIGHT[look.colour[1:]]
    weak = {c.learning_rate for c in study.cells_of(place) if c.method == method and study.mark(c)}
    for i, (rate, y) in enumerate(zip(rates, ys, strict=True)):
        x = at["x"][i] if "x" in at else rate
        fill = "white" if rate in weak else colour
        ax.plot(
            x, y, MARKERS[look.symbol], markersize=5, color=colour, markerfacecolor=fill, zorder=3
        )


def _rate_ticks(ax: Any, rates: Sequence[float]) -> None:
    ax.set_xscale("log")
    every = -(-len(rates) // 6)
    ax.set_xticks(rates[::every], [rate_text(rate) for rate in rates[::every]])
    ax.minorticks_off()
    ax.set_xlabel("Learning rate")


def _untouched(ax: Any, name: str) -> None:
    value = resting(metric(name))
    if value is not None:
        ax.axhline(value, color="#9aa3ad", linewidth=0.8, linestyle=":")


def _legend(figure: Any, ax: Any, title: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    ncols = _legend_columns(figure.get_figwidth(), labels)
    figure.legend(handles, labels, loc="outside upper center", ncols=ncols, title=title)


def _legend_columns(width: float, labels: Sequence[str]) -> int:
    widest = KEY + LETTER * max(map(len, labels), default=0)
    return max(1, min(6, len(labels), int(width // widest)))


def _with_legend(study: Study, size: tuple[float, float]) -> tuple[float, float]:
    """Room for a line of the legend beyond the two that sizes are made for."""
    columns = _legend_columns(size[0], list(study.looks))
    lines = -(-len(study.looks) // columns)
    return size[0], size[1] + LEGEND_LINE * max(0, lines - 2)


def _plane(study: Study, place: Place) -> Draw:
    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(study.outcomes), squeeze=False)[0]
        for ax, outcome in zip(axes, study.outcomes, strict=True):
            ax.margins(x=0.08, y=0.1)
            front = frontier(study, place, outcome)
            for method in study.looks:
                _plane_line(study, ax, place, outcome, method, front)
            _untouched(ax, outcome)
            ax.set_xlabel(metric(study.accuracy).axis)
            ax.set_ylabel(metric(outcome).axis)
        _legend(figure, axes[0], study.title(place))

    return draw


def _plane_line(
    study: Study, ax: Any, place: Place, outcome: str, method: str, front: set[tuple[str, float]]
) -> None:
    look = study.looks[method]
    colour = LIGHT[look.colour[1:]]
    rows = [row for row in plane_points(study, place, outcome) if row[0].method == method]
    if not rows:
        return
    rows.sort(key=lambda row: row[0].learning_rate)
    scales_xy = metric(study.accuracy).scale, metric(outcome).scale
    xs, ys = [as_shown(x) for _, x, _ in rows], [as_shown(y) for _, _, y in rows]
    sx, sy = (
        [(x.sd or 0.0) * scales_xy[0] for _, x, _ in rows],
        [(y.sd or 0.0) * scales_xy[1] for _, _, y in rows],
    )
    ax.errorbar(xs, ys, sy, sx, color=colour, alpha=0.5, linewidth=1, elinewidth=0.8)
    _markers(study, ax, place, method, [cell.learning_rate for cell, _, _ in rows], ys, x=xs)
    _labels(ax, xs, ys, [label_of(study, cell, front) for cell, _, _ in rows])
    ax.plot([], [], color=colour, marker=MARKERS[look.symbol], label=method)


def _labels(ax: Any, xs: Sequence[float], ys: Sequence[float], texts: Iterable[str]) -> None:
    """Beside the points for now: `spread` moves them apart when all is laid out."""
    line = {"arrowstyle": "-", "color": "#9aa3ad", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    small: dict[str, Any] = {"fontsize": 6.5, "color": "#5b6470", "arrowprops": line}
    for x, y, text in zip(xs, ys, texts, strict=True):
        if text:
            own = ax.annotate(text, (x, y), (4, 4), textcoords="offset points", **small)
            own.set_in_layout(False)


def _lines_and_across(n: int) -> tuple[int, int]:
    """How n panels are laid out."""
    return -(-n // MAX_ACROSS), min(n, MAX_ACROSS)


def _layers(study: Study, place: Place, shown: Sequence[Panel]) -> Draw:
    from matplotlib.colors import LinearSegmentedColormap

    signal = layer_signals(study)[0]
    scale = scales(study)[signal]
    colours = LinearSegmentedColormap.from_list(
        "drift", [(float(at), str(colour)) for at, colour in LIGHT["diverging"]]
    )

    def draw(figure: Any) -> None:
        lines, across = _lines_and_across(len(shown))
        axes = figure.subplots(lines, across, squeeze=False, sharey=True).ravel()
        for ax in axes[len(shown) :]:
            ax.remove()
        axes = axes[: len(shown)]
        for ax, panel in zip(axes, shown, strict=True):
            rows = panel.signals.get(signal, [])
            rates = sorted({row.learning_rate for row in rows})
            at = {(row.block, row.learning_rate): row.mean for row in rows}
            blocks = sorted({row.block for row in rows})
            image = ax.pcolormesh(
                np.arange(len(rates) + 1) - 0.5,
                np.arange(len(blocks) + 1) + 0.5,
                [[at.get((block, rate), np.nan) for rate in rates] for block in blocks],
                cmap=colours,
                vmin=scale.low,
                vmax=scale.high,
                edgecolors="white",
                linewidth=0.6,
            )
            ax.set_xticks(range(len(rates)), [rate_text(rate) for rate in rates])
            ax.set_xlabel("Learning rate")
            ax.set_title(panel.method, fontsize=8.5)
            ax.grid(visible=False)
        for ax in axes[::across]:
            ax.set_ylabel("Block")
        figure.colorbar(image, ax=list(axes), label=metric(signal).axis, shrink=0.9)
        figure.suptitle(study.title(place), fontsize=9)

    return draw
