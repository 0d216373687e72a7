"""The choice in words and numbers: what best meets a budget, how surely, what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from clipdrift.analysis.questions.candidates import AS_TRAINED, INTERPOLATED
from clipdrift.analysis.statistics.fit import REMARKS
from clipdrift.report.metrics import UNDEFINED, metric
from clipdrift.report.printed import (
    COUNT,
    DERIVED,
    MEAN,
    MEAN_SD,
    Printed,
    Sentence,
    mean_sd_text,
    of_row,
)
from clipdrift.report.source import Place, Row, Study, mark_of
from clipdrift.report.tables import MAX_ROWS, Column, Table, word

TABLE = "choice"


def choices(study: Study) -> list[Sentence]:
    """A sentence per target and budget, one more where something would change the answer."""
    return list(_sentences(study))


def _sentences(study: Study) -> Iterator[Sentence]:
    for position, row in study.rows(TABLE):
        if row["standing"] not in ("chosen", "nearest_miss", "none"):
            continue
        place = study.title(Place(row["backbone"], row["target"]))
        runs = study.runs_of(row) or study.runs_where(row["backbone"], row["target"])
        head: Sentence = [f"{place}, ", Printed(row["budget"], "", DERIVED, runs), ": "]
        if row["standing"] == "none":
            yield [*head, f"nothing can be judged, {row['reason']}."]
            continue
        yield [*head, *_answer(study, position, row, runs), "."]
        if row["would_change"]:
            changes = Printed(row["would_change"], "", DERIVED, runs)
            yield [f"What would change the answer for {place}: ", changes, "."]
        if row["leak"]:
            yield [f"The test part had a say in the answer for {place}: its accuracy is flattered."]


def _answer(study: Study, position: int, row: Row, runs: str) -> Sentence:
    def number(key: str) -> Printed:
        return of_row(TABLE, position, row, key, runs)

    one: Sentence = [word(row["method"], title="method"), " at learning rate ", number("lr")]
    if row["weights"] == INTERPOLATED:
        one += [" and α = ", number("alpha")]
    elif row["weights"] != AS_TRAINED:
        one += [", ", Printed(row["weights"], "", DERIVED, runs)]
    if row["fit"] in REMARKS:
        one.append(f" ({REMARKS[row['fit']]})")
    shown: Sentence = [
        *(" with ", _test(study, position, row)),
        *(" test accuracy and ", _kept(study, position, row)),
    ]
    one += [*shown, f" of the untouched accuracy on {row['least_on']}"]
    if row["standing"] == "chosen":
        if row["p_chosen"] is not None:
            one += [", chosen in ", number("p_chosen"), f" of the draws of {row['draws_of']}"]
        return one
    short: Sentence = ["; the nearest miss, ", number("shortfall_pp"), " pp short, is "]
    return ["none of ", number("n_candidates"), " candidates does", *short, *one]


def _test(study: Study, position: int, row: Row, *, unit: bool = True) -> Printed:
    return _mean_sd(study, position, row, "test_accuracy", "test_accuracy", unit=unit)


def _kept(study: Study, position: int, row: Row, *, unit: bool = True) -> Printed:
    name = f"transfer.{row['least_on']}.retention_pct"
    return _mean_sd(study, position, row, name, "retention_pct", unit=unit)


def _mean_sd(study: Study, position: int, row: Row, name: str, key: str, *, unit: bool) -> Printed:
    """Mean and SD of a field of the candidate's runs, at its alpha, or of what was made of them."""
    if row[key] is None:
        return Printed(UNDEFINED, title=row["reason"] or "undefined")
    name = _at_alpha(row, name)
    text = mean_sd_text(name, row[key], row[f"sd_{key}"])
    if unit:
        text += f"\u00a0{metric(name).unit}"
    if not _of_runs(row):
        return Printed(text, f"{TABLE}[{position}].{key}", DERIVED, study.runs_of(row), row[key])
    return Printed(text, name, MEAN_SD, study.runs_of(row), row[key])


def _of_runs(row: Row) -> bool:
    """Whether the numbers are means of what records hold, and not of other readings."""
    return row["weights"] in (AS_TRAINED, INTERPOLATED)


def _at_alpha(row: Row, name: str) -> str:
    if row["weights"] != INTERPOLATED:
        return name
    return f"extra.interpolation.{row['alpha']:g}.{name}"


def choice_table(study: Study) -> Table | None:
    """The first candidates of every target and budget."""
    found = [(i, row) for i, row in study.rows(TABLE) if row["method"] is not None]
    if not found:
        return None
    texts = ("Target", "Budget", "Standing", "Method")
    columns = [
        *(Column(name, numeric=False) for name in texts),
        Column("LR"),
        Column("α", "1: the weights as adapted; below: mixed with the untouched ones"),
        Column("Weights", "as adapted, interpolated, or made after training", numeric=False),
        Column("Runs", "runs with every number asked for"),
        Column("Accuracy (%)", "mean of what the choice reads: validation accuracy if known"),
        Column("Test accuracy (%)", study.averaged),
        Column("Retention (%)", f"{study.averaged}: where it keeps least"),
        Column("Least on", numeric=False),
        Column("Short (pp)", "the larger of what is missing to the budget"),
        Column("Meets", "share of draws in which it meets the budget"),
        Column("Chosen", "share of draws in which it is the one chosen"),
    ]
    rows = [_line(study, position, row) for position, row in found[:MAX_ROWS]]
    marks = [mark_of(row["fit"]) for _, row in found[:MAX_ROWS]]
    note: Sentence = ["At most five candidates for each budget, the best first."]
    omitted = max(0, len(found) - MAX_ROWS)
    file = f"tables/{TABLE}.csv"
    return Table(TABLE, "Candidates for the choice", columns, rows, 4, marks, note, omitted, file)


def _line(study: Study, position: int, row: Row) -> list[Printed]:
    runs = study.runs_of(row)

    def number(key: str) -> Printed:
        return of_row(TABLE, position, row, key, runs)

    accuracy = _at_alpha(row, row["selected_on"])
    read = metric(accuracy).number(row["accuracy"])
    return [
        word(study.title(Place(row["backbone"], row["target"]))),
        word(row["budget"]),
        word(row["standing"].replace("_", " ")),
        word(row["method"]),
        number("lr"),
        number("alpha"),
        Printed(row["weights"], f"{TABLE}[{position}].weights", DERIVED, runs),
        Printed(str(row["n"]), "", COUNT, runs, row["n"]),
        Printed(
            read,
            accuracy if _of_runs(row) else f"{TABLE}[{position}].accuracy",
            MEAN if _of_runs(row) else DERIVED,
            runs,
            row["accuracy"],
            metric(accuracy).label,
        ),
        _test(study, position, row, unit=False),
        _kept(study, position, row, unit=False),
        Printed(row["least_on"], f"{TABLE}[{position}].least_on", DERIVED, runs),
        number("shortfall_pp"),
        number("p_meets"),
        number("p_chosen"),
    ]


__all__ = ["choice_table", "choices"]
