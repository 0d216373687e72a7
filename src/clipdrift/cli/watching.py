"""The command that follows a study from outside: in another terminal, and as a page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from clipdrift.cli.interrupted import said_when_interrupted
from clipdrift.cli.options import StudyDir
from clipdrift.cli.terminal import Sheet, Terminal, say

if TYPE_CHECKING:
    from clipdrift.run.progress import Progress

OPEN = ("running", "interrupted", "to do")
"""States of a run that will have a record."""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
{again}<title>{line}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }}
td {{ padding: .2em 1em .2em 0; overflow-wrap: anywhere }} progress {{ width: 100% }}
</style>
<h1>{line}</h1>
<progress max="{n_runs}" value="{n_done}">{n_done} of {n_runs}</progress>
<table>{rows}</table>
<p>As of {now}.</p>
</html>
"""


def watch(
    folder: StudyDir,
    every: Annotated[float, typer.Option(min=0.2, help="seconds from one look to the next")] = 5.0,
    page: Annotated[
        Path | None, typer.Option(help="keep an HTML page there that refreshes itself")
    ] = None,
) -> None:
    """Follow a study until its last run is done, from another terminal or as a page.

    Nothing of the study is touched: stop and start it as you like. `clipdrift report` may be called
    meanwhile, too; it says which runs have no record yet.
    """
    from clipdrift.cli.tables import state_line
    from clipdrift.records import atomic_write
    from clipdrift.study.status import study_status, under_way

    console, told = Terminal(), ""
    with (
        said_when_interrupted("No longer watching; the study goes on"),
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        while True:
            states = study_status(folder)
            progress, line = under_way(folder, states), state_line(states)
            goes_on = any(state in OPEN for state in states.values())
            if page is not None:
                atomic_write(page, _page(line, states, progress, every if goes_on else None))
            if not goes_on:
                break
            if console.is_terminal:
                live.update(_table(line, states, progress), refresh=True)
            elif line != told:
                say(line)
            told = line
            time.sleep(every)
    say(line)


def _rows(
    states: Mapping[str, str], progress: Mapping[str, Progress]
) -> list[tuple[str, str, str]]:
    """State, name and how far it is, of every run that is not finished and not merely to do."""
    from clipdrift.cli.tables import progress_words

    shown = {run: state for run, state in states.items() if state not in ("finished", "to do")}
    return [
        (state, run, progress_words(progress.get(run), state).removeprefix(": "))
        for run, state in shown.items()
    ]


def _table(line: str, states: Mapping[str, str], progress: Mapping[str, Progress]) -> Sheet:
    table = Sheet(line)
    for name in ("state", "run", "how far"):
        table.column(name)
    for row in _rows(states, progress):
        table.row(*row)
    return table


def _page(
    line: str,
    states: Mapping[str, str],
    progress: Mapping[str, Progress],
    every: float | None,
) -> str:
    cells = [[f"<td>{escape(cell)}</td>" for cell in row] for row in _rows(states, progress)]
    again = "" if every is None else f'<meta http-equiv="refresh" content="{max(1, every):.0f}">'
    return PAGE.format(
        again=again,
        line=escape(line),
        n_runs=len(states),
        n_done=sum(state not in OPEN for state in states.values()),
        rows="".join(f"<tr>{''.join(row)}</tr>" for row in cells),
        now=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
