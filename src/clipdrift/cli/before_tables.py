"""What `forecast --before` prints: what each cell should come to, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from clipdrift.analysis.questions.before_trial import verdict
from clipdrift.analysis.questions.beforehand import Expected
from clipdrift.analysis.rows import UNDEFINED, rate_text
from clipdrift.cli.forecast_tables import fields_table
from clipdrift.cli.terminal import Sheet, line

if TYPE_CHECKING:
    from clipdrift.commands.forecasting import ForecastBefore

TRIAL = ("outcome", "split", "n_folds", "n", "mae", "rival", "mae_rival", "against")
COVERED = ("outcome", "split", "coverage", "median_width")


def before_text(found: ForecastBefore, level: float) -> Iterator[Sheet | Text]:
    """Everything to print, in order."""
    yield line(f"Learned from {len(found.targets)} targets: {', '.join(found.targets)}")
    yield _expected(found.expected, level)
    yield fields_table("Such forecasts of cells that they did not see", TRIAL, found.trials)
    held = [row for row in found.trials if row.coverage is not None and row.rival == "the mean"]
    yield fields_table(f"Their {level:.0%} interval", COVERED, held)
    for why in dict.fromkeys(
        f"Left out by {r.split}: {r.reason}." for r in found.trials if r.reason
    ):
        yield line(why, "yellow")
    for why in dict.fromkeys(row.reason for row in found.expected if row.reason):
        yield line(f"Of some cells: {why}.", "yellow")
    for name, why in found.left_out.items():
        yield line(f"left out: {name}: {why}", "yellow")
    for sentence in verdict(found.trials, level):
        yield line(sentence, "bold")


def _expected(rows: Sequence[Expected], level: float) -> Sheet:
    """A line for each cell: what it gains, and what it keeps on each transfer set."""
    title = f"Expected before training, with {level:.0%} intervals"
    table = Sheet(title, title_justify="left")
    sets = list(dict.fromkeys(row.transfer for row in rows))
    heads = ["gain, pp" if one is None else f"kept on {one}, %" for one in sets]
    for head in ("target", "method", "LR", *heads):
        table.column(head, right=head not in ("target", "method"))
    cells: dict[tuple[str, str, float], dict[str | None, str]] = {}
    for row in rows:
        cell = cells.setdefault((row.target, row.method, row.learning_rate), {})
        cell[row.transfer] = _told(row)
    for (target, method, rate), told in cells.items():
        table.row(target, method, rate_text(rate), *(told.get(one, UNDEFINED) for one in sets))
    return table


def _told(row: Expected) -> str:
    if row.expected is None:
        return UNDEFINED
    if row.low is None or row.high is None:
        return f"{row.expected:.1f}"
    return f"{row.expected:.1f} ({row.low:.0f} to {row.high:.0f})"
