"""Is the forecast before training any good? On left-out targets, methods and backbones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.beforehand import OF_TARGET, OutcomeName, Taught
from clipdrift.analysis.questions.early_warning import compared
from clipdrift.analysis.questions.forecast_trial import Against, against
from clipdrift.analysis.questions.held_out import (
    Held,
    LeftOut,
    Numbers,
    Split,
    Why,
    hold_out,
    left_out,
)
from clipdrift.analysis.questions.lessons import Cell, labels_of, lessons_of
from clipdrift.analysis.rows import Row, Said, key, sure
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.forecast_model import Forecast
from clipdrift.errors import ClipdriftError
from clipdrift.records import RunRecord

SPLITS: tuple[Split, ...] = ("target", "method", "backbone")
LEAST = 2
"""Without which nothing is learned: one to fit, one to choose the penalty by."""
Rival = Literal[
    "the mean",
    "the same method and rate on other targets",
    "the nearest target",
    "the early-epoch forecast",
]
USUAL: Rival = "the same method and rate on other targets"
OUTCOMES: dict[OutcomeName, str] = {"gain_pp": "gain of accuracy", "retention_pct": "retention"}


@dataclass(frozen=True, kw_only=True)
class BeforeTrial(Row):
    """How well cells are forecast before training, beside a rival, on cells it has not seen.

    Errors are mean absolute ones over cells, in percentage points, on the cells that have both.

    outcome: see `Expected`
    n_folds: groups that were left out in turn
    n: cells forecast by both
    rival: mean of the cells learned from; mean of the same method and rate on other targets (of all
        methods where its own is left out); the most alike cell of the target whose embeddings are
        most alike; the forecast from an early epoch, on the same cells left out
    coverage: share of all cells of the split inside their interval; null of a left-out method or
        backbone, of which no interval is given
    """

    outcome: Annotated[OutcomeName, key("Outcome", "words")]
    split: LeftOut
    rival: Annotated[Rival, key("Beside")]
    n_folds: Annotated[int, Said("count", "Groups")]
    n: Annotated[int, Said("count", "Cells")]
    mae: Annotated[float | None, Said("one", "Error (pp)")] = None
    mae_rival: Annotated[float | None, Said("one", "its error")] = None
    against: Annotated[
        Against | None,
        sure(
            "Forecast is",
            "name",
            words="by the 95 % t interval over targets of the difference of errors",
        ),
    ] = None
    coverage: Annotated[float | None, sure("Covered", "two")] = None
    median_width: Annotated[float | None, sure("Width (pp)", "one")] = None
    reason: Why = None


def trials(
    data: Taught, runs: Sequence[tuple[str, RunRecord]], level: float, after_epoch: int
) -> Iterator[BeforeTrial]:
    """A row for each split and rival.

    Args:
        runs: the records, each with the name of its folder, for the forecast from an early epoch.
    """
    for split in SPLITS:
        groups = labels_of(data.cells, split)
        held = left_out(
            split, groups, data.targets, data.outcome, partial(_others, data, level), least=LEAST
        )
        rivals: dict[Rival, Floats] = {
            "the mean": held.mean,
            USUAL: _usual(data, groups),
            "the nearest target": _nearest(data, groups),
        }
        if data.name == "retention_pct":
            rivals["the early-epoch forecast"] = _early(data, runs, split, level, after_epoch)
        yield from (_beside(data, held, name, told) for name, told in rivals.items())


def _beside(data: Taught, held: Held, rival: Rival, told: Floats) -> BeforeTrial:
    both = held.there & np.isfinite(told)
    ours, theirs = (np.abs(one - data.outcome) for one in (held.forecast.kept, told))
    coverage = width = None
    if held.bounded:
        there, (_, low, high) = held.there, held.forecast
        coverage = float(((low <= data.outcome) & (data.outcome <= high))[there].mean())
        median = float(np.median(high[there] - low[there]))
        width = median if np.isfinite(median) else None
    return BeforeTrial(
        outcome=data.name,
        split=held.split,
        rival=rival,
        n_folds=held.n_folds,
        n=int(both.sum()),
        mae=float(ours[both].mean()) if both.any() else None,
        mae_rival=float(theirs[both].mean()) if both.any() else None,
        against=against(data.targets, both, theirs - ours),
        coverage=coverage,
        median_width=width,
        reason=held.reason,
    )


def _others(data: Taught, level: float, out: NDArray[np.bool_]) -> Forecast:
    asked = [one for one, left in zip(data.known, out, strict=True) if left]
    return data.forecast(~out, asked, level)


def _usual(data: Taught, groups: Numbers) -> Floats:
    """`Taught.usual` of each cell without its group."""
    found = [
        data.usual([cell], groups != own) for cell, own in zip(data.cells, groups, strict=True)
    ]
    return np.concatenate(found)


def _nearest(data: Taught, groups: Numbers) -> Floats:
    """The outcome of the cell most alike in the target most alike, outside of each cell's group.

    By distance of the signals of `OF_TARGET`, each in units of its SD; then by method, transfer
    set and rate. NaN where nothing is outside.
    """
    alike = np.array([[one.signals[name] for name in OF_TARGET] for one in data.known])
    spread = alike.std(axis=0)
    alike = (alike / np.where(spread > 0, spread, 1.0)).round(9)
    methods = labels_of(data.cells, "method")
    sets = np.array([one.transfer or "" for one in data.known])
    rates = data.rates
    told = np.full(len(groups), np.nan)
    for i in range(len(groups)):
        rows = np.flatnonzero((groups != groups[i]) & (data.targets != data.targets[i]))
        if len(rows):
            far = np.linalg.norm(alike[rows] - alike[i], axis=1).round(9)
            order = (
                abs(rates[rows] - rates[i]),
                sets[rows] != sets[i],
                methods[rows] != methods[i],
            )
            told[i] = data.outcome[rows[np.lexsort((*order, far))[0]]]
    return told


def _early(
    data: Taught,
    runs: Sequence[tuple[str, RunRecord]],
    split: Split,
    level: float,
    after_epoch: int,
) -> Floats:
    """The forecast from an early epoch of each cell, set by set; NaN where it cannot be had."""
    told = np.full(len(data.known), np.nan)
    for transfer in sorted({one.transfer or "" for one in data.known}):
        mine = [(place, run) for place, run in runs if transfer in run.result.transfer]
        found = _early_of(mine, transfer, split, level, after_epoch)
        for i, one in enumerate(data.known):
            if one.transfer == transfer:
                told[i] = found.get(one.cell, np.nan)
    return told


def _early_of(
    runs: Sequence[tuple[str, RunRecord]],
    transfer: str,
    split: Split,
    level: float,
    after_epoch: int,
) -> Mapping[Cell, float]:
    try:
        data = lessons_of(runs, where="records", after_epoch=after_epoch, transfers=[transfer])
    except ClipdriftError:  # too few, or without such readings
        return {}
    held = hold_out(data, split, level)
    cells: dict[Cell, list[float]] = {}
    for cell, value in zip(data.cells, held.forecast.kept.tolist(), strict=True):
        cells.setdefault(cell, []).append(value)
    return {cell: float(np.mean(values)) for cell, values in cells.items()}


def verdict(rows: Iterable[BeforeTrial], level: float) -> Iterator[str]:
    """Of each outcome, whether the forecast is worth its trouble on a target it has not seen."""
    by_outcome: dict[OutcomeName, list[BeforeTrial]] = {}
    for row in rows:
        by_outcome.setdefault(row.outcome, []).append(row)
    for name, mine in by_outcome.items():
        new = [row for row in mine if row.split == "target" and row.n]
        words = list(compared((row.rival, row.split, row.against) for row in new))
        held = next((row.coverage for row in new if row.coverage is not None), None)
        if held is not None:
            words.append(f"its {level:.0%} interval held {held:.0%} of cells there")
        if words:
            yield f"The forecast of {OUTCOMES[name]} {'; '.join(words)}."
        if any(row.rival == USUAL and row.against != "better" for row in new):
            yield (
                f"On a new target the untouched model tells nothing clear of {OUTCOMES[name]} "
                f"beyond {USUAL}."
            )
