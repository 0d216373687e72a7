"""Drift per block: layer x learning rate heatmaps on one colour scale, and profiles over depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipdrift.analysis.questions.profiles import BlockMean
from clipdrift.analysis.rows import rate_text
from clipdrift.report.figures.chart import (
    Chart,
    Layout,
    Trace,
    axis,
    heatmap,
    hovering,
    layout,
    level_line,
    meta,
    rate_line,
    text,
    with_room,
)
from clipdrift.report.figures.dose import resting
from clipdrift.report.metrics import Metric, metric
from clipdrift.report.palette import rate_colour
from clipdrift.report.printed import mean_sd_text, part_of
from clipdrift.report.source import Place, Study

FIRST = "drift.cls_entropy_pct"
MAX_NUMBERS = 80
MAX_RATES = 12
MAX_TICKS = 12
Version = tuple[list[Trace], Layout]


@dataclass(frozen=True)
class Panel:
    """One method on one target: signal -> its rows, by learning rate and block."""

    place: Place
    method: str
    signals: dict[str, list[BlockMean]]


@dataclass(frozen=True)
class Scale:
    """Symmetric colour range around the value of the untouched model, shared by all panels.

    lowest, highest: of the cell means.
    """

    signal: str
    middle: float
    lowest: float
    highest: float

    @property
    def reach(self) -> float:
        return max(self.highest - self.middle, self.middle - self.lowest) or 1.0

    @property
    def low(self) -> float:
        return self.middle - self.reach

    @property
    def high(self) -> float:
        return self.middle + self.reach


def layer_signals(study: Study) -> list[str]:
    """Drift signals read per block, the usual one first."""
    names = sorted({row.metric for row in study.rows(BlockMean)})
    return sorted(names, key=lambda name: name != FIRST)


def scales(study: Study) -> dict[str, Scale]:
    """The colour scale of every signal: over all cells of the study, so that panels compare."""
    means: dict[str, list[float]] = {name: [] for name in layer_signals(study)}
    for row in study.rows(BlockMean):
        means[row.metric] += [] if row.mean is None else [row.mean]
    return {
        name: Scale(name, resting(metric(name)) or 0.0, min(found), max(found))
        for name, found in means.items()
    }


def panels(study: Study) -> list[Panel]:
    """Matched methods, and reference methods that were run at several rates."""
    found: dict[tuple[Place, str], list[BlockMean]] = {}
    for row in study.rows(BlockMean):
        found.setdefault((Place(row.backbone, row.target), row.method), []).append(row)
    out = []
    for (place, method), rows in found.items():
        if study.looks[method].role == "matched" or len({r.learning_rate for r in rows}) > 1:
            signals: dict[str, list[BlockMean]] = {}
            for row in rows:
                signals.setdefault(row.metric, []).append(row)
            out.append(Panel(place, method, signals))
    order = {name: i for i, name in enumerate(study.looks)}
    return sorted(out, key=lambda panel: (study.places.index(panel.place), order[panel.method]))


def heatmap_chart(study: Study, panel: Panel, chart_id: str, ranges: dict[str, Scale]) -> Chart:
    """Block x learning rate; colour is the mean over seeds."""
    words = "Rows are blocks, the image side below; columns are learning rates; colour is drift."
    return _chart(
        study, panel, chart_id, words, lambda means, name: _heat(study, means, ranges[name])
    )


def profile_chart(study: Study, panel: Panel, chart_id: str, ranges: dict[str, Scale]) -> Chart:
    """The same numbers as lines over depth, one per learning rate."""
    words = "Drift against block, one line per learning rate."
    return _chart(
        study, panel, chart_id, words, lambda means, name: _profile(study, means, ranges[name])
    )


def _chart(
    study: Study,
    panel: Panel,
    chart_id: str,
    words: str,
    draw: Callable[[list[BlockMean], str], Version],
) -> Chart:
    versions = {name: draw(panel.signals.get(name, []), name) for name in layer_signals(study)}
    title = f"{study.title(panel.place)}: {panel.method}"
    traces, shape = next(iter(versions.values()))
    n_blocks = max(row.block for rows in panel.signals.values() for row in rows)
    height = min(460, max(230, 90 + 22 * n_blocks))
    return Chart(chart_id, title, f"{title}. {words}", traces, shape, height, variants=versions)


def _heat(study: Study, means: list[BlockMean], scale: Scale) -> Version:
    shown = metric(scale.signal)
    rates = sorted({row.learning_rate for row in means})
    blocks = sorted({row.block for row in means})
    at = {(row.learning_rate, row.block): row for row in means}
    grid = [[at.get((rate, block)) for rate in rates] for block in blocks]
    values = [[_value(row) for row in line] for line in grid]
    trace: Trace = {
        **heatmap([*map(rate_text, rates)], blocks, values, scale.low, scale.high),
        **hovering([[_hover(study, row, shown) for row in line] for line in grid]),
        "hoverongaps": False,
        "meta": meta("block_mean", scale.signal, axis="z"),
    }
    if len(rates) * len(blocks) <= MAX_NUMBERS:
        trace["text"] = [[shown.number(value) for value in line] for line in values]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 10}
    every = 1 if len(blocks) <= 12 else 2 if len(blocks) <= 24 else 4
    x = axis("Learning rate", type="category", showgrid=False, ticklen=0)
    y = axis("Block", showgrid=False, tickmode="linear", tick0=1, dtick=every, ticklen=0)
    return [trace], layout(x, y)


def _profile(study: Study, means: list[BlockMean], scale: Scale) -> Version:
    shown = metric(scale.signal)
    rates = sorted({row.learning_rate for row in means})[:MAX_RATES]
    traces = []
    for rank, rate in enumerate(rates):
        rows = [row for row in means if row.learning_rate == rate]
        colour = rate_colour(rank, len(rates))
        hover = [_hover(study, row, shown) for row in rows]
        line = rate_line(rate, colour, [row.block for row in rows], [*map(_value, rows)], hover)
        traces.append({**line, "meta": meta("block_mean", scale.signal)})
    # One y range for every panel of a signal.
    ends = with_room(min(scale.lowest, scale.middle), max(scale.highest, scale.middle))
    shape, note = level_line(scale.middle, "untouched model")
    step = -(-max((row.block for row in means), default=1) // MAX_TICKS)
    x = axis("Block (1 = image side)", tick0=1, dtick=step)
    y = axis(shown.axis, range=ends)
    return traces, layout(x, y, shapes=[shape], annotations=[note])


def _value(row: BlockMean | None) -> float | None:
    return None if row is None else row.mean


def _hover(study: Study, row: BlockMean | None, shown: Metric) -> list[Any]:
    if row is None:
        return ["", "undefined"]
    value = mean_sd_text(shown.name, row.mean, row.sd)
    label = f"block {row.block} at {rate_text(row.learning_rate)}<br>{value} {text(shown.unit)}"
    values = [part_of(shown.name, "block", row.block)]
    return [study.runs_of(row), f"{label}<br>{row.n} runs", values]
