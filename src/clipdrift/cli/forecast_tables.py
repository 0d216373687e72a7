"""What `forecast` prints: how good it is, beside what costs nothing, and what it would save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]
Shown = Sequence[tuple[str, str]]
SIGNALS: Shown = (
    ("signal", "signal"),
    ("spearman", "rho pooled"),
    ("spearman_within", "in method"),
)
VALIDATION: Shown = (
    ("split", "left out"),
    ("n", "runs"),
    ("mae", "error pp"),
    ("mae_mean", "of mean"),
    ("against_mean", "forecast is"),
    ("spearman", "rho"),
    ("spearman_within", "in method"),
    ("coverage", "covered"),
    ("median_width", "width pp"),
)
LOWER_RATE: Shown = (
    ("split", "left out"),
    ("n_lower_rate", "runs"),
    ("mae_there", "error pp"),
    ("mae_lower_rate", "of next lower rate"),
    ("against_lower_rate", "forecast is"),
)
STOPPING: Shown = (
    ("split", "left out"),
    ("limit_pct", "limit %"),
    ("n", "runs"),
    ("n_below", "below it"),
    ("n_stopped", "stopped"),
    ("n_wrong", "wrongly"),
    ("steps_saved_pct", "steps saved %"),
)
DECIMALS = {
    **dict.fromkeys(("spearman", "spearman_within", "coverage"), 2),
    "limit_pct": 0,
}


def forecast_text(told: Mapping[str, Any]) -> Iterator[Table | Text]:
    """Everything to print, in order."""
    on = ", ".join(told["transfers"])
    yield Text(
        f"{told['n_runs']} runs in {told['n_cells']} cells of matched methods: drift after epoch "
        f"{told['after_epoch']} against final retention on {on}, where it is least; "
        f"{told['n_left_out']} runs left out"
    )
    yield _table("Each signal alone", SIGNALS, told["signals"])
    judged = [row for row in told["validation"] if row["n"]]
    level = f"{told['level']:.0%} interval"
    yield _table(f"The forecast on runs it did not see; {level}", VALIDATION, judged)
    yield _table("Beside the same method at the next lower rate", LOWER_RATE, judged)
    yield _table("Had runs ended whose upper bound is below a limit", STOPPING, _of(judged, told))
    for row in told["validation"]:
        if row["reason"]:
            yield Text(f"Left out by {row['split']}: {row['reason']}.", style="yellow")
    yield Text(verdict(told), style="bold")


def verdict(told: Mapping[str, Any]) -> str:
    """Whether the forecast is worth its trouble, from the rows that can say so."""
    judged = [row for row in told["validation"] if row["n"]]
    words = []
    for key, name in (
        ("against_lower_rate", "the next lower rate of the same method"),
        ("against_mean", "the mean"),
    ):
        beaten = [row["split"] for row in judged if row[key] == "better"]
        missed = [row["split"] for row in judged if row[key] != "better"]
        parts = []
        if beaten:
            parts.append(f"beats {name} on a left-out {_or(beaten)}")
        if missed:
            parts.append(f"does not beat {name} on a left-out {_or(missed)}")
        words.append(" and ".join(parts))
    short = [row["split"] for row in judged if row["coverage"] < told["level"]]
    if short:
        words.append(f"its interval covers less than it says on a left-out {_or(short)}")
    return f"The forecast {'; '.join(words)}."


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _of(judged: Sequence[Row], told: Mapping[str, Any]) -> list[Row]:
    splits = {row["split"] for row in judged}
    return [row for row in told["stopping"] if row["split"] in splits]


def _table(title: str, shown: Shown, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for key, label in shown:
        left = key in ("signal", "split") or key.startswith("against")
        table.add_column(label, justify="left" if left else "right")
    for row in rows:
        table.add_row(*(Text(_cell(key, row[key])) for key, _ in shown))
    return table


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.{DECIMALS.get(key, 1)}f}" if isinstance(value, float) else str(value)


__all__ = ["forecast_text", "verdict"]
