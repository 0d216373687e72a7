"""What the command `forecast` gives: the trial of a forecast."""

from __future__ import annotations

from typing import Any

from clipdrift.analysis.questions.forecast_trial import LEVEL, validation
from clipdrift.analysis.questions.held_out import SPLITS, hold_out
from clipdrift.analysis.questions.lessons import Lessons
from clipdrift.errors import Fault, SpecError


def check_asked(after_epoch: int, level: float) -> None:
    """Refuse an epoch or a coverage (in percent) that makes no sense.

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
    if faults:
        raise SpecError(faults)


def forecast(data: Lessons, *, after_epoch: int, level: float = LEVEL) -> dict[str, Any]:
    """Validate a forecast on runs that it has not seen.

    Returns:
        `n_runs`, `n_cells`, `n_left_out`, `after_epoch`, `level`, `transfers`, and the rows of
        `validation`.
    """
    held = [hold_out(data, split, level) for split in SPLITS]
    n_cells = len(set(data.cells))
    return {
        "n_runs": len(data.kept),
        "n_cells": n_cells,
        "n_left_out": data.n_left_out,
        "after_epoch": after_epoch,
        "level": level,
        "transfers": data.transfers,
        "validation": [validation(data, one) for one in held],
    }
