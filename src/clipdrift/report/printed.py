"""A number on the page: its text, and everything needed to compute it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.rows import IN_UNIT, UNDEFINED, Form, Row, Said, rate_text, said
from clipdrift.analysis.statistics.cell_means import matrix, number, summarise
from clipdrift.records.readings import TARGET_ZERO_SHOT
from clipdrift.report.digits import NBSP, decimals_of, fixed, p_text, significant
from clipdrift.report.metrics import Metric, metric

MEAN_SD, MEAN, VALUE, COUNT, ROW = "mean_sd", "mean", "value", "n", "row"
DERIVED = "derived"
HELD_EQUAL = {
    "equal_val_accuracy": "val_accuracy",
    "equal_weight_drift": "drift.weight_drift_rel",
}
VIEWS = {
    "equal_learning_rate": "equal LR",
    "own_best_rate": "own best LR",
    "equal_val_accuracy": "equal accuracy",
    "equal_weight_drift": "equal movement",
}
SCOPES = {"grid_mean": "grid", "both_fit": "where both fit"}
MOMENTS = {"final": "end", "epoch1": "epoch 1"}
FORMS: dict[Form, Callable[[Any, Any], str]] = {
    "name": lambda row, value: str(value),
    "any": lambda row, value: str(value or "all"),
    "remark": lambda row, value: str(value or ""),
    "words": lambda row, value: str(value).replace("_", " "),
    "metric": lambda row, value: metric(value).axis,
    "images": lambda row, value: _images(value),
    "level": lambda row, value: metric(f"levels.{value}").axis,
    "pair": lambda row, value: f"{value} − {row.method_b}",
    "scope": lambda row, value: SCOPES.get(row.scope) or rate_text(value),
    "rates": lambda row, value: ", ".join(map(rate_text, value)) or UNDEFINED,
    "moment": lambda row, value: MOMENTS[value],
    "view": lambda row, value: VIEWS[value],
    "within": lambda row, value: _within(value, row.diff),
    "rate": lambda row, value: rate_text(value),
    "count": lambda row, value: str(value),
    "p": lambda row, value: p_text(value),
    "share": lambda row, value: f"{100 * value:.0f}{NBSP}%",
    "one": lambda row, value: fixed(value, 1),
    "two": lambda row, value: fixed(value, 2),
    "significant": lambda row, value: significant(value),
    "held": lambda row, value: metric(HELD_EQUAL[row.view]).number(value),
    "value": lambda row, value: metric_of(row).number(value),
    "size": lambda row, value: metric_of(row).number(value, signed=False),
    "difference": lambda row, value: metric_of(row).number(value, signed=True),
}
"""How each print format of a field looks."""
SAY_NULL = ("any", "remark", "scope", "within")


@dataclass(frozen=True)
class Printed:
    """Text as printed, with its origin.

    runs: positions in the page's list of runs, as ranges ("0-2 7").
    stat: `mean_sd`, `mean`, `value` or `n` of the record field `metric` over those runs; `row` for
        a field of `analysis.json`, then `metric` is "paired[17].p_t"; `derived` for what is counted
        from several of them.
    """

    text: str
    metric: str = ""
    stat: str = ""
    runs: str = ""
    sort: float | str | None = None
    title: str = ""

    def __str__(self) -> str:
        return self.text


Sentence = list[str | Printed]


@dataclass
class RunIndex:
    """Positions of runs in the page's list, so that a number can name thousands of them briefly.

    >>> index = RunIndex(["a", "b", "c", "d"])
    >>> index.encode(["a", "b", "d"]), index.decode("0-1 3")
    ('0-1 3', ['a', 'b', 'd'])
    """

    ids: Sequence[str]
    _at: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._at = {run_id: i for i, run_id in enumerate(self.ids)}

    def encode(self, run_ids: Iterable[str]) -> str:
        numbers = sorted({self._at[run_id] for run_id in run_ids if run_id in self._at})
        ranges: list[list[int]] = []
        for at in numbers:
            if ranges and at == ranges[-1][1] + 1:
                ranges[-1][1] = at
            else:
                ranges.append([at, at])
        return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)

    def decode(self, text: str) -> list[str]:
        out: list[str] = []
        for part in text.split():
            first, _, last = part.partition("-")
            out += self.ids[int(first) : int(last or first) + 1]
        return out


def part_of(name: str, word: str, at: int) -> str:
    """The name under which the page keeps a metric's values at a block or after an epoch.

    >>> part_of("val_accuracy", "epoch", 2)
    'val_accuracy @ epoch 2'
    """
    return f"{name} @ {word} {at}"


def mean_sd_text(name: str, mean: float | None, sd: float | None) -> str:
    """Mean and SD of a metric; the mean alone where there is no SD.

    Without fixed decimals the SD is rounded where the mean is.

    >>> mean_sd_text("test_accuracy", 0.9134, 0.0031), mean_sd_text("test_accuracy", 0.9, None)
    ('91.3 ± 0.3', '90.0')
    >>> mean_sd_text("drift.weight_drift_rel", 0.00221, 0.0000726)
    '0.221 ± 0.007'
    """
    shown = metric(name)
    if sd is None or mean is None:
        return shown.number(mean)
    decimals = shown.decimals
    if decimals is None:
        decimals = decimals_of(mean * shown.scale)
    value, spread = mean * shown.scale, sd * shown.scale
    return f"{fixed(value, decimals, signed=shown.signed)} ± {fixed(spread, decimals)}"


def of_cell(row: CellMetric | None, index: RunIndex, *, unit: bool = False) -> Printed:
    """Mean ± SD of a row of `cells`."""
    if row is None:
        return Printed(UNDEFINED, title="not measured in this cell")
    text = mean_sd_text(row.metric, row.mean, row.sd)
    shown = metric(row.metric)
    if unit and row.mean is not None and shown.unit:
        text += f"{NBSP}{shown.unit}"
    title = row.reason or f"{shown.label}: mean ± SD over {row.n} runs"
    return Printed(text, row.metric, MEAN_SD, index.encode(row.run_ids), row.mean, title)


def of_runs(frame: pd.DataFrame, name: str, index: RunIndex) -> Printed:
    """Mean ± SD of a column of the run frame over some of its runs; a dash where none has it."""
    known = frame[frame[name].notna()] if name in frame else frame[:0]
    if known.empty:
        return Printed(UNDEFINED, title="not measured in these runs")
    found = summarise(matrix(known, [name]))
    mean = number(found.mean[0])
    text = mean_sd_text(name, mean, number(found.sd[0]))
    return Printed(text, name, MEAN_SD, index.encode(known["run_id"]), mean, metric(name).label)


def metric_of(row: Any) -> Metric:
    """The metric that a row is about."""
    return metric(getattr(row, "metric", None) or row.outcome)


def field_text(row: Row, name: str, *, unit: bool = False) -> str:
    """A field of a row as it is printed; of an interval both ends.

    Raises:
        KeyError: if rows of this kind have no such field.
    """
    about, _ = said(type(row))[name]
    texts = [_text(row, about, end) for end in (name, about.upto) if end]
    if UNDEFINED in texts:
        return UNDEFINED
    text = " to ".join(texts)
    if unit and about.form in IN_UNIT:
        shown = metric_of(row)
        text += f"{NBSP}{shown.unit if about.form == 'value' else shown.difference_unit}"
    return text.rstrip(NBSP)


def _text(row: Row, about: Said, name: str) -> str:
    value = getattr(row, name)
    if value is None and about.form not in SAY_NULL:
        return UNDEFINED
    return FORMS[about.form](row, value)


def _images(name: str) -> str:
    """Which images a zero-shot accuracy was read on.

    >>> _images("transfer.cifar100.baseline_accuracy")
    'cifar100'
    """
    read_on = name.rpartition(".")[0]
    return "its own test part" if read_on == TARGET_ZERO_SHOT else read_on.partition(".")[2]


def _within(within: bool | None, diff: float | None) -> str:
    if within is None:
        return UNDEFINED if diff is None else "cannot tell"
    return "yes" if within else "no"
