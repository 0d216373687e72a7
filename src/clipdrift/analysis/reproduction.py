"""A known preset against the figures published for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.ranks import Floats
from clipdrift.analysis.signals import column, matched_runs, parts

# Learning rates are written as decimals; this only forgives their binary rounding.
SAME_RATE = 1e-6


class Published(NamedTuple):
    """One published figure.

    kind: `cell`, the mean of a cell; `grid_mean`, of cells over the grid of rates; `nearest_cell`,
    of one configuration whose rate is not given; `untouched`, of the untouched model;
    `upper_bound`, of something published as smaller than this.
    """

    kind: str
    target: str | None
    method: str | None
    rates: tuple[float, ...]
    metric: str
    value: float


class Ours(NamedTuple):
    """Our counterpart: number of runs, mean and the rate of its cell, or why there is none."""

    n: int
    value: float | None
    reason: str | None = None
    rate: float | None = None


def rows(
    frame: pd.DataFrame, preset: str, tolerance: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Every published figure of a preset beside ours.

    A cell mean is over the seeds of a cell; a grid mean is over the cell means of all published
    learning rates, which must all be there. Where the rate of a figure is not given it is held
    against the nearest of our cells on the published grid, and `lr` says which: within tolerance
    means that a cell like theirs exists here. A figure of the untouched model, and one that is
    published as an upper bound, is held against the mean over all runs (of its target).

    The published test accuracy is the best one seen during training, chosen on the test part; a
    study that chooses on validation images is expected to lie a little lower.

    Args:
        frame: one row per finished run, of `with_supporting` for the figures that need it.
        preset: name of the study; one without published figures gives no rows.
        tolerance: metric -> largest absolute difference that counts as reproduced, in the metric's
            unit; default: stated with the figures.

    Returns:
        One dict per backbone and published figure: `preset, backbone, kind (as of Published),
        target, method, lr, metric, n, ours, theirs, diff, tolerance, within, source, reason`.
        Accuracies are fractions, `diff` is ours less theirs, `n` counts runs; an upper bound has
        no tolerance.
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
    for target, method, metric, value in known["rate_not_given"]:
        rates = tuple(cell[2] for cell in known["cells"] if cell[:2] == [target, method])
        yield Published("nearest_cell", target, method, rates, metric, value)
    for kind, key in (("untouched", "untouched"), ("upper_bound", "upper_bounds")):
        for target, metric, value in known[key]:
            yield Published(kind, target, None, (), metric, value)


def _ours(runs: pd.DataFrame, entry: Published) -> Ours:
    if entry.metric not in runs:
        return Ours(0, None, f"no {entry.metric} in these records")
    if entry.target is not None:
        runs = runs[runs["target"] == entry.target]
    values = column(runs, entry.metric)
    if entry.method is None:
        defined = values[np.isfinite(values)]
        if not defined.size:
            return Ours(0, None, f"{entry.metric} is undefined in all runs")
        return Ours(int(defined.size), float(defined.mean()))
    own = (runs["method"] == entry.method).to_numpy() & np.isfinite(values)
    rates = column(runs, "learning_rate")
    by_rate = {
        rate: values[own & np.isclose(rates, rate, rtol=SAME_RATE, atol=0)] for rate in entry.rates
    }
    return _of_cells(entry, {rate: cell for rate, cell in by_rate.items() if cell.size})


def _of_cells(entry: Published, cells: Mapping[float, Floats]) -> Ours:
    n = sum(int(cell.size) for cell in cells.values())
    means = {rate: float(cell.mean()) for rate, cell in cells.items()}
    if entry.kind == "nearest_cell" and means:
        rate = min(means, key=lambda rate: abs(means[rate] - entry.value))
        return Ours(int(cells[rate].size), means[rate], rate=rate)
    if len(means) < len(entry.rates):
        several = entry.kind == "grid_mean"
        reason = f"{len(means)} of {len(entry.rates)} cells" if several else "no such cell"
        return Ours(n, None, reason)
    return Ours(n, float(np.mean(list(means.values()))))


def _within(entry: Published, diff: float | None, tolerance: float | None) -> bool | None:
    if diff is None or (tolerance is None and entry.kind != "upper_bound"):
        return None
    return diff < 0 if tolerance is None else abs(diff) <= tolerance


def _compare(entry: Published, ours: Ours, tolerance: float | None) -> dict[str, Any]:
    diff = None if ours.value is None else ours.value - entry.value
    within = _within(entry, diff, tolerance)
    return {
        "kind": entry.kind,
        "target": entry.target,
        "method": entry.method,
        "lr": entry.rates[0] if entry.kind == "cell" else ours.rate,
        "metric": entry.metric,
        "n": ours.n,
        "ours": ours.value,
        "theirs": entry.value,
        "diff": diff,
        "tolerance": tolerance,
        "within": within,
        "reason": ours.reason or ("no tolerance stated" if within is None else None),
    }


__all__ = ["Ours", "Published", "published", "rows"]
