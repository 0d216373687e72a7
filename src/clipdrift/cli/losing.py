"""The command that says which classes of the transfer sets fell, and its tables."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.options import Json, StudyDir
from clipdrift.cli.terminal import Sheet, Terminal, note, say, say_json

if TYPE_CHECKING:
    from clipdrift.analysis.questions.lost_classes import LostClass

COLUMNS = ("class", "images", "before", "now", "change, pp", "p (Holm)", "fell into", "near target")


def lost(
    folder: StudyDir,
    top: Annotated[
        int, typer.Option(min=1, help="classes of each cell and set, the largest falls first")
    ] = 5,
    json_: Json = False,
) -> None:
    """Say which classes of the transfer sets fell, and into which.

    Of runs that were read in full (evaluation: {in_full: true}). Change, interval and p are over
    seeds and images; p is corrected by Holm's method over the classes of a set. The nearest target
    class is the one whose text lies nearest: does loss follow the target?
    """
    found = clipdrift.lost(folder)
    for fault in found.faults:
        say(f"left out: {fault}", err=True)
    if json_:
        say_json([vars(row) for row in found.rows])
        return
    console = Terminal()
    for _, rows in groupby(found.rows, lambda row: (row.target, row.method, row.learning_rate)):
        for _, own in groupby(rows, lambda row: row.transfer):
            first, *rest = own
            fell = [row for row in (first, *rest) if row.change_pp < 0][:top]
            console.print(_table(fell) if fell else f"{_title(first)}: no class fell")
    note("All classes: --json, or tables/lost_classes.csv after clipdrift analyze")


def _title(row: LostClass) -> str:
    return f"{row.transfer} after {row.method} at {row.learning_rate:g} on {row.target}"


def _table(rows: list[LostClass]) -> Sheet:
    table = Sheet(_title(rows[0]), title_justify="left")
    for name in COLUMNS:
        words = name in {"class", "fell into", "near target"}
        table.column(name, right=not words, wraps=words)
    for row in rows:
        interval = "" if row.ci_low is None else f" [{row.ci_low:.1f}, {row.ci_high:.1f}]"
        into = "" if row.fell_into is None else f"{row.fell_into} ({row.fell_into_share:.0%})"
        table.row(
            row.class_name,
            str(row.n_images),
            f"{row.accuracy_before:.0%}",
            f"{row.accuracy_now:.0%}",
            f"{row.change_pp:.1f}{interval}",
            "–" if row.p_holm is None else f"{row.p_holm:.3f}",
            into,
            row.nearest_target or "",
        )
    return table
