"""The commands that advise: what to choose, and what to expect of a run that has just begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.options import Cache, Device, Json, StudyDir
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
    before: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY",
            help="a study file: say what its cells will gain and keep, before any is trained",
            show_default=False,
        ),
    ] = None,
    after_epoch: Annotated[int, typer.Option(help="the epoch that is read")] = 1,
    level: Annotated[float, typer.Option(help="coverage of the interval, percent")] = 80,
    transfer: Transfers = None,
    cache: Cache = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Say whether the first epoch foretells final retention.

    Learns from finished runs, their drift and their retention after that epoch; validated on
    left-out cells, targets, methods and backbones, beside retention as it was read then, the mean
    and the same method at its next lower rate. Of other methods and backbones than those it has
    learned from it gives no interval.

    With --before: what every cell of a study that was not run will gain in accuracy and keep on its
    transfer sets, from forward passes and one batch of the untouched model; learned from the
    folders, which need their images, and validated on left-out targets, methods and backbones.
    """
    if before is not None:
        _forecast_before(before, folders, level, transfer, after_epoch, cache, device, json_=json_)
        return
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


def _forecast_before(
    study: Path,
    folders: Sequence[Path],
    level: float,
    transfers: list[str] | None,
    after_epoch: int,
    cache: Path | None,
    device: str,
    *,
    json_: bool,
) -> None:
    from clipdrift.cli.before_tables import before_text
    from clipdrift.machine.devices import limit_threads

    limit_threads()
    found = clipdrift.forecast_before(
        study,
        *folders,
        level=level,
        transfers=transfers or [],
        after_epoch=after_epoch,
        cache_dir=cache,
        device=device,
        say=note,
    )
    tell_left_out(found.faults)
    if json_:
        told = found._asdict()
        say_json({name: told[name] for name in told if name != "faults"})
        return
    console = Terminal()
    for part in before_text(found, level / 100):
        console.print(part)


def tell_left_out(faults: Sequence[Fault]) -> None:
    """Records that could not be read, on standard error."""
    for fault in faults:
        say(f"left out: {fault}", err=True)
