"""Commands that pass studies on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import clipdrift
from clipdrift.cli.options import StudyDir
from clipdrift.cli.terminal import note, say


def bundle(
    folder: StudyDir,
    out: Annotated[Path, typer.Option(help="a new .tar.xz file", show_default=False)],
    title: Annotated[
        str | None, typer.Option(help="default: the name of the study", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX id, such as CC-BY-4.0", show_default=False)
    ] = None,
    citation: Annotated[str | None, typer.Option(help="how to cite it", show_default=False)] = None,
    weights: Annotated[bool, typer.Option("--weights", help="with the weights of runs")] = False,
    images: Annotated[bool, typer.Option("--images", help="with the pictures of runs")] = False,
) -> None:
    """Write a study into one file, to send, to publish or to keep.

    Records, study file, plan and tables of single readings, each with its hash; no weights and no
    images unless asked. The same study gives the same bytes. Paths of your data stand in the study
    file as you wrote them. 'clipdrift import FILE --out DIR' opens it again; pool and gallery take
    it as it is.
    """
    made = clipdrift.bundle(
        folder,
        out,
        title=title,
        licence=licence,
        citation=citation,
        weights=weights,
        images=images,
    )
    say(f"{len(made.files)} files, {out.stat().st_size / 1e6:.1f} MB: {out}")
    if made.licence is None:
        note("Note: no licence is stated, so nobody may pass it on. Say one with --licence.")
