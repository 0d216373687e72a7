"""What each cell reached: mean, SD over seeds and interval of every metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipdrift.analysis.crossed import SEEDS, SEEDS_AND_IMAGES, Crossed, binomial
from clipdrift.analysis.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.frame import CELL_KEY, in_order, metric_columns
from clipdrift.analysis.influence import NOT_RECORDED, Images
from clipdrift.analysis.intervals import ROUNDING, Interval, of_share
from clipdrift.analysis.signals import Floats, column

Positions = NDArray[np.intp]


class CellKey(NamedTuple):
    """Backbone x target x method x learning rate; a method has one role."""

    backbone: str
    target: str
    role: str
    method: str
    lr: float


class Summary(NamedTuple):
    """Per metric, shape (n_metrics,): count, mean, SD (ddof 1), t interval; NaN if undefined.

    Values that do not vary have an SD of exactly 0, and no interval: it would have no width.
    """

    n: NDArray[np.intp]
    mean: Floats
    sd: Floats
    ci_low: Floats
    ci_high: Floats


def rows(
    frame: pd.DataFrame,
    *,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Every metric of every cell over its seeds and images.

    The interval of a mean draws seeds and images: see `crossed`. Where a metric is no mean over
    labelled images, or they are not known, it is mean +- t_{(1+level)/2, n-1} SD / sqrt(n), SD
    with ddof 1, over seeds alone. `interval_over` says which. That of an accuracy is taken on its
    log odds (`of_share`). Both are over the runs in which the metric is defined. Diverged runs are
    not in the frame.

    Args:
        frame: one row per finished run.
        images: which images each of these runs was right on.
        underfit_fraction: share of the best cell's accuracy from which on a cell fits; see `fits`.
        level: coverage.

    Returns:
        One dict per cell and metric: `backbone, target, role, method, lr, fit, metric, n, mean, sd,
        n_images, image_se, ci_low, ci_high, interval_over, run_ids, reason`, in the metric's unit;
        `run_ids` are the runs in which the metric is defined.
    """
    runs = in_order(frame)
    metrics = metric_columns(runs)
    flags = fits(runs, underfit_fraction)
    return [
        {**key._asdict(), "fit": flags[key], **row}
        for key, at in cells(runs).items()
        for row in reached(runs.iloc[at], metrics, images or Images(), level)
    ]


def reached(
    runs: pd.DataFrame, metrics: Sequence[str], images: Images, level: float = 0.95
) -> Iterator[dict[str, Any]]:
    """Every metric over the runs of one cell: fields of a row but for its key."""
    values = matrix(runs, list(metrics))
    ids = runs["run_id"].to_numpy(dtype=object)
    found = summarise(values, level)
    for i, metric in enumerate(metrics):
        n, defined = int(found.n[i]), np.isfinite(values[:, i])
        used = ids[defined].tolist()
        told = _over_images(images, used, metric, values[defined, i], level)
        ends = Interval(number(found.ci_low[i]), number(found.ci_high[i]))
        both = told.error is not None
        if told.error is not None:
            ends = told.error.ci
        if metric.endswith("accuracy"):
            ends = of_share(ends, float(found.mean[i]))
        reasons = [why_incomplete(n, len(ids), float(found.sd[i])), told.reason]
        yield {
            "metric": metric,
            "n": n,
            "mean": number(found.mean[i]),
            "sd": number(found.sd[i]),
            "n_images": told.n_images,
            "image_se": told.error.image_se if told.error else None,
            "ci_low": ends.low,
            "ci_high": ends.high,
            "interval_over": None if ends.low is None else SEEDS_AND_IMAGES if both else SEEDS,
            "run_ids": used,
            "reason": "; ".join(text for text in reasons if text) or None,
        }


class _Told(NamedTuple):
    """What the images of a metric tell; the error is None where it is not known."""

    n_images: int | None
    error: Crossed | None
    reason: str | None


def _over_images(
    images: Images, run_ids: list[str], metric: str, values: Floats, level: float
) -> _Told:
    influence = images.influence(run_ids, metric)
    if influence is not None:
        return _Told(influence.values.shape[1], influence.crossed(level), None)
    n = images.count(run_ids, metric)
    if n is None:
        return _Told(None, None, None)
    if metric.endswith("accuracy"):
        return _Told(n, binomial(values, n, level), None)
    return _Told(n, None, NOT_RECORDED)


def cells(runs: pd.DataFrame) -> dict[CellKey, Positions]:
    """Cell -> positions of its runs, in sorted order of the cells."""
    groups: Mapping[Any, Any] = runs.groupby(CELL_KEY, sort=True).indices
    return {
        CellKey(str(backbone), str(target), str(role), str(method), float(lr)): np.asarray(
            groups[backbone, target, role, method, lr], dtype=np.intp
        )
        for backbone, target, role, method, lr in sorted(groups)
    }


def matrix(runs: pd.DataFrame, metrics: list[str]) -> Floats:
    """Metrics as float64 (n_runs, n_metrics); undefined is NaN."""
    if not metrics:
        return np.empty((len(runs), 0))
    return np.column_stack([column(runs, name) for name in metrics])


def summarise(values: Floats, level: float = 0.95) -> Summary:
    """Mean, SD and t interval of every column over its finite values.

    Args:
        values: (n_runs, n_metrics).

    >>> found = summarise(np.array([[1.0, 2.0], [3.0, np.nan]]))
    >>> found.n.tolist(), found.mean.tolist(), float(found.sd[0]) ** 2
    ([2, 1], [2.0, 2.0], 2.0000000000000004)
    """
    defined = np.isfinite(values)
    n = defined.sum(axis=0)
    filled = np.where(defined, values, 0.0)
    mean = np.where(n > 0, filled.sum(axis=0) / np.maximum(n, 1), np.nan)
    first = np.where(n > 0, np.take_along_axis(values, defined.argmax(axis=0)[None], 0)[0], np.nan)
    same = (np.where(defined, values, first) == first).all(axis=0) & (n > 0)
    mean = np.where(same, first, mean)
    squares = np.where(defined, values - mean, 0.0) ** 2
    sd = np.where(n > 1, np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1)), np.nan)
    sd = np.where(sd <= ROUNDING * np.abs(filled).max(axis=0, initial=0.0), 0.0, sd)
    half = stdtrit(np.maximum(n - 1, 1), (1 + level) / 2) * sd / np.sqrt(np.maximum(n, 1))
    half = np.where(sd > 0, half, np.nan)
    return Summary(n, mean, sd, mean - half, mean + half)


def number(value: float) -> float | None:
    """A float for JSON: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def why_incomplete(n: int, n_runs: int, sd: float) -> str | None:
    """Why a cell's mean, SD or interval is null, or stands on fewer runs than the cell has."""
    texts = []
    if n == 0:
        return f"undefined in all {n_runs} runs" if n_runs > 1 else "undefined in the only run"
    if n < n_runs:
        texts.append(f"undefined in {n_runs - n} of {n_runs} runs")
    if n == 1:
        texts.append("one value: no SD and no interval")
    if sd == 0:
        texts.append("the values do not vary: no interval")
    return "; ".join(texts) or None


__all__ = [
    "CellKey",
    "Summary",
    "cells",
    "matrix",
    "number",
    "reached",
    "rows",
    "summarise",
    "why_incomplete",
]
