"""What the command `forecast` gives: the trial of a forecast, and the forecast for runs to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipdrift.analysis.questions.early_stopping import LIMITS, stopping
from clipdrift.analysis.questions.forecast_trial import LEVEL, spearman_within, validation
from clipdrift.analysis.questions.held_out import SPLITS, hold_out
from clipdrift.analysis.questions.lessons import Cell, Lessons
from clipdrift.analysis.statistics.columns import Floats, size_of
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.ranks import spearman
from clipdrift.early_warning.forecast import KEPT, Saved
from clipdrift.errors import Fault, SpecError


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
        within = spearman_within(data, values, everyone)
        pooled = spearman(values, data.kept).rho
        mean = float(np.mean(within)) if within else None
        out.append(EarlySignal(name, pooled, mean))
    return out


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
