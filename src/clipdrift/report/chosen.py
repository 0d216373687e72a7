"""The choice in words and numbers: what best meets a budget, how surely, what would change it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clipdrift.analysis.questions.candidates import AS_TRAINED, INTERPOLATED
from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.analysis.statistics.fit import REMARKS
from clipdrift.report.digits import NBSP
from clipdrift.report.metrics import metric
from clipdrift.report.printed import COUNT, DERIVED, MEAN, MEAN_SD, Printed, Sentence, mean_sd_text
from clipdrift.report.source import Place, Study, mark_of
from clipdrift.report.tables import MAX_ROWS, Column, Table, text_columns, word

SPLIT = {
    "lost_pp": ("Lost (pp)", "zero-shot accuracy lost there"),
    "gone_pp": ("Gone (pp)", "the part of it that a ridge read-out lost too"),
    "misaligned_pp": ("Misaligned (pp)", "the rest, which it still finds"),
}
"""Field -> heading and what it is, where sets were read in full."""


class Pick(NamedTuple):
    """What best meets one budget, what to know of it, and who else could be chosen."""

    budget: Printed
    answer: Sentence
    notes: Sequence[Sentence]
    table: Table | None


class ChoiceCard(NamedTuple):
    """The choice for one target, a pick for each budget."""

    title: str
    picks: Sequence[Pick]


def choices(study: Study) -> list[ChoiceCard]:
    """A card for each target that anything can be said of."""
    rows = study.rows(Candidacy)
    cards = []
    number = 0
    for place in dict.fromkeys(Place(row.backbone, row.target) for row in rows):
        own = [row for row in rows if (row.backbone, row.target) == place]
        picks = []
        for budget in dict.fromkeys(row.budget for row in own):
            candidates = [row for row in own if row.budget == budget]
            picks += _picked(study, candidates, number)
            number += 1
        cards.append(ChoiceCard(study.title(place), picks))
    return cards


def _picked(study: Study, candidates: list[Candidacy], number: int) -> list[Pick]:
    row = next((r for r in candidates if r.standing in ("chosen", "nearest_miss", "none")), None)
    if row is None:
        return []
    runs = study.runs_of(row) or study.runs_where(row.backbone, row.target)
    budget = Printed(row.budget, "", DERIVED, runs)
    if row.standing == "none":
        return [Pick(budget, [f"Nothing can be judged: {row.reason}."], [], None)]
    notes: list[Sentence] = []
    if row.would_change:
        changes = Printed(row.would_change, "", DERIVED, runs)
        notes.append(["What would change the answer: ", changes, "."])
    if row.leak:
        notes.append(["The test part had a say in this: its accuracy is flattered."])
    answer = [*_answer(study, row), "."]
    return [Pick(budget, answer, notes, _table(study, candidates, number))]


def _answer(study: Study, row: Candidacy) -> Sentence:
    def number(key: str) -> Printed:
        return study.printed(row, key)

    one: Sentence = [
        word(row.method or "", title="method"),
        " at learning rate ",
        number("learning_rate"),
    ]
    if row.weights == INTERPOLATED:
        one += [" and α = ", number("alpha")]
    elif row.weights != AS_TRAINED:
        one += [", ", Printed(row.weights or "", "", DERIVED, study.runs_of(row))]
    if row.fit in REMARKS:
        one.append(f" ({REMARKS[row.fit]})")
    one += [
        " with ",
        _test(study, row),
        " test accuracy and ",
        _kept(study, row),
        f" of the untouched accuracy on {row.least_on}",
    ]
    if row.standing == "chosen":
        if row.p_chosen is not None:
            one += [", chosen in ", number("p_chosen"), f" of the draws of {row.draws_of}"]
        return one
    short: Sentence = ["; the nearest miss, ", number("shortfall_pp"), " pp short, is "]
    return ["none of ", number("n_candidates"), " candidates does", *short, *one]


def _test(study: Study, row: Candidacy, *, unit: bool = True) -> Printed:
    where = study.where(row, "test_accuracy")
    values = (row.test_accuracy, row.sd_test_accuracy)
    return _mean_sd(study, row, "test_accuracy", where, *values, unit=unit)


def _kept(study: Study, row: Candidacy, *, unit: bool = True) -> Printed:
    name, where = f"transfer.{row.least_on}.retention_pct", study.where(row, "retention_pct")
    values = (row.retention_pct, row.sd_retention_pct)
    return _mean_sd(study, row, name, where, *values, unit=unit)


def _mean_sd(
    study: Study,
    row: Candidacy,
    name: str,
    where: str,
    mean: float | None,
    sd: float | None,
    *,
    unit: bool,
) -> Printed:
    """Mean and SD of a field of the candidate's runs, at its alpha, or of what was made of them."""
    if mean is None:
        return Printed(UNDEFINED, title=row.reason or "undefined")
    name = _at_alpha(row, name)
    text = mean_sd_text(name, mean, sd)
    if unit:
        text += f"{NBSP}{metric(name).unit}"
    if not _of_runs(row):
        return Printed(text, where, DERIVED, study.runs_of(row), mean)
    return Printed(text, name, MEAN_SD, study.runs_of(row), mean)


def _of_runs(row: Candidacy) -> bool:
    """Whether the numbers are means of what records hold, and not of other readings."""
    return row.weights in (AS_TRAINED, INTERPOLATED)


def _at_alpha(row: Candidacy, name: str) -> str:
    if row.weights != INTERPOLATED:
        return name
    return f"extra.interpolation.{row.alpha:g}.{name}"


def _table(study: Study, candidates: list[Candidacy], number: int) -> Table:
    """The first candidates for one budget."""
    found = [row for row in candidates if row.method is not None]
    split = SPLIT if any(row.gone_pp is not None for row in found) else {}
    columns = [
        *text_columns("Standing", "Method"),
        Column("LR"),
        Column("α", "1: the weights as adapted; below: mixed with the untouched ones"),
        Column("Weights", "as adapted, interpolated, or made after training", numeric=False),
        Column("Runs", "runs with every number asked for"),
        Column("Accuracy (%)", "mean of what the choice reads: validation accuracy if known"),
        Column("Test accuracy (%)", study.averaged),
        Column("Retention (%)", f"{study.averaged}: where it keeps least"),
        Column("Least on", numeric=False),
        *(Column(head, words) for head, words in split.values()),
        Column("Short (pp)", "the larger of what is missing to the budget"),
        Column("Meets", "share of draws in which it meets the budget"),
        Column("Chosen", "share of draws in which it is the one chosen"),
    ]
    rows = [_line(study, row, split) for row in found[:MAX_ROWS]]
    marks = [mark_of(row.fit) for row in found[:MAX_ROWS]]
    note: Sentence = ["At most five candidates, the best first."]
    file = f"tables/{Candidacy.table}.csv"
    return Table(
        f"{Candidacy.table}-{number}",
        "Candidates",
        columns,
        rows,
        2,
        marks,
        note,
        len(found),
        file,
    )


def _line(study: Study, row: Candidacy, split: Iterable[str]) -> list[Printed]:
    runs = study.runs_of(row)

    def number(key: str) -> Printed:
        return study.printed(row, key)

    def said(key: str) -> Printed:
        return Printed(str(getattr(row, key)), study.where(row, key), DERIVED, runs)

    accuracy = _at_alpha(row, row.selected_on)
    read = metric(accuracy).number(row.accuracy)
    return [
        word(row.standing.replace("_", " ")),
        word(row.method or ""),
        number("learning_rate"),
        number("alpha"),
        said("weights"),
        Printed(str(row.n), "", COUNT, runs, row.n),
        Printed(
            read,
            accuracy if _of_runs(row) else study.where(row, "accuracy"),
            MEAN if _of_runs(row) else DERIVED,
            runs,
            row.accuracy,
            metric(accuracy).label,
        ),
        _test(study, row, unit=False),
        _kept(study, row, unit=False),
        said("least_on"),
        *map(number, split),
        number("shortfall_pp"),
        number("p_meets"),
        number("p_chosen"),
    ]
