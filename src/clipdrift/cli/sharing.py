"""Commands that pass studies on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import clipdrift
from clipdrift.cli.choosing import tell_left_out
from clipdrift.cli.options import Json, StudyDir
from clipdrift.cli.terminal import Terminal, note, say, say_json

QUESTIONS = {
    "retention_at_equal_accuracy": "retention at equal accuracy",
    "accuracy_at_best_rates": "accuracy at best rates",
}
POOLED_FIELDS = ("studies", "diff_pp", "ci_low", "tau_pp", "i2", "prediction_low")


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


def pool(
    studies: Annotated[
        list[Path], typer.Argument(help="study folders or bundles, two or more", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="new folder", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="compare this method; repeatable; default: every two", show_default=False
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Join studies whose conditions agree, and pool the others by a meta-analysis.

    Where fingerprints agree runs are joined to one study. The rest is never mixed: each study gives
    a difference of two methods, and a random-effects model their mean, how much studies differ, and
    what a new one would give. Writes pooled.json, tables, forest plots and joined studies.
    """
    from clipdrift.cli.forecast_tables import fields_table

    found = clipdrift.pool(*studies, out=out, methods=method or [])
    tell_left_out(found.faults)
    if json_:
        say_json({"effects": found.effects, "pooled": found.pooled})
        return
    for group in found.studies:
        many = len(group.studies) > 1
        say(f"{group.name}: joined, {len(group.records)} runs" if many else f"{group.name}: alone")
        if group.repeated:
            say(f"  {group.repeated} runs stand in several of them and count once")
        for other, why in group.apart.items():
            say(f"  not joined with {other}: {why}")
    for row in found.pooled:
        if row.remark:
            say(f"{row.method_a} - {row.method_b}, {QUESTIONS[row.question]}: {row.remark}")
    console = Terminal()
    for question, words in QUESTIONS.items():
        rows = [row for row in found.pooled if row.question == question and row.diff_pp is not None]
        if rows:
            names = ("method_a", "method_b", *POOLED_FIELDS)
            console.print(fields_table(f"Difference in {words}, points", names, rows))
    for folder in found.folders:
        say(f"Joined study, for every command: {folder}")
    say(f"Forest plots and tables: {out}")


def gallery(
    studies: Annotated[
        list[Path], typer.Argument(help="study folders or bundles", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="folder of the site", show_default=False)],
) -> None:
    """Write a static site of studies, filtered by backbone, target and method.

    Each study has its report to open, and its records to download where a licence is stated.
    Folders are left as they are. The site needs no network and no server.
    """
    cards = clipdrift.gallery(*studies, out=out)
    for card in cards:
        say(f"{card.title}: {card.runs} runs, {card.licence or 'no licence stated'}")
    say(f"{len(cards)} studies: {(out / 'index.html').resolve()}")
