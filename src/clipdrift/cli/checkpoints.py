"""Commands for weights: those of a run, and those that others made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipdrift.cli.checkpoint_tables import (
    drift_table,
    exportable_table,
    findings_table,
    transfer_table,
)
from clipdrift.cli.measuring import Cache, Device, Json
from clipdrift.cli.terminal import Terminal, say, say_json
from clipdrift.errors import Fault, SpecError
from clipdrift.records import StudyFolder
from clipdrift.spec import load_spec

if TYPE_CHECKING:
    from clipdrift.checkpoint.checks import Finding
    from clipdrift.finished.evaluate import Compared


def evaluate(
    folder: Annotated[
        Path, typer.Argument(help="a run, a peft adapter, or a CLIP or SigLIP", show_default=False)
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
    json_: Json = False,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Measure saved weights: a run again, or an adapter or CLIP of anyone's against its baseline.

    Exit code 1 if a run gives other numbers than its record, or if something about a checkpoint
    makes its numbers mislead (adapters that do not act, another activation, ...).
    """
    from clipdrift.checkpoint.find import kind_of
    from clipdrift.machine.devices import limit_threads

    limit_threads()
    if kind_of(folder) == "run":
        given = {"--spec": spec, "--baseline": baseline, "--images": images}
        if got := [name for name, value in given.items() if value is not None]:
            expected = "a run alone: it knows its study"
            raise SpecError(Fault(str(folder), expected, ", ".join(got), "Leave it away"))
        _evaluate_run(folder, json_, cache, device)
    else:
        _evaluate_checkpoint(folder, baseline, spec, images, json_, cache, device)


def _evaluate_run(run_dir: Path, json_: bool, cache: Path | None, device: str) -> None:
    from clipdrift.finished.evaluate import evaluate_run

    compared = evaluate_run(run_dir, cache_dir=cache, device=device)
    if json_:
        say_json([vars(row) for row in compared])
    else:
        _print_compared(compared)
    if not all(row.agrees for row in compared):
        raise typer.Exit(1)


def _print_compared(compared: list[Compared]) -> None:
    for row in compared:
        mark = "" if row.agrees else "  <- differs"
        say(f"{row.name:45} record {row.recorded!s:>22}  now {row.measured!s:>22}{mark}")
    wrong = sum(not row.agrees for row in compared)
    say(f"{len(compared)} numbers, {wrong} differ")


def _evaluate_checkpoint(
    folder: Path,
    baseline: str | None,
    spec: Path | None,
    images: str | None,
    json_: bool,
    cache: Path | None,
    device: str,
) -> None:
    from clipdrift.checkpoint.measure import evaluate_checkpoint, evaluate_on_images

    console = Terminal(quiet=json_)

    def tell(findings: list[Finding]) -> None:
        console.print(findings_table(str(folder), findings))

    if spec is not None and images is None:
        found = evaluate_checkpoint(
            folder,
            load_spec(spec),
            baseline=baseline,
            cache_dir=cache,
            device=device,
            on_found=tell,
        )
    elif spec is None and images is not None and baseline is not None:
        found = evaluate_on_images(
            folder, images, baseline, cache_dir=cache, device=device, on_found=tell
        )
    else:
        raise SpecError(_unsaid(folder, baseline, spec, images))
    if json_:
        say_json(found.to_dict())
    if found.targets:
        title = "Zero-shot on the targets' test parts, no head: was fine-tuning needed?"
        console.print(transfer_table(found.targets, title))
    console.print(transfer_table(found.transfers, "Zero-shot transfer"))
    console.print(drift_table(found.drift))
    if not found.sound:
        raise typer.Exit(1)


def _unsaid(
    folder: Path, baseline: str | None, spec: Path | None, images: str | None
) -> list[Fault]:
    """What to evaluate a folder on and against is not said, or said twice."""
    both = "a study file (--spec), or images and the untouched model (--images, --baseline)"
    example = f"clipdrift evaluate {folder} --images photos/ --baseline ID, with photos/CLASS/..."
    if spec is not None:
        return [Fault("--images", both, "--spec too", "Leave one of them away")]
    faults = []
    if images is None:
        faults.append(Fault("--images", both, "neither", f"For example: {example}"))
    if baseline is None:
        expected = "the untouched model that the folder was made from, by hub id or folder"
        faults.append(Fault("--baseline", expected, "none", "Name it"))
    return faults


def export_model(
    run_dir: Annotated[
        Path, typer.Argument(help="folder of one run, or of a study: lists its runs")
    ],
    out: Annotated[
        Path | None, typer.Option(help="new folder for the model", show_default=False)
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option(
            "--adapter/--merged",
            help="merged: a whole model for transformers; adapter: what peft loads onto it",
        ),
    ] = False,
) -> None:
    """Write the model of a run for transformers or peft, read it back and compare."""
    from clipdrift.backbone import backbone_folder
    from clipdrift.finished.evaluate import finished_run
    from clipdrift.finished.export import export_adapter, export_merged

    _require_run(run_dir)
    if out is None:
        raise SpecError(Fault("--out", "a new folder for the model", "none", "Name one"))
    (export_adapter if adapter else export_merged)(run_dir, out)
    base = finished_run(run_dir)[1].backbone
    where = str(backbone_folder(base))
    study = run_dir.resolve().parent.parent / "study.yaml"
    load = f"AutoModel.from_pretrained({str(out)!r})"
    if adapter:
        tower = f"AutoModel.from_pretrained({where!r}).vision_model"
        load = f"PeftModel.from_pretrained({tower}, {str(out)!r})"
    say(f"Wrote {out}; read back, its embeddings are those of the run.")
    say(f"In Python: {load}")
    if adapter:
        say("Classifier and projection, which lie outside the adapter: head.safetensors")
    say(f"Classify with it: the lines in {out / 'README.md'}; classes are in clipdrift.json")
    words = ["evaluate", str(out), "--baseline", str(base.id), "--spec", str(study)]
    say(f"Next: clipdrift {shlex.join(words)}")


def _require_run(folder: Path) -> None:
    """A study holds many runs: list those that can be exported, and ask for one.

    Raises:
        SpecError: if the folder is that of a study.
    """
    study = StudyFolder(folder)
    if (folder / "record.json").is_file() or not study.runs_path.is_dir():
        return
    records = [r for r in study.records()[0] if "head.safetensors" in r.files]
    Terminal().print(exportable_table(records))
    step = f"Name one, such as {study.run_path(records[0].run_id)}" if records else "Run it first"
    raise SpecError(Fault(str(folder), "one run", f"a study with {len(records)} runs", step))


__all__ = ["evaluate", "export_model"]
