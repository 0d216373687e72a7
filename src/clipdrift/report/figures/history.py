"""Training trajectories: accuracy, drift and retention after every epoch."""

from __future__ import annotations

from clipdrift.analysis.questions.profiles import EpochMean
from clipdrift.analysis.rows import rate_text
from clipdrift.report.figures.chart import (
    Chart,
    Trace,
    axis,
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
from clipdrift.report.source import Place, Study, as_shown

HEIGHT = 270
MIN_EPOCHS = 2
Lines = dict[float, list[EpochMean]]
"""Rows of one metric by learning rate, in order of epochs."""


def history_metrics(study: Study) -> list[str]:
    """What was read after every epoch, the most asked for first."""
    rows = study.rows(EpochMean)
    if len({row.epoch for row in rows}) < MIN_EPOCHS:
        return []
    known = sorted({row.metric for row in rows})
    usual = ["val_accuracy", *study.outcomes, *study.main_drifts, "train_loss"]
    penalties = [name for name in known if name.startswith("penalty.")]
    rest = [name for name in known if name.startswith("drift.")]
    return [name for name in dict.fromkeys([*usual, *penalties, *rest]) if name in known]


def history_charts(study: Study, place: Place, prefix: str) -> list[Chart]:
    """One chart per matched method, with a version for every metric; y ranges are shared."""
    names = history_metrics(study)
    found: dict[str, dict[str, Lines]] = {}
    for row in study.rows(EpochMean, **place._asdict(), role="matched"):
        lines = found.setdefault(row.method, {}).setdefault(row.metric, {})
        lines.setdefault(row.learning_rate, []).append(row)
    ranges = {name: _range([own.get(name, {}) for own in found.values()], name) for name in names}
    charts = []
    for i, method in enumerate(study.looks):
        own = found.get(method, {})
        if len({row.epoch for lines in own.values() for at in lines.values() for row in at}) < 2:
            continue
        rates = sorted({rate for lines in own.values() for rate in lines})
        versions = {
            name: _version(study, own.get(name, {}), rates, metric(name), ranges[name])
            for name in names
        }
        traces, shape = next(iter(versions.values()))
        title = f"{study.title(place)}: {method}"
        words = f"{title}. Mean over seeds after every epoch, one line per learning rate."
        charts.append(
            Chart(f"{prefix}-{i}", title, words, traces, shape, HEIGHT, variants=versions)
        )
    return charts


def _version(
    study: Study, lines: Lines, rates: list[float], shown: Metric, limits: dict[str, object]
) -> tuple[list[Trace], dict[str, object]]:
    traces = [
        _line(study, lines.get(rate, []), shown, rate, rate_colour(i, len(rates)))
        for i, rate in enumerate(rates)
    ]
    rest = resting(shown)
    levels = [] if rest is None else [level_line(rest, "untouched model")]
    notes = [note for _, note in levels]
    if not lines:
        notes.append(_nothing())
    y = axis(shown.axis, **limits)
    x = axis("Epoch", tickmode="auto", nticks=9)
    return traces, layout(x, y, shapes=[shape for shape, _ in levels], annotations=notes)


def _nothing() -> Trace:
    """Instead of lines, where a method has no such reading: a penalty that others have, say."""
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return {**middle, "text": "not of this method", "showarrow": False, "font": {"color": "@muted"}}


def _line(study: Study, rows: list[EpochMean], shown: Metric, rate: float, colour: str) -> Trace:
    hover = []
    for row in rows:
        value = mean_sd_text(shown.name, row.mean, row.sd)
        label = f"{rate_text(rate)}, epoch {row.epoch}<br>{value} {text(shown.unit)}"
        hover.append([study.runs_of(row), label, [part_of(shown.name, "epoch", row.epoch)]])
    line = rate_line(rate, colour, [row.epoch for row in rows], [*map(as_shown, rows)], hover)
    return {**line, "meta": meta("epoch_mean", shown.name)}


def _range(found: list[Lines], name: str) -> dict[str, object]:
    """One y range for the charts of a place."""
    means = [as_shown(row) for lines in found for rows in lines.values() for row in rows]
    if not means:
        return {}
    rest = resting(metric(name))
    means += [] if rest is None else [rest]
    return {"range": with_room(min(means), max(means))}
