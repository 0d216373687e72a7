"""The commands that advise: what to choose, and what to expect of a run that has just begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.options import Json, StudyDir
from clipdrift.cli.terminal import Terminal, note, say, say_json

if TYPE_CHECKING:
    from clipdrift.errors import Fault

Targets = Annotated[list[str] | None, typer.Option(help="answer for this target; repeatable")]
Transfers = Annotated[
    list[str] | None,
    typer.Option(help="count retention on this transfer dataset; repeatable; default: each of all"),
]


def choose(
    folder: StudyDir,
    min_accuracy: Annotated[
        float | None, typer.Option(help="floor on target accuracy, percent")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="or: percentage points below the best accuracy")
    ] = None,
    min_retention: Annotated[
        float | None, typer.Option(help="floor on retention, percent of the untouched accuracy")
    ] = None,
    max_retention_loss: Annotated[
        float | None, typer.Option(help="or: points of retention to lose; 2 is a retention of 98")
    ] = None,
    target: Targets = None,
    transfer: Transfers = None,
    top: Annotated[int, typer.Option(min=2, help="candidates to list per target")] = 5,
    json_: Json = False,
) -> None:
    """Say which method, learning rate and alpha best meets a budget, and how surely.

    Floors combine. With a floor on accuracy the most retention wins, else the most accuracy;
    without any floor: most retention within 1 point of the best accuracy. Every target gets an
    answer of its own. That no candidate meets the budget is an answer too, with exit code 0.
    """
    from clipdrift.cli.choice_tables import choice_text

    found = clipdrift.choose(
        folder,
        min_accuracy=min_accuracy,
        within=within,
        min_retention=min_retention,
        max_retention_loss=max_retention_loss,
        targets=target or [],
        transfers=transfer or [],
        top=None if json_ else top,
    )
    tell_left_out(found.faults)
    if json_:
        say_json(found.rows)
        return
    console = Terminal()
    for part in choice_text(found.rows, found.leaks):
        console.print(part)
    if found.raced:
        note(f"Note: {found.raced}.")


def forecast(
    folders: Annotated[
        list[Path], typer.Argument(help="study folders to learn from", show_default=False)
    ],
    after_epoch: Annotated[int, typer.Option(help="the epoch that is read")] = 1,
    level: Annotated[float, typer.Option(help="coverage of the interval, percent")] = 80,
    transfer: Transfers = None,
    json_: Json = False,
) -> None:
    """Say whether the first epoch foretells final retention.

    Learns from finished runs, their drift and their retention after that epoch; validated on
    left-out cells, targets, methods and backbones, beside retention as it was read then, the mean
    and the same method at its next lower rate. Of other methods and backbones than those it has
    learned from it gives no interval.
    """
    from clipdrift.cli.forecast_tables import forecast_text

    found = clipdrift.forecast(
        *folders,
        after_epoch=after_epoch,
        level=level,
        transfers=transfer or [],
    )
    tell_left_out(found.faults)
    if json_:
        say_json(found.rows)
        return
    console = Terminal()
    for part in forecast_text(found.rows):
        console.print(part)


def tell_left_out(faults: Sequence[Fault]) -> None:
    """Records that could not be read, on standard error."""
    for fault in faults:
        say(f"left out: {fault}", err=True)
