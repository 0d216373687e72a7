"""A forecast of final retention from what a run reads early, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.records.readings import EpochReading

Floats = NDArray[np.float64]
MAX_VALUES = 1_000_000
"""Forecasts times residuals held in memory at a time."""
ROUNDING = 1e-12
KEPT = "retention_pct"
"""Retention after the epoch, on the labelled transfer images that runs read anyway."""
AT_REST = {
    "cka_mean": 1.0,
    "embedding_drift": 0.0,
    "weight_drift_rel": 0.0,
    "cls_entropy_pct": 0.0,
    "projection_drift_rel": 0.0,
    KEPT: 100.0,
}
"""Drift of the probe images and of the weights, and retention, before training."""
SIGNALS = tuple(AT_REST)
NO_INTERVAL_OF = ("method", "backbone")
"""What a forecast must have learned from: of another it says a number and no interval."""


def early_values(reading: EpochReading, transfers: Sequence[str]) -> dict[str, float]:
    """What a reading has of `SIGNALS`, undefined ones left out.

    Args:
        transfers: retention is that of the one on which the model keeps least; it needs all.
    """
    found = {name: reading.drift.get(name) for name in SIGNALS if name != KEPT}
    kept = [r.retention_pct for name in transfers if (r := reading.transfer.get(name))]
    known = [value for value in kept if value is not None]
    found[KEPT] = min(known) if transfers and len(known) == len(transfers) else None
    return {name: v for name, v in found.items() if v is not None and np.isfinite(v)}


def movement(values: Floats, signals: Sequence[str]) -> Floats:
    """How far signals are from their value at rest, shape (n, n_signals).

    Of a drift its size, 0 or more; of retention what was lost, below 0 where more is kept.

    >>> movement(np.array([[0.9, -3.0, 80.0]]), ["cka_mean", "cls_entropy_pct", KEPT]).round(6)
    array([[ 0.1,  3. , 20. ]])
    """
    rest = np.array([AT_REST[name] for name in signals])
    return np.where([name == KEPT for name in signals], rest - values, np.abs(values - rest))


class Line(NamedTuple):
    """kept = intercept - slopes . moved, slopes 0 or more, held within what was seen."""

    intercept: float
    slopes: list[float]
    low: float
    high: float

    def at(self, moved: Floats) -> Floats:
        """Retention in percent for movements of shape (n, n_signals)."""
        kept = self.intercept - moved @ np.array(self.slopes)
        return np.asarray(np.clip(kept, self.low, self.high))


class Forecast(NamedTuple):
    """Retention in percent, or what else is forecast, and the ends of its interval: shape (n,)."""

    kept: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Model:
    """A fitted forecast.

    line: fitted to all cells. lines: to all but those of one fold. Residual i is |kept - lines[
    folds[i]]| of a run that this line has not seen, and stands for `weights[i]` of all cells.
    """

    line: Line
    lines: list[Line]
    folds: list[int]
    residuals: list[float]
    weights: list[float]
    penalty: float

    def forecast(self, moved: Floats, level: float) -> Forecast:
        """Forecast with a CV+ interval.

        The upper end is the `level` quantile of lines[folds[i]](moved) + residuals[i], the lower
        end the 1 - level quantile of the differences. Each cell weighs 1 / (n_cells + 1), shared
        by its runs, and the missing cell lies at infinity. The interval holds a run of another
        cell of the same kind with a probability of at least 2 level - 1, and of about `level`
        in practice; runs of another target, method or backbone are not of the same kind.

        Args:
            moved: (n, n_signals), as of `movement`.
            level: in (0, 1).

        Reference: Barber, Candes, Ramdas & Tibshirani (2021), Annals of Statistics 49(1), CV+;
        ours folds by cells and weighs them equally.
        """
        every = np.array([line.at(moved) for line in self.lines])
        spread, weights = np.array(self.residuals)[:, None], np.array(self.weights)
        low, high = np.empty(len(moved)), np.empty(len(moved))
        step = max(1, MAX_VALUES // len(self.folds))
        for start in range(0, len(moved), step):
            part = slice(start, start + step)
            at = every[:, part][self.folds]
            high[part] = weighted_quantile(at + spread, weights, level)
            low[part] = -weighted_quantile(spread - at, weights, level)
        return Forecast(self.line.at(moved), low, high)


def weighted_quantile(values: Floats, weights: Floats, level: float) -> Floats:
    """Per column the least value with at least `level` of the weight at or below it.

    Args:
        values: (n, m). weights: (n,), of sum below 1; the rest lies at infinity.

    >>> values = np.array([[1.0], [2.0], [3.0]])
    >>> [float(weighted_quantile(values, np.full(3, 0.25), q)[0]) for q in (0.5, 0.75, 0.8)]
    [2.0, 3.0, inf]
    """
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weights[order], axis=0) >= level - ROUNDING
    ordered = np.take_along_axis(values, order, axis=0)
    first = np.take_along_axis(ordered, below.argmax(axis=0)[None], axis=0)[0]
    return np.where(below.any(axis=0), first, np.inf)
