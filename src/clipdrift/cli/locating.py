"""The command that edits finished runs and says where a loss lies, and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import clipdrift
from clipdrift.cli.after import KEPT, tell_read
from clipdrift.cli.interrupted import said_when_interrupted
from clipdrift.cli.options import Cache, Device, StudyDir
from clipdrift.cli.terminal import Sheet, Terminal, note

if TYPE_CHECKING:
    from clipdrift.analysis.questions.located import LossPlace

COLUMNS = (
    "target",
    "method",
    "LR",
    "set",
    "lost, pp",
    "carried by",
    "share",
    "p (Holm)",
    "attention",
    "why not",
)


def locate(
    folder: StudyDir,
    what: Annotated[
        list[str] | None,
        typer.Option(
            help="weights, kinds, elsewhere, attention, heads, states or ablations, as "
            "docs/interventions.md says, or all; repeatable; default weights and attention",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="random changes of the same size beside each edit of weights")
    ] = 1,
    images: Annotated[int, typer.Option(help="at most so many of each set are read")] = 100,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="runs at once; default: what cores and memory have room for"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be read and how long it takes")
    ] = False,
    cache: Cache = None,
    device: Device = "auto",
) -> None:
    """Edit finished runs without training, and say which block carries what they lost.

    Each block, and attention, MLP and norms in those that may carry the loss, are put back to the
    untouched weights, and moved alone in the untouched model; each model runs with the other's
    attention. What it will take is told first. Readings lie in DIR/located, and those that are
    there are kept; records stay as they are. An answer is over seeds, and "cannot tell" where no
    part stands out.
    """
    from clipdrift.cli.reading import close_study
    from clipdrift.commands.locating import DEFAULT
    from clipdrift.machine.devices import limit_threads
    from clipdrift.records import StudyFolder

    limit_threads()
    study = StudyFolder(folder)
    with said_when_interrupted(KEPT):
        done = clipdrift.locate(
            study,
            what=what or DEFAULT,  # type: ignore[arg-type]  # held to WHAT there
            draws=draws,
            n_images=images,
            workers=workers,
            dry_run=dry_run,
            cache_dir=cache,
            device=device,
            say=note,
        )
        tell_read(done.read, done.kept, done.left_out, folder / "located")
        if not dry_run:
            _tell(study.path.name, close_study(study)["loss_places"])


def _tell(name: str, rows: list[dict[str, object]]) -> None:
    from clipdrift.analysis.questions.located import LossPlace

    if rows:
        Terminal().print(_table(name, [LossPlace.read(row) for row in rows]))
    note("An effect of an edit is no proof of what training did: docs/interventions.md")


def _table(name: str, rows: list[LossPlace]) -> Sheet:
    table = Sheet(f"What carries the loss of transfer in {name}", title_justify="left")
    for column in COLUMNS:
        words = column in {"target", "method", "set", "carried by", "why not"}
        table.column(column, right=not words, wraps=column == "why not")
    for row in rows:
        table.row(
            row.target,
            row.method,
            f"{row.learning_rate:g}",
            row.transfer,
            "–" if row.lost_pp is None else f"{row.lost_pp:.1f}",
            row.carried_by,
            "–" if row.share is None else f"{row.share:.0%}",
            "–" if row.p_holm is None else f"{row.p_holm:.3f}",
            _attention(row),
            row.reason or "",
        )
    return table


def _attention(row: LossPlace) -> str:
    if row.attention_share is None or row.attention_low is None or row.attention_high is None:
        return "–"
    return f"{row.attention_share:.0%} ({row.attention_low:.0%} to {row.attention_high:.0%})"
