"""`run --race`: the options that ask the question, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from clipdrift.cli.terminal import say
from clipdrift.errors import Fault, SpecError

if TYPE_CHECKING:
    from clipdrift.records import StudyFolder
    from clipdrift.records.race_log import RaceLog

PANEL = "Race"
RaceLimit = Annotated[
    str | None,
    typer.Option(
        "--race",
        metavar="LIMIT",
        rich_help_panel=PANEL,
        help="measure only what can change the answer, and at most so much: 2h, 40% of the grid, "
        "or '60 runs'",
        show_default=False,
    ),
]
MinAccuracy = Annotated[
    float | None,
    typer.Option(rich_help_panel=PANEL, help="the race's floor on accuracy, percent"),
]
Within = Annotated[
    float | None,
    typer.Option(rich_help_panel=PANEL, help="or: points below the best accuracy; default 1"),
]
MinRetention = Annotated[
    float | None,
    typer.Option(rich_help_panel=PANEL, help="the race's floor on retention, percent"),
]


def require_race(floors: Mapping[str, float | None]) -> None:
    """Refuse floors without a race.

    Raises:
        SpecError: naming the first.
    """
    if given := [name for name, value in floors.items() if value is not None]:
        step = "Add --race with a limit such as 40%, or ask 'clipdrift choose' afterwards"
        raise SpecError(Fault(given[0], "--race beside it", "none", step))


def tell(log: RaceLog, folder: StudyFolder, energy: Callable[[float], str]) -> None:
    """The answer for each target, what it cost, and what was left out.

    energy: in words, of so many core seconds.
    """
    from clipdrift.records.race_log import left_out

    say(f"Race: {log.budget}.")
    for target in log.answers:
        say(f"{log.words(target)}.")
    share, records = 100 * log.spent / log.n_runs, folder.records()[0]
    words = energy(sum(record.core_seconds for record in records))
    say(f"Spent: the training of {log.spent:.1f} runs of {log.n_runs} ({share:.0f} %), {words}.")
    words = left_out(folder.planned() or {}, records)
    say(f"{words[0].upper()}{words[1:]}.")
