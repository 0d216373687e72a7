"""Commands for weights: those of a run, and those that others made."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clipdrift
from clipdrift.cli.checkpoint_tables import (
    block_table,
    drift_table,
    exportable_table,
    findings_table,
    transfer_table,
)
from clipdrift.cli.options import Cache, Device, Json
from clipdrift.cli.terminal import Terminal, say, say_json
from clipdrift.errors import Fault, SpecError

if TYPE_CHECKING:
    from clipdrift.checkpoint.checks import Finding
    from clipdrift.checkpoint.measure import Evaluation
    from clipdrift.finished.evaluate import Compared


class Library(StrEnum):
    """Libraries whose layout is written."""

    transformers = "transformers"
    open_clip = "open_clip"


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="a run, a peft adapter, a CLIP or SigLIP of transformers or open_clip, or a file "
            "of weights (.pt, .safetensors)",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(help="untouched CLIP of an adapter or CLIP; default: the study's backbone"),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="study that names probe images and transfers")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="in place of a study: folder of class folders, or a dataset's name"),
    ] = None,
    transfers: Annotated[
        list[str] | None,
        typer.Option(help="one more of these, for zero-shot alone; may be given several times"),
    ] = None,
    json_: Json = False,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Measure saved weights: a run again, or an adapter or CLIP of anyone's against its baseline.

    Exit code 1 if a run gives other numbers than its record, or if something about a checkpoint
    makes its numbers mislead (adapters that do not act, another activation, ...).
    """
    from clipdrift.machine.devices import limit_threads

    limit_threads()

    def tell(findings: list[Finding]) -> None:
        Terminal(quiet=json_).print(findings_table(str(folder), findings))

    found = clipdrift.evaluate(
        folder,
        baseline=baseline,
        study=spec,
        images=images,
        transfers=transfers or [],
        cache_dir=cache,
        device=device,
        on_found=tell,
    )
    if isinstance(found, list):
        sound = all(row.agrees for row in found)
        say_json([vars(row) for row in found]) if json_ else _print_compared(found)
    else:
        sound = found.sound
        say_json(found.to_dict()) if json_ else _print_evaluation(found)
    if not sound:
        raise typer.Exit(1)


def _print_compared(compared: list[Compared]) -> None:
    for row in compared:
        mark = "" if row.agrees else "  <- differs"
        say(f"{row.name:45} record {row.recorded!s:>22}  now {row.measured!s:>22}{mark}")
    wrong = sum(not row.agrees for row in compared)
    say(f"{len(compared)} numbers, {wrong} differ")


def _print_evaluation(found: Evaluation) -> None:
    console = Terminal()
    if found.targets:
        title = "Zero-shot on the targets' test parts, no head: was fine-tuning needed?"
        console.print(transfer_table(found.targets, title, {}))
    console.print(transfer_table(found.transfers, "Zero-shot transfer", found.correct))
    console.print(drift_table(found.drift))
    for name, reading in found.drift.items():
        console.print(block_table(reading, name))


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="as backbone.id: a folder, a file of weights, a hub id, open_clip:MODEL/TAG",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="new folder for the model", show_default=False)],
    to: Annotated[Library, typer.Option(help="the library that is to load it")],
    model: Annotated[
        str | None,
        typer.Option(
            help="open_clip's name of the model, for weights that cannot say it; its weights "
            "(MODEL/TAG, hub id, folder) for an image tower alone or a CLIP-LoRA"
        ),
    ] = None,
) -> None:
    """Write a CLIP or SigLIP of open_clip's for transformers, or the other way round.

    Weights are renamed, cut and turned; no number of them changes.
    """
    from clipdrift.machine.devices import limit_threads

    limit_threads()
    what, *more = clipdrift.convert(source, out, to=to.value, model=model)
    for line in (f"Read: {what}", *more):
        say(f"{line[:1].upper()}{line[1:]}.")
    load = {
        "transformers": f"AutoModel.from_pretrained({str(out)!r})",
        "open_clip": f"open_clip.create_model_and_transforms({f'local-dir:{out}'!r})",
    }
    say(f"Wrote {out}; read back, its weights are the same.")
    say(f"In Python: {load[to.value]}")


def export_model(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            help="folder of one run; of all seeds of a cell: a soup, the mean of their weights; of "
            "a study: lists its runs",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="new folder for the model", show_default=False)
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option(
            "--adapter/--merged",
            help="merged: a whole model; adapter: what peft loads onto the untouched one",
        ),
    ] = False,
    to: Annotated[
        Library, typer.Option(help="the library that is to load a whole model")
    ] = Library.transformers,
    alpha: Annotated[
        float,
        typer.Option(min=0, max=1, help="mix with the untouched weights: 0 those alone"),
    ] = 1.0,
    scale: Annotated[
        float, typer.Option(min=0, max=10, help="of what training moved in the towers")
    ] = 1.0,
) -> None:
    """Write the model of a run for transformers, open_clip or peft, read it back and compare.

    What 'clipdrift choose' names at an alpha, or a soup, is written by --alpha and by its runs.
    """
    from clipdrift.backbone import backbone_folder
    from clipdrift.finished.evaluate import finished_run

    for run_dir in run_dirs:
        _require_run(run_dir)
    if out is None:
        raise SpecError(Fault("--out", "a new folder for the model", "none", "Name one"))
    rest: dict[str, Any] = {"adapter": adapter, "to": to.value, "alpha": alpha, "scale": scale}
    clipdrift.export_model(run_dirs, out, **rest)
    base = finished_run(run_dirs[0])[1].backbone
    where = str(backbone_folder(base))
    study = run_dirs[0].resolve().parent.parent / "study.yaml"
    load = f"AutoModel.from_pretrained({str(out)!r})"
    if adapter:
        tower = f"AutoModel.from_pretrained({where!r}).vision_model"
        load = f"PeftModel.from_pretrained({tower}, {str(out)!r})"
    if to is Library.open_clip:
        load = f"open_clip.create_model_and_transforms({f'local-dir:{out}'!r})"
    say(f"Wrote {out}; read back, its embeddings are those that were written.")
    say(f"In Python: {load}")
    if adapter:
        say("Classifier and projection, which lie outside the adapter: head.safetensors")
    if to is Library.transformers:
        say(f"Classify with it: the lines in {out / 'README.md'}; classes are in clipdrift.json")
    words = ["evaluate", str(out), "--spec", str(study)]  # whose backbone is the baseline
    say(f"Next: clipdrift {shlex.join(words)}")


def _require_run(folder: Path) -> None:
    """A study holds many runs: list those that can be exported, and ask for one.

    Raises:
        SpecError: if the folder is that of a study.
    """
    from clipdrift.records import StudyFolder

    study = StudyFolder(folder)
    if (folder / "record.json").is_file() or not study.runs_path.is_dir():
        return
    records = [r for r in study.records()[0] if "head.safetensors" in r.files]
    Terminal().print(exportable_table(records))
    step = f"Name one, such as {study.run_path(records[0].run_id)}" if records else "Run it first"
    raise SpecError(Fault(str(folder), "one run", f"a study with {len(records)} runs", step))
