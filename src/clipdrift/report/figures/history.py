"""Training trajectories: accuracy, drift and retention after every epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clipdrift.report.figures.chart import Chart, Trace, axis, layout, level_line, meta, text
from clipdrift.report.figures.dose import resting
from clipdrift.report.metrics import Metric, metric, rate_text
from clipdrift.report.palette import rate_colour
from clipdrift.report.printed import mean_sd_text, part_of
from clipdrift.report.source import Place, Study

HEIGHT = 270
MIN_EPOCHS = 2
Epochs = dict[float, list[tuple[int, pd.DataFrame]]]


def history_metrics(study: Study) -> list[str]:
    """What was read after every epoch, the most asked for first."""
    table = study.history
    if table.empty or table["epoch"].nunique() < MIN_EPOCHS:
        return []
    named = [str(name) for name in table.columns if table[name].notna().any()]
    keys = {"learning_rate", "seed", "epoch", "step"}
    numeric = [name for name in named if name not in keys and table[name].dtype.kind == "f"]
    skipped = ("levels.", "extra.")
    usual = ["val_accuracy", *study.outcomes, *study.main_drifts, "train_loss"]
    penalties = [name for name in numeric if name.startswith("penalty.")]
    rest = [name for name in numeric if name.startswith("drift.")]
    wanted = dict.fromkeys([*usual, *penalties, *rest])
    return [name for name in wanted if name in numeric and not name.startswith(skipped)]


def history_charts(study: Study, place: Place, prefix: str) -> list[Chart]:
    """One chart per matched method, with a version for every metric; y ranges are shared."""
    names = history_metrics(study)
    table = study.history
    here = table[(table["backbone"] == place.backbone) & (table["target"] == place.target)]
    ranges = {name: _range(here, metric(name)) for name in names}
    charts = []
    for i, look in enumerate(study.looks.values()):
        own = here[here["method"] == look.method]
        if look.role != "matched" or own["epoch"].nunique() < MIN_EPOCHS:
            continue
        epochs = _epochs(own)
        versions = {name: _version(study, epochs, metric(name), ranges[name]) for name in names}
        traces, shape = next(iter(versions.values()))
        title = f"{study.title(place)}: {look.method}"
        words = f"{title}. Mean over seeds after every epoch, one line per learning rate."
        charts.append(
            Chart(f"{prefix}-{i}", title, words, traces, shape, HEIGHT, variants=versions)
        )
    return charts


def _epochs(own: pd.DataFrame) -> Epochs:
    """Readings by rate and epoch: split once, for every metric."""
    out: Epochs = {}
    for rate in sorted(set(own["learning_rate"])):
        rows = own[own["learning_rate"] == rate]
        numbers = sorted(set(rows["epoch"]))
        out[rate] = [(int(number), rows[rows["epoch"] == number]) for number in numbers]
    return out


def _version(
    study: Study, epochs: Epochs, shown: Metric, limits: dict[str, object]
) -> tuple[list[Trace], dict[str, object]]:
    traces = [
        _line(study, rows, shown, rate, rate_colour(i, len(epochs)))
        for i, (rate, rows) in enumerate(epochs.items())
    ]
    rest = resting(shown)
    lines = [] if rest is None else [level_line(rest, "untouched model")]
    notes = [note for _, note in lines]
    if not any(trace["x"] for trace in traces):
        notes.append(_nothing())
    y = axis(shown.axis, **limits)
    x = axis("Epoch", tickmode="auto", nticks=9)
    return traces, layout(x, y, shapes=[shape for shape, _ in lines], annotations=notes)


def _nothing() -> Trace:
    """Instead of lines, where a method has no such reading: a penalty that others have, say."""
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    return {**middle, "text": "not of this method", "showarrow": False, "font": {"color": "@muted"}}


def _line(
    study: Study, epochs: list[tuple[int, pd.DataFrame]], shown: Metric, rate: float, colour: str
) -> Trace:
    x, y, hover = [], [], []
    for epoch, runs in epochs:
        values = runs[shown.name].to_numpy(dtype=np.float64)
        defined = np.isfinite(values)
        if not defined.any():
            continue
        found = values[defined]
        mean, sd = float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None
        value = mean_sd_text(shown.name, mean, sd)
        label = f"{rate_text(rate)}, epoch {epoch}<br>{value} {text(shown.unit)}"
        listed = [part_of(shown.name, "epoch", epoch)]
        hover.append([study.index.encode(runs["run_id"][defined]), label, listed])
        x.append(epoch)
        y.append(mean * shown.scale)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": rate_text(rate),
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        "customdata": hover,
        "hovertemplate": "%{customdata[1]}<extra></extra>",
        "meta": meta("epoch_mean", shown.name),
    }


def _range(here: pd.DataFrame, shown: Metric) -> dict[str, object]:
    keys = ["method", "learning_rate", "epoch"]
    matched = here[here["role"] == "matched"]
    means = matched.groupby(keys)[shown.name].mean().dropna() * shown.scale
    if means.empty:
        return {}
    rest = resting(shown)
    low = min(float(means.min()), *([] if rest is None else [rest]), float("inf"))
    high = max(float(means.max()), *([] if rest is None else [rest]), float("-inf"))
    room = 0.06 * ((high - low) or 1.0)
    return {"range": [low - room, high + room]}


__all__ = ["history_charts", "history_metrics"]
