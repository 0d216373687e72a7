"""Before training: what cells are expected to gain and keep, learned from studies that were run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.held_out import Numbers
from clipdrift.analysis.questions.lessons import Cell, labels_of
from clipdrift.analysis.rows import LearningRate, Reason, Row, Said, key
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.forecast_model import Forecast
from clipdrift.errors import Fault, RecordError
from clipdrift.records import RunRecord
from clipdrift.records.beforehand import Beforehand
from clipdrift.spec import RunConfig

OutcomeName = Literal["gain_pp", "retention_pct"]
OF_TARGET = ("iimm", "silhouette", "margin", "above_chance")
OF_CELL = ("log_dose", "log_parameters", "log_gradient", "leading_share")
OF_TRANSFER = ("image_distance", "text_cosine", "transfer_above_chance", "alignment")
SIGNALS: dict[OutcomeName, tuple[str, ...]] = {
    "gain_pp": (*OF_TARGET, *OF_CELL),
    "retention_pct": (*OF_TARGET, *OF_CELL, *OF_TRANSFER),
}
"""What each outcome is learned from. log_dose: log10 of learning rate times steps."""
ROOM = ("most_lost", "most_gained")
"""What the untouched model's accuracy on the target leaves to lose and to gain, as fractions."""


class Known(NamedTuple):
    """A cell beside a transfer set, or alone: what is known before training, and its outcome.

    outcome: mean over seeds; NaN where it was not run, or is undefined.
    """

    cell: Cell
    transfer: str | None
    signals: dict[str, float]
    outcome: float = math.nan


def of_runs(place: str, records: Iterable[RunRecord], before: Beforehand) -> list[Known]:
    """Cells of the matched runs of a folder that have signals."""
    cells: dict[Cell, list[RunRecord]] = {}
    for r in records:
        cell = Cell(place, r.backbone, r.target, r.method, r.learning_rate)
        cells.setdefault(cell, []).append(r)
    return [
        known._replace(outcome=_mean(_outcome(r, known.transfer) for r in cells[known.cell]))
        for known in _known(cells, before)
    ]


def of_plan(runs: Iterable[RunConfig], before: Beforehand) -> list[Known]:
    """Cells of a study that was not run and have signals, in its order."""
    cells = [
        Cell("", before.backbone, run.target.name, run.method.name, run.learning_rate)
        for run in runs
        if run.method.role == "matched"
    ]
    return list(_known(dict.fromkeys(cells), before))


def _known(cells: Iterable[Cell], before: Beforehand) -> Iterator[Known]:
    for cell in cells:
        for row in before.rows:
            if (row.target, row.method) == (cell.target, cell.method):
                found = {k: v for k, v in row.signals.items() if v is not None}
                found["log_dose"] = math.log10(cell.learning_rate * row.steps)
                yield Known(cell, row.transfer, found)


def _outcome(record: RunRecord, transfer: str | None) -> float | None:
    result = record.result
    if transfer is not None:
        kept = result.transfer.get(transfer)
        return None if kept is None else kept.retention_pct
    read, reached = result.target_zero_shot, result.test_score
    if read is None or read.baseline_score is None or reached is None:
        return None
    return 100 * (reached - read.baseline_score)


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([math.nan if value is None else value for value in values]))


class Taught(NamedTuple):
    """All cells with an outcome: values (n, n_signals), outcome (n,), targets (n,) by number."""

    name: OutcomeName
    known: list[Known]
    values: Floats
    outcome: Floats

    @property
    def cells(self) -> list[Cell]:
        return [one.cell for one in self.known]

    @property
    def targets(self) -> Numbers:
        """Number of each cell's target: what counts as one in an interval."""
        return labels_of(self.cells, "target")

    @property
    def rates(self) -> Floats:
        """log10 of the learning rate, (n,)."""
        return np.log10([cell.learning_rate for cell in self.cells])

    def usual(self, cells: Sequence[Cell], seen: NDArray[np.bool_]) -> Floats:
        """What cells of their method come to at their rate on other targets, (len(cells),).

        Means over the cells seen, linear in log rate between rates; of a method that was not seen
        over those of all methods; NaN where no other target was seen.

        Args:
            seen: (n,) which of these may be used.
        """
        methods, targets = (
            np.array([getattr(own, name) for own in self.cells]) for name in ("method", "target")
        )
        told = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            rows = seen & (targets != cell.target)
            mine = rows & (methods == cell.method)
            rows = mine if mine.any() else rows
            at = np.unique(self.rates[rows])
            means = [self.outcome[rows & (self.rates == rate)].mean() for rate in at]
            if len(at):
                told[i] = np.interp(np.log10(cell.learning_rate), at, means)
        return told

    def forecast(self, seen: NDArray[np.bool_], asked: Sequence[Known], level: float) -> Forecast:
        """What is usual on other targets, and what signals say of this one: ridge on the rest.

        Intervals are those of `Model.forecast` over targets, which weigh equally.

        Args:
            seen: (n,) what is learned from.

        Reference: Lee, Barber & Willett 2023, "Distribution-free inference with hierarchical data",
        arXiv 2306.06342, for targets with any number of cells.
        """
        rest = self.outcome - self.usual(self.cells, seen)
        model = fit(both_ways(self.values[seen]), rest[seen], self.targets[seen])
        found = np.array(model.forecast(both_ways(values(self.name, asked)), level))
        usual = self.usual([one.cell for one in asked], seen)
        lost, gained = (np.array([100 * one.signals[end] for one in asked]) for end in ROOM)
        ends = (-lost, gained) if self.name == "gain_pp" else (0.0, np.inf)
        return Forecast(*np.clip(usual + found, *ends))


def taught(name: OutcomeName, known: Iterable[Known]) -> Taught:
    """Those of an outcome that have it and every signal."""
    found = [one for one in known if whole(name, one) and math.isfinite(one.outcome)]
    return Taught(name, found, values(name, found), np.array([one.outcome for one in found]))


def of_outcome(name: OutcomeName, one: Known) -> bool:
    """Retention is of cells beside a transfer set, what is gained of cells alone."""
    return (one.transfer is not None) == (name == "retention_pct")


def whole(name: OutcomeName, one: Known) -> bool:
    """Whether a cell is of an outcome and has all of its signals."""
    return of_outcome(name, one) and {*SIGNALS[name], *ROOM} <= set(one.signals)


def values(name: OutcomeName, known: Sequence[Known]) -> Floats:
    """Signals of cells, (n, n_signals)."""
    names = SIGNALS[name]
    rows = [[one.signals[signal] for signal in names] for one in known]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def both_ways(values: Floats) -> Floats:
    """Each signal and its negative, for `fit`, whose slopes have one sign: that is plain ridge.

    Of b = p - q with p, q >= 0 the least p^2 + q^2 is b^2.
    """
    return np.hstack([values, -values])


def targets_needed(level: float) -> int:
    """Targets from which on a forecast is given with an interval that can be checked.

    Of k targets each weighs 1 / (k + 1) and the missing one lies at infinity, so a bounded end at
    `level` needs k / (k + 1) >= level; and one more, to be left out.

    >>> targets_needed(0.8), targets_needed(0.9)
    (5, 10)
    """
    return math.ceil(level / (1 - level) - 1e-9) + 1


def require_enough(where: str, found: Iterable[str], level: float) -> None:
    """Refuse to learn from too few targets.

    Args:
        found: their names.

    Raises:
        RecordError: saying how many there are and how many would do.
    """
    names, least = sorted(set(found)), targets_needed(level)
    if len(names) < least:
        rule = (
            f"studies of at least {least} targets, for an interval of {level:.0%} and a target to "
            "check it on"
        )
        got = f"not enough studies: {len(names)} ({', '.join(names) or 'none'})"
        step = f"Name folders of {least - len(names)} more targets"
        if level > 0.75:
            step += f", or lower --level ({targets_needed(0.75)} are enough for 75)"
        raise RecordError(Fault(where, rule, got, step))


@dataclass(frozen=True, kw_only=True)
class Expected(Row):
    """What a cell is expected to come to.

    outcome: gain_pp: test accuracy less zero-shot accuracy of the untouched model, percentage
        points; retention_pct: of a transfer set
    low, high: ends of its interval; null of a method or backbone that it has not learned from
    """

    target: Annotated[str, key("Target")]
    method: Annotated[str, key("Method")]
    learning_rate: LearningRate
    outcome: OutcomeName
    transfer: str | None
    expected: Annotated[float | None, Said("one")] = None
    low: Annotated[float | None, Said("one")] = None
    high: Annotated[float | None, Said("one")] = None
    reason: Reason = None


def expected(data: Taught, plan: Sequence[Known], level: float) -> list[Expected]:
    """The forecast of every cell of a study that is of the outcome."""
    asked = [one for one in plan if of_outcome(data.name, one)]
    able = [one for one in asked if whole(data.name, one)]
    told: dict[tuple[Cell, str | None], NDArray[np.float64]] = {}
    if able:
        seen = np.ones(len(data.known), dtype=bool)
        ends = np.array(data.forecast(seen, able, level)).T
        told = {(one.cell, one.transfer): row for one, row in zip(able, ends, strict=True)}
    return [_expected(data, one, told.get((one.cell, one.transfer))) for one in asked]


def _expected(data: Taught, one: Known, told: NDArray[np.float64] | None) -> Expected:
    cell = one.cell
    row = Expected(
        target=cell.target,
        method=cell.method,
        learning_rate=cell.learning_rate,
        outcome=data.name,
        transfer=one.transfer,
    )
    if told is None:
        lacks = ", ".join(name for name in SIGNALS[data.name] if name not in one.signals)
        return replace(row, reason=f"undefined here: {lacks}")
    value, low, high = told.tolist()
    for what in ("method", "backbone"):
        if getattr(cell, what) not in {getattr(known, what) for known in data.cells}:
            why = f"no interval of a {what} that the forecast has not learned from"
            return replace(row, expected=value, reason=why)
    return replace(row, expected=value, low=low, high=high)
