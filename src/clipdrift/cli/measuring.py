"""Commands of the measuring side: from a folder of images to finished runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import clipdrift
from clipdrift.cli.executing import (
    Address,
    Cpus,
    ExecutorKind,
    Gpus,
    Kind,
    LocalDevice,
    RunsPerJob,
    RunTimeout,
    SlurmOptions,
    TimeLimit,
    Workers,
    make_executor,
)
from clipdrift.cli.interrupted import said_when_interrupted
from clipdrift.cli.options import Cache, Device, Json, Settings, SpecFile, StudyDir
from clipdrift.cli.racing import MinAccuracy, MinRetention, RaceLimit, Within, require_race, tell
from clipdrift.cli.terminal import Quiet, Terminal, is_quiet, note, say, say_json
from clipdrift.errors import Fault, SpecError


def init(
    images: Annotated[
        Path | None,
        typer.Argument(
            help="your images: one sub-folder per class, or a .csv, .jsonl or .parquet file"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="study file to write")] = Path("study.yaml"),
    backbone: Annotated[str | None, typer.Option(help="hub id, folder, or mini-clip")] = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(help="built-in set, suite or folder to watch; may be repeated"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="a few steps, to see that it works")
    ] = False,
) -> None:
    """Write a commented study file for your own images."""
    from clipdrift.commands.scaffold import study_text
    from clipdrift.records.writing import writing_to

    if out.exists():
        raise SpecError(
            Fault(str(out), "a new file", "one that exists", "Choose another --out or remove it")
        )
    text = study_text(images, out, backbone=backbone, transfers=transfer or [], quick=quick)
    with writing_to(out):
        out.write_text(text, encoding="utf-8")
    say(f"Wrote {out}. Next: clipdrift check {shlex.quote(str(out))}")


def check(
    spec_file: SpecFile,
    settings: Settings = None,
    json_: Json = False,
    cache: Cache = None,
    quiet: Quiet = False,
) -> None:
    """Read the study, load the backbone, prepare the images, carve the splits; train nothing."""
    from clipdrift.cli.checked import lines_of
    from clipdrift.machine.devices import limit_threads

    spec = clipdrift.load_spec(spec_file, settings or [])
    limit_threads()
    found = clipdrift.check(spec, cache_dir=cache, report=lambda text: note(text, err=True))
    if json_:
        say_json(found)
        return
    for line in lines_of(found):
        say(line)
    note(f"Ready. Next: clipdrift plan {shlex.quote(str(spec_file))}")


def plan(
    spec_file: SpecFile,
    settings: Settings = None,
    json_: Json = False,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Show cells, runs, the matchedness audit, and what they will cost in time and disk.

    The cost is that of all runs. More seeds, rates, methods or targets leave finished runs as they
    are; another transfer set is read by every run, so every run is measured anew.
    """
    from clipdrift.cli.progress import duration
    from clipdrift.cli.tables import audit_table, run_table
    from clipdrift.machine.devices import available_cores, choose_device
    from clipdrift.machine.energy import estimated
    from clipdrift.spec import expand

    spec = clipdrift.load_spec(spec_file, settings or [])
    console = Terminal()
    if not json_:  # before the cost, which takes seconds
        _tell_crowded()
        console.print(run_table(expand(spec, precision="float32")))
    found = clipdrift.plan(spec, device=device, cache_dir=cache)
    cost = found.estimate
    if json_:
        shown = {
            "study": found.name,
            "n_cells": found.n_cells,
            "n_runs": len(found.runs),
            "runs": [run.name for run in found.runs],
            "audit": [vars(row) for row in found.audit],
            "plugins": found.plugins,
            "estimate": vars(cost),
        }
        say_json(shown)
        return
    console.print(audit_table(found.audit))
    for name, origin in found.plugins.items():
        say(f"plugin {name}: {origin}")
    say(f"{found.n_cells} cells, {len(found.runs)} runs")
    if cost.reason:
        say(f"Time and disk unknown: {cost.reason}")
    elif cost.seconds is not None and cost.disk_bytes is not None:
        say(
            f"About {duration(cost.seconds)} on {cost.machine} and "
            f"{cost.disk_bytes / 1e6:,.0f} MB of disk"
        )
        say(
            estimated(cost.seconds * available_cores(), on_gpu=choose_device(device) != "cpu").words
        )


def run(
    spec_file: SpecFile,
    out: Annotated[
        Path | None, typer.Option(help="study folder; default runs/<name of the study>")
    ] = None,
    settings: Settings = None,
    quiet: Quiet = False,
    cache: Cache = None,
    executor: ExecutorKind = Kind.local,
    workers: Workers = None,
    device: LocalDevice = None,
    run_timeout: RunTimeout = None,
    cpus_per_run: Cpus = None,
    gpus_per_run: Gpus = None,
    address: Address = None,
    time_limit: TimeLimit = None,
    runs_per_job: RunsPerJob = None,
    slurm: SlurmOptions = None,
    race: RaceLimit = None,
    min_accuracy: MinAccuracy = None,
    within: Within = None,
    min_retention: MinRetention = None,
    track: Annotated[
        str | None,
        typer.Option(help="log each run as it ends: tensorboard, wandb, mlflow or trackio"),
    ] = None,
) -> None:
    """Measure every run that is not yet done, then analyse and write the report.

    Run the same command again to resume. Ctrl-C, SIGTERM and SIGHUP end it after the current
    training step with exit code 130, 143 and 129. A study file that has grown by seeds, rates,
    methods or targets measures what is missing; with another transfer set, all is measured anew.
    Every executor gives the same records. Two commands on one folder share its runs: each waits for
    those of the other, and both end with the whole report.

    With --race, every cell is read after a few epochs of one seed; then those runs go on, and more
    seeds and rates are measured, that can still change which candidate the whole grid would choose,
    until it is known with 95 % or the limit is reached. Runs that were paused are in no mean; the
    same command without the option measures all that was left out.

    With ray and slurm, study folder and cache must have the same path on all machines.
    """
    from clipdrift.cli.progress import StudyProgress
    from clipdrift.cli.reading import close_study
    from clipdrift.machine.devices import choose_device
    from clipdrift.machine.energy import Meter
    from clipdrift.records import StudyFolder
    from clipdrift.records.plan_claim import same_plan

    meter = Meter()

    given = {
        "--workers": workers,
        "--device": device,
        "--run-timeout": run_timeout,
        "--cpus-per-run": cpus_per_run,
        "--gpus-per-run": gpus_per_run,
        "--address": address,
        "--time-limit": time_limit,
        "--runs-per-job": runs_per_job,
        "--slurm": slurm or None,
    }
    floors = {
        "--min-accuracy": min_accuracy,
        "--within": within,
        "--min-retention": min_retention,
    }
    if race is None:
        require_race(floors)
    chosen = make_executor(executor, given)
    spec = clipdrift.load_spec(spec_file, settings or [])
    folder = out or Path("runs") / spec.name
    study = StudyFolder(folder)
    if executor is Kind.local:
        _tell_crowded()
    typed = {"--race": race, **floors}
    raced = [f"{part}" for pair in typed.items() if pair[1] is not None for part in pair]
    again = shlex.join(["clipdrift", "run", str(spec_file), "--out", str(folder), *raced])
    with said_when_interrupted(
        "Interrupted; finished runs are safe, and those in hand go on where they stopped. "
        f"Resume: {again}{_as_typed(settings or [])}"
    ):
        with StudyProgress(Terminal(quiet=is_quiet())) as progress:
            rest: dict[str, Any] = {
                "executor": chosen,
                "cache_dir": cache,
                "track": track,
                "on_event": progress,
            }
            log = None
            if race is None:
                outcome = clipdrift.run_study(spec, folder, **rest)
            else:
                outcome, log = clipdrift.race(
                    spec,
                    folder,
                    race,
                    min_accuracy=min_accuracy,
                    within=within,
                    min_retention=min_retention,
                    workers=workers or 2,
                    **rest,
                )
        with same_plan(study, outcome.plan):
            if study.has_finished():
                close_study(study)
    if log is not None:
        on_gpu = executor is Kind.local and choose_device(chosen.device) != "cpu"

        def energy(core_seconds: float) -> str:
            if executor is not Kind.local:
                return "energy unknown: other machines spent it"
            return meter.so_far(core_seconds, on_gpu=on_gpu).words

        tell(log, study, energy)
    for run_id, reason in outcome.failed.items():
        say(f"failed: {run_id}: {reason}")
    if outcome.failed:
        raise typer.Exit(1)


def _as_typed(settings: Sequence[str]) -> str:
    return "".join(f" --set {shlex.quote(setting)}" for setting in settings)


def _tell_crowded() -> None:
    from clipdrift.machine.devices import crowded

    if busy := crowded():
        note(busy, err=True)


def status(folder: StudyDir, json_: Json = False) -> None:
    """Say which runs of a study are finished, under way with epoch and time left, or to do."""
    from clipdrift.cli.tables import progress_words, state_line, status_of
    from clipdrift.study.status import study_status, under_way

    states = study_status(folder)
    progress = under_way(folder, states)
    if json_:
        say_json({name: status_of(state, progress.get(name)) for name, state in states.items()})
        return
    for run_id, state in states.items():
        if state != "finished":
            say(f"{state:11} {run_id}{progress_words(progress.get(run_id), state)}")
    say(state_line(states))


def datasets(
    name: Annotated[str | None, typer.Argument(help="show one, or a suite")] = None,
) -> None:
    """List the datasets that a study can name under `builtin`, and which are on this machine."""
    from clipdrift.cli.tables import dataset_card, dataset_table

    if name is None:
        Terminal().print(dataset_table())
    else:
        say(*dataset_card(name))
