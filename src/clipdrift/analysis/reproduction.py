"""A known preset against the figures published for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.signals import column, matched_runs, parts

# Learning rates are written as decimals; this only forgives their binary rounding.
SAME_RATE = 1e-6


class Published(NamedTuple):
    """One published mean: of a cell, of cells over the grid of rates, or of the untouched model."""

    kind: str
    target: str | None
    method: str | None
    rates: tuple[float, ...]
    metric: str
    value: float


class Ours(NamedTuple):
    """Our counterpart: number of runs and mean, or why there is none."""

    n: int
    value: float | None
    reason: str | None


def rows(
    frame: pd.DataFrame, preset: str, tolerance: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Every published mean of a preset beside ours.

    A cell mean is over the seeds of a cell; a grid mean is over the cell means of all published
    learning rates, which must all be there. The published test accuracy is the best one seen
    during training, chosen on the test part; a study that chooses on validation images is
    expected to lie a little lower.

    Args:
        frame: one row per finished run.
        preset: name of the study; one without published figures gives no rows.
        tolerance: metric -> largest absolute difference that counts as reproduced, in the metric's
            unit; default: stated with the figures.

    Returns:
        One dict per backbone and published mean: `preset, backbone, kind ("cell", "grid_mean",
        "untouched"), target, method, lr, metric, n, ours, theirs, diff, tolerance, within, source,
        reason`. Accuracies are fractions, `diff` is ours less theirs, `n` counts runs.
    """
    known = published().get(preset)
    if known is None:
        return []
    allowed = {**known["tolerance"], **(tolerance or {})}
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        for entry in _entries(known):
            head = {"preset": preset, "backbone": backbone}
            row = _compare(entry, _ours(runs, entry), allowed.get(entry.metric))
            out.append({**head, **row, "source": known["source"]})
    return out


@lru_cache(maxsize=1)
def published() -> Mapping[str, Any]:
    """Preset -> published figures, as packaged.

    >>> sorted(published())
    ['paper-80']
    """
    text = (files("clipdrift.analysis") / "published.json").read_text(encoding="utf-8")
    figures: Mapping[str, Any] = json.loads(text)
    return figures


def _entries(known: Mapping[str, Any]) -> Iterator[Published]:
    for target, method, rate, *values in known["cells"]:
        for metric, value in zip(known["metrics"], values, strict=True):
            yield Published("cell", target, method, (rate,), metric, value)
    for target, method, rate, metric, value in known["single_cells"]:
        yield Published("cell", target, method, (rate,), metric, value)
    for target, method, metric, value in known["grid_means"]:
        rates = tuple(cell[2] for cell in known["cells"] if cell[:2] == [target, method])
        yield Published("grid_mean", target, method, rates, metric, value)
    for metric, value in known["untouched"]:
        yield Published("untouched", None, None, (), metric, value)


def _ours(runs: pd.DataFrame, entry: Published) -> Ours:
    if entry.metric not in runs:
        return Ours(0, None, f"no {entry.metric} in these records")
    values = column(runs, entry.metric)
    if entry.kind == "untouched":
        defined = values[np.isfinite(values)]
        if not defined.size:
            return Ours(0, None, f"{entry.metric} is undefined in all runs")
        return Ours(int(defined.size), float(defined.mean()), None)
    own = (runs["target"] == entry.target).to_numpy() & (runs["method"] == entry.method).to_numpy()
    rates = column(runs, "learning_rate")
    means, n, missing = [], 0, 0
    for rate in entry.rates:
        cell = values[own & np.isclose(rates, rate, rtol=SAME_RATE, atol=0)]
        cell = cell[np.isfinite(cell)]
        n += int(cell.size)
        if cell.size:
            means.append(float(cell.mean()))
        else:
            missing += 1
    if missing:
        whole = len(entry.rates)
        reason = "no such cell" if whole == 1 else f"{whole - missing} of {whole} cells"
        return Ours(n, None, reason)
    return Ours(n, float(np.mean(means)), None)


def _compare(entry: Published, ours: Ours, tolerance: float | None) -> dict[str, Any]:
    diff = None if ours.value is None else ours.value - entry.value
    return {
        "kind": entry.kind,
        "target": entry.target,
        "method": entry.method,
        "lr": entry.rates[0] if entry.kind == "cell" else None,
        "metric": entry.metric,
        "n": ours.n,
        "ours": ours.value,
        "theirs": entry.value,
        "diff": diff,
        "tolerance": tolerance,
        "within": None if diff is None or tolerance is None else abs(diff) <= tolerance,
        "reason": ours.reason or (None if tolerance is not None else "no tolerance stated"),
    }


__all__ = ["Ours", "Published", "published", "rows"]
