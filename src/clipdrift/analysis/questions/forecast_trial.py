"""Do early readings foretell final retention better than what costs nothing? Validated, priced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.lessons import MIN_CELLS, Cell, Lessons
from clipdrift.analysis.rows import Row, RunIds, Said, key, sure
from clipdrift.analysis.statistics.columns import Floats, size_of
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.intervals import t_ci
from clipdrift.analysis.statistics.ranks import spearman
from clipdrift.early_warning.forecast import KEPT, NO_INTERVAL_OF, Forecast, Saved
from clipdrift.errors import Fault, SpecError

LEVEL = 0.8
LIMITS = (50.0, 80.0, 90.0, 95.0)
Split = Literal["cell", "target", "method", "backbone"]
SPLITS: tuple[Split, ...] = ("cell", "target", "method", "backbone")
"""What is left out at a time: what the forecast is told nothing about."""
MAX_CELL_FOLDS = 20


def check_asked(after_epoch: int, level: float, limits: Sequence[float]) -> None:
    """Refuse an epoch, a coverage or limits (both in percent) that make no sense.

    Raises:
        SpecError: all faults at once.
    """
    faults = []
    if after_epoch < 1:
        rule = "an epoch from 1"
        faults.append(
            Fault("--after-epoch", rule, str(after_epoch), "Epoch 0 is the untouched model")
        )
    if not 50 < level < 100:
        step = f"Write {100 * level:g}" if 0.5 < level < 1 else "Give one such as 80"
        faults.append(Fault("--level", "percent between 50 and 100", f"{level:g}", step))
    faults += [
        Fault("--stop-below", "a retention in percent above 0", f"{limit:g}", "Give one such as 90")
        for limit in limits
        if not 0 < limit <= 1000
    ]
    if faults:
        raise SpecError(faults)


Against = Literal["better", "worse", "not told apart"]
OfBackbone = Annotated[str | None, key("Backbone", words="null: all of them together")]
LeftOut = Annotated[Split, key("Left out", words="what forecasts were told nothing about")]
Better = Annotated[
    Against | None,
    sure(
        "Forecast is",
        "name",
        words="than this, by the 95 % t interval over cells of the difference of errors",
    ),
]
Why = Annotated[str | None, Said(words="why something is null, or runs are missing")]


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


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Row):
    """What ending runs would have done whose whole interval lies below a limit.

    limit_pct: retention in percent below which runs end
    n: runs forecast
    n_below: runs that ended below the limit
    n_stopped: runs whose upper bound lies below it
    n_right: of those, runs that ended below it
    n_wrong: of those, runs that kept it
    seconds_saved: training time that would not have been spent; null where none is recorded
    seconds_saved_pct: its share
    steps_saved_pct: share of training steps
    """

    table: ClassVar = "early_stopping"

    backbone: OfBackbone = None
    split: LeftOut
    limit_pct: Annotated[float, key("Limit (%)", "one")]
    n: Annotated[int, Said("count", "Runs")]
    n_below: Annotated[int, Said("count", "Below it")]
    n_stopped: Annotated[int, Said("count", "Stopped")]
    n_right: Annotated[int, Said("count", "rightly")]
    n_wrong: Annotated[int, Said("count", "wrongly")]
    seconds_saved: Annotated[float | None, Said("one", "Saved (s)")]
    seconds_saved_pct: Annotated[float | None, Said("one", "Saved (%)")]
    steps_saved_pct: Annotated[float | None, Said("one", "Steps (%)")]
    run_ids: RunIds = field(default_factory=list)
    reason: Why


class Held(NamedTuple):
    """Forecasts of runs by models that did not see their cell, target, method or backbone.

    `mean` (n,) is the mean retention of the runs that each model saw. NaN, and out of `there`,
    where a fold leaves too few cells to learn from. A method or backbone that a model has not
    learned from gets no interval: its ends are NaN.
    """

    split: Split
    n_folds: int
    forecast: Forecast
    mean: Floats
    there: NDArray[np.bool_]
    reason: str | None

    @property
    def bounded(self) -> bool:
        """Whether the forecasts have an interval, so that a run may be stopped by one."""
        return self.split not in NO_INTERVAL_OF and bool(self.there.any())


def hold_out(data: Lessons, split: Split, level: float) -> Held:
    """Forecast every run from the others, leaving out one group at a time."""
    cells = data.labels(*Cell._fields)
    groups = cells % MAX_CELL_FOLDS if split == "cell" else data.labels(split)
    n = len(data.kept)
    empty = np.full((4, n), np.nan)
    names = np.unique(groups)
    there = np.zeros(n, dtype=bool)
    for name in names if len(names) > 1 else []:
        out = groups == name
        if len(np.unique(cells[~out])) < min(MIN_CELLS, len(np.unique(cells)) - 1):
            continue
        model = fit(data.moved[~out], data.kept[~out], cells[~out])
        empty[:3, out] = model.forecast(data.moved[out], level)
        empty[3, out] = data.kept[~out].mean()
        there |= out
    reasons = []
    if len(names) < 2:
        reasons.append(f"one {split} in these records")
    elif not there.all():
        reasons.append(
            f"{int((~there).sum())} runs not forecast: too few cells without their {split}"
        )
    if split in NO_INTERVAL_OF:
        empty[1:3] = np.nan
        if there.any():
            reasons.append(f"no interval of a {split} that the forecast has not learned from")
    reason = "; ".join(reasons) or None
    return Held(split, len(names), Forecast(*empty[:3]), empty[3], there, reason)


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
    within = [
        rho
        for rows in _groups(data, there)
        if (rho := spearman(held.forecast.kept[rows], data.kept[rows]).rho) is not None
    ]
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
    return _Rival(mae, _against(data, used, theirs - error))


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


def _against(data: Lessons, used: NDArray[np.bool_], gain: Floats) -> Against | None:
    """Whether a gain, averaged over the runs of each cell, differs from zero over cells."""
    cells = data.labels(*Cell._fields)
    means = [float(gain[used & (cells == name)].mean()) for name in np.unique(cells[used])]
    interval = t_ci(means)
    if interval.low is None or interval.high is None:
        # Gains that do not vary, as of a forecast that is the mean itself, show nothing.
        return None if len(means) < 2 else "not told apart"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "not told apart"


def _groups(data: Lessons, used: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    labels = data.labels("folder", "backbone", "target", "method")
    for name in np.unique(labels):
        yield np.flatnonzero((labels == name) & used)


@dataclass(frozen=True)
class EarlySignal:
    """How an early signal goes with final retention: pooled, and within target x method."""

    signal: str
    spearman: float | None
    spearman_within: float | None


def signal_rows(data: Lessons) -> list[EarlySignal]:
    """Spearman correlation of each early signal with final retention, pooled and within.

    A drift by its value with sign and by its size, which is what the forecast reads.
    """
    forms: list[tuple[str, Floats]] = []
    for i, name in enumerate(data.signals):
        if name == KEPT:
            forms.append((name, data.values[:, i]))
        else:
            drift = f"drift.{name}"
            forms += [(drift, data.values[:, i]), (size_of(drift), data.moved[:, i])]
    everyone = np.ones(len(data.kept), dtype=bool)
    out = []
    for name, values in forms:
        found = (spearman(values[rows], data.kept[rows]).rho for rows in _groups(data, everyone))
        within = [rho for rho in found if rho is not None]
        pooled = spearman(values, data.kept).rho
        mean = float(np.mean(within)) if within else None
        out.append(EarlySignal(name, pooled, mean))
    return out


def stopping(data: Lessons, held: Held, limit: float) -> EarlyStopping:
    """What ending runs whose upper bound lies below a limit would have done to these runs.

    Needs forecasts with an interval (`held.bounded`).
    """
    there = held.there
    stopped = there & (held.forecast.high < limit)
    saved = (data.steps - data.early_steps)[stopped].sum()
    n, total = int(there.sum()), float(data.steps[there].sum())
    seconds, whole = (data.seconds - data.early_seconds)[stopped].sum(), data.seconds[there].sum()
    return EarlyStopping(
        split=held.split,
        limit_pct=limit,
        n=n,
        n_below=int((there & (data.kept < limit)).sum()),
        n_stopped=int(stopped.sum()),
        n_right=int((stopped & (data.kept < limit)).sum()),
        n_wrong=int((stopped & (data.kept >= limit)).sum()),
        seconds_saved=float(seconds) if whole else None,
        seconds_saved_pct=float(100 * seconds / whole) if whole else None,
        steps_saved_pct=float(100 * saved / total) if total else None,
        reason=held.reason,
    )


def forecast(
    data: Lessons, *, after_epoch: int, level: float = LEVEL, limits: Sequence[float] = LIMITS
) -> tuple[dict[str, Any], Saved]:
    """Validate a forecast on the runs it is made from, price the stopping, and fit it to all.

    Returns:
        `n_runs`, `n_cells`, `n_left_out`, `after_epoch`, `level`, `transfers`, and the rows of
        `signals`, `validation` and `stopping`; and the model for runs to come.
    """
    held = [hold_out(data, split, level) for split in SPLITS]
    n_cells = len(set(data.cells))
    told = {
        "n_runs": len(data.kept),
        "n_cells": n_cells,
        "n_left_out": data.n_left_out,
        "after_epoch": after_epoch,
        "level": level,
        "transfers": data.transfers,
        "signals": signal_rows(data),
        "validation": [validation(data, one) for one in held],
        "stopping": [stopping(data, one, limit) for one in held if one.bounded for limit in limits],
    }
    return told, fitted(data, after_epoch=after_epoch, level=level)


def fitted(data: Lessons, *, after_epoch: int = 1, level: float = LEVEL) -> Saved:
    """The forecast for runs to come, from all runs there are."""
    return Saved(
        fit(data.moved, data.kept, data.labels(*Cell._fields)),
        level,
        after_epoch,
        data.signals,
        data.transfers,
        data.epochs,
        sorted({cell.backbone for cell in data.cells}),
        sorted({cell.method for cell in data.cells}),
        {
            "n_runs": len(data.kept),
            "n_cells": len(set(data.cells)),
            "records_hash": data.records_hash,
        },
    )
