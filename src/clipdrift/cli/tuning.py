"""The command that ends with a model: from a folder of images to what one should ship."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clipdrift
from clipdrift.cli.interrupted import said_when_interrupted
from clipdrift.cli.options import Cache, Device, Json
from clipdrift.cli.terminal import Quiet, Terminal, is_quiet, note, say, say_json

if TYPE_CHECKING:
    from clipdrift.spec import StudySpec


def tune(
    images: Annotated[
        Path,
        typer.Argument(
            help="your images: one sub-folder per class, or train/ and test/ of them, or a table",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="new folder for the model and all behind it")] = Path(
        "tuned"
    ),
    keep: Annotated[
        float | None,
        typer.Option(help="floor on what is kept on every transfer set, percent of the untouched"),
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="floor on accuracy, percent")] = None,
    transfers: Annotated[
        list[str] | None,
        typer.Option(help="built-in set, suite or folder whose classes are to be kept; repeatable"),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="hub id or folder of a CLIP")] = None,
    budget: Annotated[
        str, typer.Option(help="what the search may spend: 2h, 40% of the grid, '60 runs'")
    ] = "40%",
    max_runs: Annotated[
        int | None, typer.Option(min=1, help="or: so many runs", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what it would do and cost; train nothing")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="runs at once")] = 2,
    json_: Json = False,
    quiet: Quiet = False,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Make the model to ship from a folder of images, and tell what it keeps.

    Looks at the images, proposes methods, finds the range of learning rates, races the candidates,
    reads interpolations, soups and rescalings of the best, chooses under the floors, trains the
    choice again from fresh seeds, and writes OUT/model, for transformers, with its card. The same
    command goes on where it was interrupted.
    """
    from clipdrift.cli.progress import StudyProgress
    from clipdrift.machine.devices import limit_threads

    if max_runs is not None:
        budget = f"{max_runs} runs"
    shape: dict[str, Any] = {
        "transfers": transfers or [],
        "backbone": backbone,
        "cache_dir": cache,
        "say": lambda text: note(text, err=True),
    }
    limit_threads()
    if dry_run:
        _tell_plan(clipdrift.preview(images, **shape), budget, device, cache)
        return
    again = shlex.join(["clipdrift", "tune", str(images), "--out", str(out)])
    with said_when_interrupted(f"Interrupted; what is done is safe. Resume: {again} ..."):
        with StudyProgress(Terminal(quiet=is_quiet(), stderr=json_)) as progress:
            found = clipdrift.tune(
                images,
                out,
                keep=keep,
                min_accuracy=min_accuracy,
                budget=budget,
                workers=workers,
                device=device,
                on_event=progress,
                **shape,
            )
        if json_:
            say_json(asdict(found))
            return
    for line in found.lines():
        say(line)
    say(f"Use it: clipdrift predict {shlex.quote(str(out))} photo.jpg")


def _tell_plan(spec: StudySpec, budget: str, device: str, cache: Path | None) -> None:
    """What would be run, and for how long."""
    from clipdrift.cli.progress import duration
    from clipdrift.racing.limit import limit

    found, most = clipdrift.plan(spec, device=device, cache_dir=cache), limit(budget, "--budget")
    methods = ", ".join(method.name for method in spec.methods)
    say(f"Would race {methods}: {len(found.runs)} runs of {spec.schedule.epochs} epochs")
    say("Learning rates would be found by a ramp first; these are counted with four of them")
    cost = found.estimate
    if cost.seconds is None:
        say(f"Time unknown: {cost.reason}")
        return
    if most.unit == "h":
        say(f"At most {most.words} of search, and what confirming takes")
        return
    share = most.left(len(found.runs), 0.0, 0.0, 1) / len(found.runs)
    say(
        f"About {duration(min(1.0, share) * cost.seconds)} of search on {cost.machine}, "
        f"and {duration(3 * cost.seconds / len(found.runs))} to confirm"
    )
