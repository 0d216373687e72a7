"""What `forecast` prints: how good it is, beside what costs nothing, and what it would save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.text import Text

from clipdrift.analysis.questions.early_warning import verdict
from clipdrift.analysis.rows import Row
from clipdrift.cli.terminal import Sheet, line

Shown = Sequence[tuple[str, str]]
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
EPOCH_RETENTION: Shown = (
    ("split", "left out"),
    ("n", "runs"),
    ("mae", "error pp"),
    ("mae_epoch_retention", "of retention then"),
    ("against_epoch_retention", "forecast is"),
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
    ("n_right", "rightly"),
    ("n_wrong", "wrongly"),
    ("seconds_saved", "saved s"),
    ("seconds_saved_pct", "saved %"),
)
STOPPING_TITLE = "Had runs ended whose upper bound is below a limit; saved: training time"
DECIMALS = {
    **dict.fromkeys(("spearman", "spearman_within", "coverage"), 2),
    "limit_pct": 0,
}


def forecast_text(told: Mapping[str, Any]) -> Iterator[Sheet | Text]:
    """Everything to print, in order."""
    on = ", ".join(told["transfers"])
    yield line(
        f"{told['n_runs']} runs in {told['n_cells']} cells of matched methods: readings after "
        f"epoch {told['after_epoch']} against final retention on {on}, where it is least; "
        f"{told['n_left_out']} runs left out"
    )
    judged = [row for row in told["validation"] if row.n]
    level = f"{told['level']:.0%} interval"
    yield _table(f"The forecast on runs it did not see; {level}", VALIDATION, judged)
    if any(row.mae_epoch_retention is not None for row in judged):
        title = f"Beside retention as it was read after epoch {told['after_epoch']}"
        yield _table(title, EPOCH_RETENTION, judged)
    yield _table("Beside the same method at the next lower rate", LOWER_RATE, judged)
    yield _table(STOPPING_TITLE, STOPPING, told["stopping"])
    for row in told["validation"]:
        if row.reason:
            yield line(f"Left out by {row.split}: {row.reason}.", "yellow")
    yield line(verdict(told["validation"], told["level"]), "bold")


def _table(title: str, shown: Shown, rows: Sequence[Row]) -> Sheet:
    table = Sheet(title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for key, label in shown:
        left = key == "split" or key.startswith("against")
        table.column(label, right=not left)
    for row in rows:
        table.row(*(_cell(key, getattr(row, key)) for key, _ in shown))
    return table


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.{DECIMALS.get(key, 1)}f}" if isinstance(value, float) else str(value)
