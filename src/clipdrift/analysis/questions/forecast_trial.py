"""Do early readings foretell final retention better than what costs nothing? Validated, priced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.held_out import Held, LeftOut, OfBackbone, Why
from clipdrift.analysis.questions.lessons import Cell, Lessons
from clipdrift.analysis.rows import Row, RunIds, Said, sure
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.intervals import t_ci
from clipdrift.analysis.statistics.ranks import spearman

LEVEL = 0.8
Against = Literal["better", "worse", "no clear difference"]
Better = Annotated[
    Against | None,
    sure(
        "Forecast is",
        "name",
        words="than this, by the 95 % t interval over cells of the difference of errors",
    ),
]


@dataclass(frozen=True, kw_only=True)
class EarlyWarning(Row):
    """How well drift and retention after the first epoch foretell final retention.

    Of runs that the forecast has not seen; final retention is that of the transfer dataset on which
    a run keeps least. Errors are mean absolute ones in percentage points of retention.

    n_folds: groups that were left out in turn
    n: runs forecast
    mae: of final retention
    mae_mean: that of the mean of the runs that were learned from
    mae_epoch_retention: that of retention as it was read after the epoch, on the labelled images
        that runs read anyway
    n_lower_rate: runs whose cell has one at a lower rate
    mae_there: of the forecast on those runs
    mae_lower_rate: that of the mean retention of the same method and target at the next lower rate
    spearman: rank correlation of forecast and final retention, pooled
    spearman_within: its mean within target x method
    n_groups: target x method groups of that mean
    coverage: share of runs inside their interval; null of a left-out method or backbone, of which
        no interval is given
    median_width: median width of the interval
    """

    table: ClassVar = "early_warning"

    backbone: OfBackbone = None
    split: LeftOut
    n_folds: Annotated[int, Said("count")]
    n: Annotated[int, Said("count", "Runs")]
    mae: Annotated[float | None, Said("one", "Error (pp)")] = None
    mae_mean: Annotated[float | None, Said("one", "of the mean")] = None
    against_mean: Better = None
    mae_epoch_retention: Annotated[float | None, Said("one", "of retention then")] = None
    against_epoch_retention: Better = None
    n_lower_rate: Annotated[int, Said("count")] = 0
    mae_there: Annotated[float | None, Said("one", "Error there (pp)")] = None
    mae_lower_rate: Annotated[float | None, Said("one", "of next lower rate")] = None
    against_lower_rate: Better = None
    spearman: Annotated[float | None, Said("two", "ρ")] = None
    spearman_within: Annotated[float | None, Said("two", "within")] = None
    n_groups: Annotated[int, Said("count")] = 0
    coverage: Annotated[float | None, sure("Covered", "two")] = None
    median_width: Annotated[float | None, sure("Width (pp)", "one")] = None
    run_ids: RunIds = field(default_factory=list)
    reason: Why = None


def validation(data: Lessons, held: Held) -> EarlyWarning:
    """How good forecasts of left-out runs are, beside three that cost nothing.

    The mean of the runs learned from; retention after the early epoch, where it was read; the mean
    retention of the same method and target at the next lower rate, on the runs that have one.
    """
    there = held.there
    row = EarlyWarning(
        split=held.split, n_folds=held.n_folds, n=int(there.sum()), reason=held.reason
    )
    if not there.any():
        return row
    error = np.abs(held.forecast.kept - data.kept)
    lower = next_lower_rate(data)
    both = there & np.isfinite(lower)
    within = _spearman_within(data, held.forecast.kept, there)
    early = data.early_kept
    read = np.zeros_like(there) if early is None else there
    of_mean, of_epoch, of_lower = (
        _rival(data, used, error, told)
        for used, told in (
            (there, held.mean),
            (read, data.kept if early is None else early),
            (both, lower),
        )
    )
    unread = "most runs have no retention after the early epoch" if early is None else None
    row = replace(
        row,
        mae=float(error[there].mean()),
        mae_mean=of_mean.mae,
        against_mean=of_mean.against,
        mae_epoch_retention=of_epoch.mae,
        against_epoch_retention=of_epoch.against,
        n_lower_rate=int(both.sum()),
        mae_there=float(error[both].mean()) if both.any() else None,
        mae_lower_rate=of_lower.mae,
        against_lower_rate=of_lower.against,
        spearman=spearman(held.forecast.kept[there], data.kept[there]).rho,
        spearman_within=float(np.mean(within)) if within else None,
        n_groups=len(within),
    )
    return _bounded(row, data, held, unread)


class _Rival(NamedTuple):
    """The error of another forecast, and whether ours is better."""

    mae: float | None
    against: Against | None


def _rival(data: Lessons, used: NDArray[np.bool_], error: Floats, told: Floats) -> _Rival:
    theirs = np.abs(told - data.kept)
    mae = float(theirs[used].mean()) if used.any() else None
    return _Rival(mae, against(data.labels(*Cell._fields), used, theirs - error))


def _bounded(row: EarlyWarning, data: Lessons, held: Held, unread: str | None) -> EarlyWarning:
    """With how often intervals hold what they are of, and their median width."""
    reasons = [row.reason]
    if held.bounded:
        there, (_, low, high) = held.there, held.forecast
        width = float(np.median(high[there] - low[there]))
        finite = bool(np.isfinite(width))
        inside = ((low <= data.kept) & (data.kept <= high))[there]
        row = replace(row, coverage=float(inside.mean()), median_width=width if finite else None)
        reasons.append(None if finite else "most intervals are unbounded: too few cells")
    return replace(row, reason="; ".join(filter(None, [*reasons, unread])) or None)


def next_lower_rate(data: Lessons) -> Floats:
    """Mean retention of the same method and target at the next lower rate, (n,); NaN at the lowest.

    What a user has who sweeps the rates upwards: it costs no forecast.
    """
    kept: dict[Cell, list[float]] = {}
    for cell, value in zip(data.cells, data.kept.tolist(), strict=True):
        kept.setdefault(cell, []).append(value)
    before = {
        cell: float(np.mean(kept[lower]))
        for lower, cell in pairwise(sorted(kept))
        if lower[:4] == cell[:4]
    }
    return np.array([before.get(cell, np.nan) for cell in data.cells])


def against(clusters: NDArray[np.intp], used: NDArray[np.bool_], gain: Floats) -> Against | None:
    """Whether a gain, averaged within each cluster, differs from zero over clusters."""
    means = [float(gain[used & (clusters == name)].mean()) for name in np.unique(clusters[used])]
    interval = t_ci(means)
    if interval.low is None or interval.high is None:
        # Gains that do not vary, as of a forecast that is the mean itself, show nothing.
        return None if len(means) < 2 else "no clear difference"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "no clear difference"


def _spearman_within(data: Lessons, values: Floats, used: NDArray[np.bool_]) -> list[float]:
    """Rank correlation with final retention within target x method, where it is defined."""
    labels = data.labels("folder", "backbone", "target", "method")
    groups = (np.flatnonzero((labels == name) & used) for name in np.unique(labels))
    found = (spearman(values[rows], data.kept[rows]).rho for rows in groups)
    return [rho for rho in found if rho is not None]
