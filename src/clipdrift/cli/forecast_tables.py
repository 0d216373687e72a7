"""What `forecast` prints: how good it is, beside what costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.text import Text

from clipdrift.analysis.questions.early_warning import verdict
from clipdrift.analysis.rows import TEXTS, Row, said
from clipdrift.cli.terminal import Sheet, line
from clipdrift.report.printed import field_text

VALIDATION = (
    *("split", "n", "mae", "mae_mean", "against_mean", "spearman", "spearman_within"),
    *("coverage", "median_width"),
)
EPOCH_RETENTION = ("split", "n", "mae", "mae_epoch_retention", "against_epoch_retention")
LOWER_RATE = ("split", "n_lower_rate", "mae_there", "mae_lower_rate", "against_lower_rate")


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
    yield fields_table(f"The forecast on runs it did not see; {level}", VALIDATION, judged)
    if any(row.mae_epoch_retention is not None for row in judged):
        title = f"Beside retention as it was read after epoch {told['after_epoch']}"
        yield fields_table(title, EPOCH_RETENTION, judged)
    yield fields_table("Beside the same method at the next lower rate", LOWER_RATE, judged)
    for row in told["validation"]:
        if row.reason:
            yield line(f"Left out by {row.split}: {row.reason}.", "yellow")
    yield line(verdict(told["validation"], told["level"]), "bold")


def fields_table(title: str, names: Sequence[str], rows: Sequence[Row]) -> Sheet:
    """Some fields of rows under their own headings; a count that has none is of runs."""
    table = Sheet(title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    about = said(type(rows[0])) if rows else {}
    for name in names if rows else ():
        one = about[name][0]
        table.column(one.head or "Runs", right=one.form not in TEXTS)
    for row in rows:
        table.row(*(field_text(row, name) for name in names))
    return table
