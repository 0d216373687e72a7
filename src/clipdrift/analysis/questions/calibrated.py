"""How far zero-shot confidence can be trusted, before and after: where sets were read in full."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.rows import Count, Method, Metric, OfCell, Reason, RunIds, Said, key, sure
from clipdrift.analysis.statistics.cell_means import (
    cells,
    matrix,
    number,
    summarise,
    why_incomplete,
)
from clipdrift.analysis.statistics.columns import Floats

READ = {"ece": "ece_refit", "nll": "nll_refit", "brier": None}
"""What is read -> the same with the temperature that is best on the other half."""
MOST = {"ece": 1.0, "nll": math.inf, "brier": 2.0}


@dataclass(frozen=True, kw_only=True)
class Calibrated(OfCell):
    """Calibration of every transfer set that was read in full, untouched and adapted.

    metric: calibration error, negative log likelihood or Brier score of a transfer dataset
    before: of the untouched model
    now: mean over seeds
    ci_low: 95 % interval of now, over seeds, no further than it can go
    ci_high: its upper end
    refit_before: before, with the temperature refitted
    refit_now: now, with the temperature refitted, mean over seeds
    """

    table: ClassVar = "calibrated"

    method: Method
    learning_rate: Annotated[float, key("LR", "rate")]
    metric: Metric
    n: Count
    before: Annotated[float | None, Said("value", "Before")]
    now: Annotated[float | None, Said("value", "Now")]
    ci_low: Annotated[float | None, sure("95 % interval", "value", upto="ci_high")]
    ci_high: Annotated[float | None, Said("value")]
    refit_before: Annotated[float | None, Said("value", "Refitted, before")]
    refit_now: Annotated[float | None, Said("value", "Refitted, now")]
    run_ids: RunIds
    reason: Reason


def rows(frame: pd.DataFrame) -> list[Calibrated]:
    """One row per cell and number; t interval over seeds.

    Args:
        frame: one row per finished run.
    """
    runs = in_order(frame)
    names = [
        name
        for name in map(str, runs.columns)
        if name.startswith("transfer.") and name.rpartition(".")[2] in READ
    ]
    read = {name: _values(runs, name) for name in names}
    ids = runs["run_id"].to_numpy(dtype=object)
    return [
        row
        for cell, at in cells(runs).items()
        for name, values in read.items()
        if (row := _row(cell._asdict(), name, values[at], ids[at])) is not None
    ]


def _values(runs: pd.DataFrame, name: str) -> Floats:
    """Now and before, and both with the temperature refitted where that is read: columns."""
    place, _, field = name.rpartition(".")
    fields = [field, *filter(None, [READ[field]])]
    columns = [f"{place}.{when}{one}" for one in fields for when in ("", "baseline_")]
    return matrix(runs.reindex(columns=columns), columns)


def _row(
    cell: dict[str, str | float], name: str, values: Floats, ids: NDArray[np.object_]
) -> Calibrated | None:
    field = name.rpartition(".")[2]
    found = summarise(values)
    if not found.n[0]:
        return None
    now, before, *rest = map(number, found.mean)
    refit_now, refit_before = rest or (None, None)
    low, high = number(found.ci_low[0]), number(found.ci_high[0])
    why = [why_incomplete(int(found.n[0]), len(ids), float(found.sd[0]))]
    why += [] if READ[field] else ["no temperature is refitted for it"]
    return Calibrated(
        **cell,  # type: ignore[arg-type]
        metric=name,
        n=int(found.n[0]),
        before=before,
        now=now,
        ci_low=None if low is None else max(0.0, low),
        ci_high=None if high is None else min(MOST[field], high),
        refit_before=refit_before,
        refit_now=refit_now,
        run_ids=ids[np.isfinite(values[:, 0])].tolist(),
        reason="; ".join(filter(None, why)) or None,
    )
