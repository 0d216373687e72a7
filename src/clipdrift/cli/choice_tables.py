"""What `choose` prints: an answer, its candidates and what would change it, for each target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.text import Text

from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.analysis.statistics.fit import REMARKS
from clipdrift.cli.tables import FIT_KEY, FIT_SIGNS
from clipdrift.cli.terminal import Sheet, line

STANDINGS = {"runner_up": "runner-up", "nearest_miss": "nearest miss"}
CAVEATS = (
    "Shares are of draws of the seeds and images that there were; of others they know nothing.",
    "Retention has no validation part: what the chosen one keeps is a little flattered.",
)


def choice_text(rows: Sequence[Candidacy], leaks: Sequence[str]) -> Iterator[Sheet | Text]:
    """Everything to print, in order."""
    for _, group in groupby(rows, key=lambda row: (row.backbone, row.target)):
        own = list(group)
        for part in answer(own):
            yield line(part, "bold")
        if own[0].standing != "none":
            yield candidate_table(own)
        if own[0].would_change:
            yield line(f"What would change it: {own[0].would_change}.")
        if own[0].selected_on == "test_accuracy":
            words = "No validation accuracy: chosen on the test part, so its accuracy is flattered."
            yield line(f"Leak. {words}", "yellow")
        yield line("")
    for leak in leaks:
        yield line(f"Leak stated in the records: {leak}.", "yellow")
    for caveat in CAVEATS:
        yield line(caveat, "dim")


def answer(rows: Sequence[Candidacy]) -> tuple[str, str]:
    """For one target, what was asked and the answer, a line each."""
    best = rows[0]
    head = f"{best.target} ({best.backbone}): {best.budget}"
    if best.standing == "none":
        return head, f"-> nothing can be judged: {best.reason}"
    if best.standing == "chosen":
        p = "" if best.p_chosen is None else f", chosen in {_draws(best.p_chosen, best)}"
        flag = f"; {REMARKS[best.fit]}" if best.fit in REMARKS else ""
        return head, f"-> {best.name}{p}{flag}"
    p = "" if best.p_none is None else f", in {_draws(best.p_none, best)}"
    miss = f"nearest miss {best.name}, {best.shortfall_pp:.1f} pp short"
    return head, f"-> none of {best.n_candidates} candidates does{p}; {miss}"


def _draws(share: float, row: Candidacy) -> str:
    """For example `96 % of draws of seeds and images`."""
    return f"{100 * share:.0f} % of draws of {row.draws_of}"


def candidate_table(rows: Sequence[Candidacy]) -> Sheet:
    """One row per candidate; those that do not fit marked. Says no more than the answer needs."""
    first = rows[0]
    part = "val %" if first.selected_on == "val_accuracy" else "test %"
    columns: dict[str, Callable[[Candidacy], str]] = {
        "": lambda row: STANDINGS.get(row.standing, str(row.standing)),
        "candidate": lambda row: row.name + FIT_SIGNS.get(row.fit or "", ""),
        "n": lambda row: str(row.n),
        part: lambda row: _number(row.accuracy, 100),
        "test %": lambda row: _mean_sd(row.test_accuracy, row.sd_test_accuracy, 100),
        "kept %": lambda row: _mean_sd(row.retention_pct, row.sd_retention_pct),
    }
    if len(first.transfers) > 1:
        columns["least on"] = lambda row: str(row.least_on)
    if any(row.gone_pp is not None for row in rows):
        columns["lost"] = lambda row: _number(row.lost_pp)
        columns["gone"] = lambda row: _number(row.gone_pp)
    if any(row.shortfall_pp for row in rows):
        columns["short"] = lambda row: _number(row.shortfall_pp)
    columns |= {
        "meets": lambda row: _share(row.p_meets),
        "chosen": lambda row: _share(row.p_chosen),
    }
    table = Sheet(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in columns:
        left = name in ("", "candidate", "least on")
        table.column(name, right=not left)
    for row in rows:
        style = "bold" if row.standing == "chosen" else ""
        table.row(*(cell(row) for cell in columns.values()), style=style)
    lost = "lost, gone: pp of zero-shot accuracy; the rest a ridge read-out still finds; "
    lost = lost if "gone" in columns else ""
    shown = f"{lost}{len(rows)} of {first.n_candidates} candidates, mean ± SD over seeds"
    table.caption = line(f"{shown}; {FIT_KEY}; what underfits barely trained")
    return table


def _number(value: float | None, scale: float = 1) -> str:
    return "-" if value is None else f"{round(scale * value, 1) + 0.0:.1f}"


def _mean_sd(mean: float | None, sd: float | None, scale: float = 1) -> str:
    return _number(mean, scale) + ("" if sd is None or mean is None else f" ± {scale * sd:.1f}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
