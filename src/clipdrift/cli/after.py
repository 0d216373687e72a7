"""The command that makes weights after training: soups over seeds, rescaled movements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import clipdrift
from clipdrift.cli.interrupted import said_when_interrupted
from clipdrift.cli.options import Cache, Device, StudyDir
from clipdrift.cli.terminal import say

KEPT = "Interrupted; what was read is kept. The same command goes on."


def after(
    folder: StudyDir,
    soup: Annotated[
        bool, typer.Option("--soup", help="average the weights of each cell's seeds (the default)")
    ] = False,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="read soups also at (1 - a) untouched + a soup; repeatable"),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(help="read each run with its tower's movement times this; repeatable"),
    ] = None,
    lines: Annotated[
        list[float] | None,
        typer.Option(help="with it growing from this at the first block to 1; repeatable"),
    ] = None,
    damp: Annotated[
        list[float] | None,
        typer.Option(help="with intruder dimensions of its weights times this; repeatable"),
    ] = None,
    temper: Annotated[
        list[float] | None,
        typer.Option(help="with attention as spread out as before, 1 wholly; repeatable"),
    ] = None,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Make weights from finished runs without training, and read what they keep.

    A soup is the uniform mean of merged weights over the seeds of a cell: tower, projection and
    head. A scale multiplies what training moved in the tower: of a linear adapter its alpha. Up to
    1 it differs from interpolated weights only in leaving projection and head alone; it may go
    beyond. --lines scales it by depth (LiNeS), --damp takes new directions of the weights back
    (intruder dimensions), --temper the entropy of each head's attention from CLS. Records stay as
    they are; readings lie in DIR/after, and those that are there are kept. They stand in the
    report and are candidates of 'clipdrift choose'.
    """
    from clipdrift.cli.reading import close_study
    from clipdrift.machine.devices import limit_threads
    from clipdrift.records import StudyFolder

    limit_threads()
    study = StudyFolder(folder)
    with said_when_interrupted(KEPT):
        done = clipdrift.after(
            study,
            soup=soup,
            alphas=alpha or [],
            scales=scale or [],
            lines=lines or [],
            damp=damp or [],
            temper=temper or [],
            cache_dir=cache,
            device=device,
            say=say,
        )
        tell_read(done.read, done.kept, done.left_out, folder / "after")
        close_study(study)


def tell_read(read: int, kept: int, left_out: Mapping[str, str], place: Path) -> None:
    """What a command on finished runs read, found there, and could not read (what -> why)."""
    say(f"{read} read, {kept} already there: {place}")
    for what, why in left_out.items():
        say(f"left out: {what}: {why}")
