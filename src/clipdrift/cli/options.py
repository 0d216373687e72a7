"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[Path, typer.Argument(help="study file (YAML)", show_default=False)]
StudyDir = Annotated[Path, typer.Argument(help="study folder", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a key of the study file otherwise, such as schedule.epochs=2; repeatable",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead")]
Cache = Annotated[
    Path | None,
    typer.Option(help="prepared images; default $CLIPDRIFT_CACHE or ~/.cache/clipdrift"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
