"""A number on the page: its text, and everything needed to compute it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clipdrift.report.metrics import (
    NBSP,
    UNDEFINED,
    decimals_of,
    fixed,
    metric,
    p_text,
    rate_text,
    significant,
)

MEAN_SD, MEAN, VALUE, COUNT, ROW = "mean_sd", "mean", "value", "n", "row"
DERIVED = "derived"
RATES = ("lr", "best_lr", "lowest_lr", "highest_lr")
P_VALUES = ("p", "p_t", "p_holm", "p_wilcoxon", "p_tost", "wilcoxon_floor", "t_floor")
IN_METRIC_UNIT = (
    *("mean_diff", "sd_diff", "detectable_diff", "margin", "diff", "value", "value_a", "value_b"),
    *("ours", "theirs", "tolerance", "estimate", "se", "total", "indirect", "direct"),
)
PERCENTAGES = (
    *("retention_pct", "oracle_retention_pct", "random_retention_pct", "regret_pp"),
    *("mae", "mae_mean", "mae_epoch_retention", "mae_there", "mae_lower_rate"),
    *("median_width", "limit_pct"),
    *("seconds_saved", "seconds_saved_pct", "steps_saved_pct"),
)
INTERVALS = {
    "ci": ("ci_low", "ci_high"),
    "gap_ci": ("gap_ci_low", "gap_ci_high"),
    "indirect_ci": ("indirect_ci_low", "indirect_ci_high"),
    "rank_ci": ("rank_low", "rank_high"),
}
HOW_SURE = (
    *INTERVALS,
    *P_VALUES,
    *("sd_diff", "se", "df", "t", "statistic", "cohen_dz", "hedges_gz", "n_images", "image_se"),
    *("detectable_diff", "seeds_for_1pp", "seeds_for_2pp", "seeds_for_5pp"),
)
"""Columns that say how sure a number is: none of them in a table where no row knows it."""
HELD_EQUAL = {
    "equal_val_accuracy": "val_accuracy",
    "equal_weight_drift": "drift.weight_drift_rel",
}
TWO_DECIMALS = (
    "kendall_tau",
    *("cohen_dz", "hedges_gz", "t", "statistic", "df"),
    *("spearman", "spearman_within", "coverage"),
)
SHARES = ("p_meets", "p_chosen", "p_none")
CORRELATIONS = ("dose_response", "predictors")
DIFFERENCE_TABLES = ("paired", "equivalence", "matched_views", "power", "mixed", "mediation")
UNSIGNED = ("sd_diff", "detectable_diff", "margin", "tolerance", "se")


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
        for number in numbers:
            if ranges and number == ranges[-1][1] + 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
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


def of_cell(row: Mapping[str, Any] | None, index: RunIndex, *, unit: bool = False) -> Printed:
    """Mean ± SD of a row of `cells`."""
    if row is None:
        return Printed(UNDEFINED, title="not measured in this cell")
    name = str(row["metric"])
    text = mean_sd_text(name, row["mean"], row["sd"])
    if unit and row["mean"] is not None and metric(name).unit:
        text += f"{NBSP}{metric(name).unit}"
    return Printed(
        text,
        name,
        MEAN_SD,
        index.encode(row["run_ids"]),
        row["mean"],
        row["reason"] or f"{metric(name).label}: mean ± SD over {row['n']} runs",
    )


def of_runs(frame: pd.DataFrame, name: str, index: RunIndex) -> Printed:
    """Mean ± SD of a column of the run frame over some of its runs; a dash where none has it."""
    known = frame[frame[name].notna()] if name in frame else frame[:0]
    if known.empty:
        return Printed(UNDEFINED, title="not measured in these runs")
    values = known[name]
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    text = mean_sd_text(name, mean, sd)
    return Printed(text, name, MEAN_SD, index.encode(known["run_id"]), mean, metric(name).label)


def of_row(
    table: str,
    position: int,
    row: Mapping[str, Any],
    key: str,
    runs: str = "",
    *,
    unit: bool = False,
) -> Printed:
    """A field of a row of the analysis."""
    text = row_text(table, row, key)
    undefined = text == UNDEFINED
    if unit and not undefined:
        text = f"{text}{NBSP}{row_unit(table, row, key)}".rstrip(NBSP)
    sort = row.get(INTERVALS[key][0] if key in INTERVALS else key)
    title = str(row.get("reason") or "undefined") if undefined else ""
    return Printed(text, f"{table}[{position}].{key}", ROW, runs, sort, title)


def row_unit(table: str, row: Mapping[str, Any], key: str) -> str:
    if key in ("seeds_for_1pp", "n", "n_pairs", "n_seeds") or key in P_VALUES:
        return ""
    shown = metric(str(row.get("metric") or row.get("outcome") or ""))
    return shown.difference_unit if table in DIFFERENCE_TABLES else shown.unit


def row_text(table: str, row: Mapping[str, Any], key: str) -> str:
    """How a field of an analysis row is printed; the audit prints recomputed rows the same way."""
    if key in INTERVALS:
        low, high = (_field_text(table, row, end, interval=True) for end in INTERVALS[key])
        return UNDEFINED if UNDEFINED in (low, high) else f"{low} to {high}"
    return _field_text(table, row, key)


def _field_text(table: str, row: Mapping[str, Any], key: str, *, interval: bool = False) -> str:
    value = row.get(key)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNDEFINED
    if isinstance(value, (str, bool)):
        return str(value)
    if key in RATES:
        return rate_text(value)
    if key in P_VALUES:
        return p_text(value)
    if key in SHARES:
        return f"{100 * value:.0f}{NBSP}%"
    if isinstance(value, int):
        return str(value)
    if key == "at":
        return metric(HELD_EQUAL[row["view"]]).number(value)
    if key in PERCENTAGES:
        return fixed(value, 1)
    if key in IN_METRIC_UNIT or (interval and table not in CORRELATIONS):
        return _in_unit(table, row, key, value)
    return fixed(value, 2) if key in TWO_DECIMALS or table in CORRELATIONS else significant(value)


def _in_unit(table: str, row: Mapping[str, Any], key: str, value: float) -> str:
    difference = table in DIFFERENCE_TABLES and key not in UNSIGNED
    signed = None if key in ("value_a", "value_b", "ours", "theirs") else difference
    return metric(str(row.get("metric") or row["outcome"])).number(value, signed=signed)


__all__ = [
    "COUNT",
    "DERIVED",
    "HOW_SURE",
    "INTERVALS",
    "MEAN",
    "MEAN_SD",
    "ROW",
    "VALUE",
    "Printed",
    "RunIndex",
    "Sentence",
    "mean_sd_text",
    "of_cell",
    "of_row",
    "of_runs",
    "part_of",
    "row_text",
]
