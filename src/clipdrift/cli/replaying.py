"""The command that holds a study against published figures, and its tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.options import Json, StudyDir
from clipdrift.cli.terminal import Sheet, Terminal, say, say_json

if TYPE_CHECKING:
    from clipdrift.analysis.questions.reproduction import Reproduction
    from clipdrift.report.metrics import Metric

HEADLINES = {
    "grid_mean": ", headline: mean over the grid",
    "nearest_cell": ", LR not published: our nearest cell",
}
COLUMNS = ("target", "method", "LR", "n", "ours", "published", "diff.", "tolerance", "verdict")


def replay(
    preset: Annotated[str, typer.Argument(help="for example paper-80", show_default=False)],
    folder: StudyDir,
    json_: Json = False,
) -> None:
    """Hold a study against published figures; exit code 1 if one is outside its tolerance.

    Tolerances are made of the errors of both sides, so of 20 figures about one is outside where all
    is as published. Works on imported records too.
    """
    found = clipdrift.replay(preset, folder)
    for fault in found.faults:
        say(f"left out: {fault}", err=True)
    if json_:
        say_json(found.rows)
    else:
        _print(found.rows)
        say(f"Published: {found.source}.")
        say(f"Leaks of ours: {'; '.join(found.leaks) or 'none stated in the records'}.")
        say(verdict_line(found.rows))
    if any(row.within is False for row in found.rows):
        raise typer.Exit(1)


def _print(rows: Sequence[Reproduction]) -> None:
    console = Terminal()
    for backbone in sorted({row.backbone for row in rows}):
        say(f"Backbone {backbone}")
        own = [row for row in rows if row.backbone == backbone]
        for figure in dict.fromkeys((row.kind, row.metric) for row in own):
            console.print(_table([row for row in own if (row.kind, row.metric) == figure]))


def _table(rows: Sequence[Reproduction]) -> Sheet:
    """One published figure wherever it is given: in all its cells, or as a headline."""
    first, shown = rows[0], _metric(rows[0].metric)
    bound = ", published as an upper bound" if first.kind == "upper_bound" else ""
    title = f"{shown.axis}{HEADLINES.get(first.kind, '')}{bound}"
    table = Sheet(title, title_justify="left")
    for name in COLUMNS:
        table.column(
            name, right=name not in {"target", "method", "verdict"}, wraps=name == "verdict"
        )
    for row in rows:
        table.row(
            row.target or "all",
            row.method or "all",
            "all" if row.learning_rate is None else f"{row.learning_rate:g}",
            str(row.n),
            shown.number(row.ours),
            shown.number(row.theirs),
            shown.number(row.diff, signed=True),
            _tolerance(row, shown),
            _verdict(row),
        )
    return table


def _metric(name: str) -> Metric:
    """How a metric is printed here: with as many decimals as were published."""
    from clipdrift.report.metrics import metric

    found = metric(name)
    return dataclasses.replace(
        found, decimals=2 if found.unit == "%" else max(3, found.decimals or 0)
    )


def _tolerance(row: Reproduction, shown: Metric) -> str:
    return "" if row.tolerance is None else f"±{shown.number(row.tolerance)}"


def _verdict(row: Reproduction) -> str:
    if row.within is not None:
        return "within" if row.within else "OUTSIDE"
    return str(row.reason) if row.diff is not None else f"not read here: {row.reason}"


def verdict_line(rows: Sequence[Reproduction]) -> str:
    """How many of the figures are within tolerance, outside, not told apart, not read here."""
    from clipdrift.analysis.statistics.intervals import LEVEL

    judged = [row.within for row in rows if row.within is not None]
    read = sum(row.diff is not None for row in rows)
    expected = (1 - LEVEL) * len(judged)
    counts = [
        f"{sum(judged)} within tolerance",
        f"{len(judged) - sum(judged)} outside (about {expected:.0f} would be by chance alone)",
        f"{read - len(judged)} that cannot tell",
        f"{len(rows) - read} not read here",
    ]
    return f"{len(rows)} published figures: {', '.join(counts)}"
