"""The command that names the classes of new images."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.options import Device, Json
from clipdrift.cli.terminal import note, say, say_json
from clipdrift.errors import Fault, SpecError

if TYPE_CHECKING:
    from clipdrift.finished.predict import Prediction

NOTE_EVERY = 1000


def predict(
    model: Annotated[
        Path, typer.Argument(help="a run, or a folder that export-model wrote", show_default=False)
    ],
    images: Annotated[
        list[str],
        typer.Argument(help="files, folders, patterns, Parquet files", show_default=False),
    ],
    top: Annotated[int, typer.Option(min=1, help="classes that are told of each image")] = 3,
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="write a new CSV file", show_default=False)
    ] = None,
    image_column: Annotated[str, typer.Option(help="of Parquet files")] = "image",
    json_: Json = False,
    device: Device = "auto",
) -> None:
    """Name the classes of images, the most likely first, with scores from 0 to 1.

    Exit code 1 if an image cannot be read; the others are named all the same.
    """
    if csv_ is not None and csv_.exists():
        step = "Choose another name, or remove it"
        raise SpecError(Fault("--csv", "a new file", f"{csv_}, which is there", step))
    from clipdrift.machine.devices import limit_threads

    limit_threads()
    found: list[Prediction] = []
    shown = csv_ is None and not json_
    told = clipdrift.predict(model, images, top=top, image_column=image_column, device=device)
    for one in told:
        found.append(one)
        if shown and one.label is not None:
            say(f"{one.file}: " + ", ".join(f"{name} {score:.1%}" for name, score in one.top))
        if one.reason is not None:
            say(f"{one.file}: cannot be read: {one.reason}", err=True)
        if not shown and len(found) % NOTE_EVERY == 0:
            note(f"{len(found):,} images")
    if json_:
        say_json(found)
    if csv_ is not None:
        from clipdrift.records import atomic_write

        atomic_write(csv_, _as_csv(found))
        note(f"{len(found):,} images in {csv_}")
    if unread := sum(one.reason is not None for one in found):
        say(f"{unread:,} of {len(found):,} images cannot be read", err=True)
        raise typer.Exit(1)


def _as_csv(found: list[Prediction]) -> str:
    """A row an image: file, label, score, the classes after the first, and why there are none."""
    from clipdrift.analysis.files import csv_cell

    most = max(1, *(len(one.top) for one in found))
    names = ["file", "label", "score"]
    names += [f"{what}_{i}" for i in range(2, most + 1) for what in ("label", "score")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, "reason"])
    for one in found:
        cells = [value for pair in one.top for value in pair]
        cells += [""] * (2 * most - len(cells))
        writer.writerow([csv_cell(value) for value in (one.file, *cells, one.reason or "")])
    return out.getvalue()
