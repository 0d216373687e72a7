"""Commands of the reading side: they need records only, and never import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clipdrift
from clipdrift.cli.options import StudyDir
from clipdrift.cli.terminal import Terminal, is_quiet, note, say
from clipdrift.errors import SHOWN_ALIKE

if TYPE_CHECKING:
    from clipdrift.records import StudyFolder


def analyze(folder: StudyDir) -> None:
    """Compute analysis.json and tables/*.csv from the records of a study."""
    say(f"{runs_used(clipdrift.analyze(folder))}: {folder / 'analysis.json'}")


def runs_used(analysis: Mapping[str, Any]) -> str:
    """For example `4 of 4 records used, 12 planned, 8 to do`."""
    origin = analysis["generated_from"]
    used = f"{origin['n_runs_used']} of {origin['n_records']} records used"
    left = f", {origin['n_planned']} planned, {origin['n_to_do']} to do"
    return used + left if origin["n_to_do"] else used


def report(
    folder: StudyDir,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="show images that were lost whatever the licence of their set; without it, of "
            "sets whose licence lets anyone pass them on",
        ),
    ] = False,
) -> None:
    """Analyse a study and write report.html, figures and tables for papers."""
    say(runs_used(clipdrift.analyze(folder)))
    say(str(clipdrift.write_report(folder, pictures=pictures)))


def audit(
    folder: StudyDir,
    all_: Annotated[
        bool, typer.Option("--all", help="every difference, not the first few of each table")
    ] = False,
) -> None:
    """Recompute every number of a report from the records; exit code 1 if one differs.

    Also where a planned run has no record, or a record cannot be used. It says what a race left
    out.
    """
    from clipdrift.records import StudyFolder
    from clipdrift.records.race_log import left_out, read_race

    differences = clipdrift.audit(folder)
    place = StudyFolder(folder)
    if read_race(place) is not None:
        say(f"Note: {left_out(place.planned() or {}, place.records()[0])}.")
    # One row too few shifts all below it: of one table the first differences say what is wrong.
    alike: dict[str, list[str]] = {}
    for difference in differences:
        part = difference.place.partition(",")[0].partition(" [")[0]
        alike.setdefault(part, []).append(str(difference))
    for part, lines in alike.items():
        shown = lines if all_ else lines[:SHOWN_ALIKE]
        for line in shown:
            say(line)
        if len(shown) < len(lines):
            say(f"{part}: {len(lines) - len(shown):,} more; --all shows them")
    if differences:
        raise typer.Exit(1)
    say("Every printed number follows from the records.")


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV with one row per run, JSON files of runs, or a bundle", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="new study folder", show_default=False)],
    map_: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="YAML: columns, units, constants; not for results of peft's method_comparison",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make records of runs that were measured elsewhere, or open a bundle.

    The map says which column is which field: columns: {acc: test_accuracy, ...}.
    What holds for all rows stands under constants. The numbers of images
    (test_n_images, transfer.<name>.n_images) and of classes
    (transfer.<name>.n_classes) give accuracies their error from images, and take
    away retention where the baseline is not distinguishable from chance.
    docs/importing.md lists the fields, and says how results of peft and CLIP_benchmark are read.
    """
    summary = clipdrift.import_runs(source, map_, out)
    for warning in summary.warnings:
        say(f"warning: {warning}")
    say(f"{summary.n_records} records from {summary.n_rows} rows in {summary.folder}")
    if summary.extra_signals:
        say(f"kept as extra signals: {', '.join(summary.extra_signals)}")
    if summary.ignored_columns:
        say(f"left out, not numeric: {', '.join(summary.ignored_columns)}")
    if summary.constant_columns:
        say(f"left out, the same in all rows: {', '.join(summary.constant_columns)}")


def close_study(study: StudyFolder) -> dict[str, Any]:
    """What ends a run of a study: analysis, report, the table of cells, where to look.

    Returns:
        The analysis.
    """
    from clipdrift.cli.tables import cell_table

    note("analysing and writing the report ...")
    analysis = clipdrift.analyze(study)
    path = clipdrift.write_report(study).resolve()
    Terminal(quiet=is_quiet()).print(cell_table(analysis))
    if analysis["generated_from"]["n_to_do"]:
        say(runs_used(analysis))
    say(f"Report: {path}")
    return analysis
