"""The answer in words and numbers: what each method reaches, what it keeps, how sure, what not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipdrift.analysis.frame import BASELINE, BASELINE_RECALL
from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.questions.frontier import Unbeaten
from clipdrift.analysis.questions.operating import AtBest
from clipdrift.analysis.questions.untouched import Untouched
from clipdrift.analysis.rows import rate_text
from clipdrift.records.readings import TARGET_ZERO_SHOT
from clipdrift.report.best_kept import best_kept
from clipdrift.report.compared import compared
from clipdrift.report.digits import NBSP
from clipdrift.report.limits import limits, lower
from clipdrift.report.metrics import metric
from clipdrift.report.printed import COUNT, DERIVED, Printed, Sentence, of_cell, of_runs
from clipdrift.report.scores import sentences_of, table_of
from clipdrift.report.source import Place, Study, mark_of
from clipdrift.report.tables import (
    Column,
    Table,
    cell_table,
    metric_columns,
    metric_values,
    read_on_images,
    word,
)


@dataclass(frozen=True)
class Answer:
    """One target's answer: sentences, the table behind them, and the limits."""

    title: str
    sentences: Sequence[Sentence]
    table: Table
    limits: Sequence[Sentence]


def answers(study: Study) -> list[Answer]:
    return [_answer(study, place, i) for i, place in enumerate(study.places)]


def _answer(study: Study, place: Place, number: int) -> Answer:
    score = study.score_name(place)
    said = [*_sentences(study, place), *_zero_shot_before(study, place), *_unbeaten(study, place)]
    table = headline_table(study, place, number) or _all_rates(study, place, number)
    return Answer(
        study.title(place),
        sentences_of(score, said),
        table_of(score, table),
        sentences_of(score, limits(study, place)),
    )


def _sentences(study: Study, place: Place) -> list[Sentence]:
    """Of two methods all that the table below says, of more what to look for in it."""
    cells = [cell for cell in study.cells_of(place) if cell.role == "matched"]
    methods = sorted({cell.method for cell in cells})
    if len(methods) > 2:
        return list(best_kept(study, place, methods))
    reached = list(_reached(study, place))
    return [*compared(study, place, (methods[0], methods[1])), *reached] if methods[1:] else reached


def _all_rates(study: Study, place: Place, number: int) -> Table:
    """Where no rate can be chosen, all of them."""
    names = [study.accuracy, *study.outcomes, *study.main_drifts[:2]]
    note = "No validation accuracy in these records, so no rate is chosen: that would read the test"
    return cell_table(
        study,
        names,
        table_id=f"headline-{number}",
        caption="At every rate",
        note=f"{note} part.",
        place=place,
    )


def operating_points(study: Study, place: Place) -> dict[str, dict[str, AtBest]]:
    """Method -> metric -> row at the method's best mean validation accuracy."""
    out: dict[str, dict[str, AtBest]] = {}
    for row in study.rows(AtBest, **place._asdict()):
        out.setdefault(row.method, {})[row.metric] = row
    return {method: out[method] for method in study.looks if method in out}


def headline_table(study: Study, place: Place, number: int) -> Table | None:
    """Each method at its best rate: accuracy, retention, drift; None where none is known."""
    names = [study.accuracy, *study.outcomes, *study.main_drifts[:2]]
    points = operating_points(study, place)
    known = read_on_images(names, list(points.values()))
    columns = [
        Column("Method", numeric=False),
        Column("LR", "rate of the best mean validation accuracy"),
        Column("Seeds", "runs with a value"),
        *metric_columns(study, names, known),
    ]
    by_texts = f"{TARGET_ZERO_SHOT}.accuracy"
    if by_texts in study.runs:
        columns.append(Column(metric(by_texts).axis, f"{study.averaged}: by class texts, no head"))
    rows, marks = [], []
    for method, found in points.items():
        first = found.get(study.accuracy) or next(iter(found.values()))
        runs = study.index.encode(first.run_ids)
        count = Printed(str(first.n), first.metric, COUNT, runs, first.n)
        values = list(metric_values(study, names, known, found))
        if by_texts in study.runs:
            own = study.runs[study.runs["run_id"].isin(first.run_ids)]
            values.append(of_runs(own, by_texts, study.index))
        rows.append([word(method), study.printed(first, "learning_rate"), count, *values])
        marks.append(mark_of(first.fit))
    if not rows:
        return None
    note: Sentence = ["Each method at the learning rate of its best mean validation accuracy."]
    return Table(
        f"headline-{number}",
        "At the best rate",
        columns,
        rows,
        1,
        marks,
        note,
        file="tables/operating_points.csv",
    )


def _reached(study: Study, place: Place) -> Iterable[Sentence]:
    if not operating_points(study, place):
        yield from _ranges(study, place)
    for method, found in operating_points(study, place).items():
        row = found.get(study.accuracy)
        if study.looks[method].role != "matched" or row is None or row.mean is None:
            continue
        part = "the test part" if study.accuracy == "test_accuracy" else "the validation part"
        sentence: Sentence = [
            word(method, title="method"),
            " reaches ",
            of_cell(row, study.index, unit=True),
            f" on {part} at learning rate ",
            study.printed(row, "learning_rate"),
            " (",
            Printed(str(row.n), row.metric, COUNT, study.runs_of(row)),
            " seed)" if row.n == 1 else " seeds)",
        ]
        kept = [found[name] for name in study.outcomes if name in found]
        kept = [row for row in kept if row.mean is not None]
        if kept:
            sentence.append(" and keeps ")
        for i, outcome in enumerate(kept):
            sentence += ["" if i == 0 else ", ", *_kept(study, place, outcome)]
        yield [*sentence, "."]


def _ranges(study: Study, place: Place) -> Iterable[Sentence]:
    """What each matched method reaches and keeps over its rates, where none can be chosen."""
    for method, look in study.looks.items():
        cells = [cell for cell in study.cells_of(place) if cell.method == method]
        for name, verb in ((study.accuracy, "reaches"), *((n, "keeps") for n in study.outcomes)):
            rows = [row for cell in cells if (row := study.known(cell, name)) is not None]
            if look.role != "matched" or not rows:
                continue
            rows.sort(key=lambda row: row.mean or 0.0)
            low, high = (of_cell(row, study.index, unit=True) for row in (rows[0], rows[-1]))
            rates = (rate_text(rows[0].learning_rate), rate_text(rows[-1].learning_rate))
            what = f" (at {rates[1]}): {lower(metric(name).label)}."
            ends: Sentence = [" from ", low, f" (at {rates[0]}) to ", high, what]
            yield [word(method, title="method"), f" {verb}", *ends]


def _kept(study: Study, place: Place, row: CellMetric) -> Sentence:
    dataset = row.metric.split(".", 1)[1].rsplit(".", 1)[0]
    out: Sentence = [of_cell(row, study.index, unit=True)]
    if row.metric.endswith("retention_pct"):
        recall = row.metric.replace(".retention_pct", ".mean_recall") in study.metrics
        score = "mean recall" if recall else "zero-shot accuracy"
        out.append(f" of the untouched {score} on {dataset}")
        for before in _untouched(study, place, f"transfer.{dataset}"):
            out += [" (", study.printed(before, "accuracy", unit=True)]
            if before.chance is not None:
                out += [", chance ", study.printed(before, "chance", unit=True)]
            out.append(")")
    else:
        out.append(f" zero-shot accuracy on {dataset}")
    return out


def _zero_shot_before(study: Study, place: Place) -> Iterable[Sentence]:
    """Was fine-tuning needed? What the class texts alone reach on the target."""
    for before in _untouched(study, place, TARGET_ZERO_SHOT):
        if before.chance is not None:
            pairs = before.metric.endswith(BASELINE_RECALL)
            yield [
                "Untouched, the model reaches a mean recall of "
                if pairs
                else "Untouched and by class texts alone, the model reaches ",
                study.printed(before, "accuracy", unit=True),
                " on the target's test part (chance ",
                study.printed(before, "chance", unit=True),
                ").",
            ]


def _untouched(study: Study, place: Place, name: str) -> list[Untouched]:
    """What the untouched model reads on a set; at most one row."""
    known = study.rows(Untouched, **place._asdict(), metric=name + BASELINE)
    return known or study.rows(Untouched, **place._asdict(), metric=name + BASELINE_RECALL)


def _unbeaten(study: Study, place: Place) -> Iterable[Sentence]:
    """The frontier, said once for all transfer datasets on which it is the same."""
    said: dict[tuple[str, str], list[str]] = {}
    for dataset in study.transfers:
        rows = study.rows(Unbeaten, **place._asdict(), transfer=dataset)
        if not rows:
            continue
        names = [
            f"{row.method}{NBSP}{rate_text(row.learning_rate)}"
            + (f"{NBSP}({mark})" if (mark := mark_of(row.fit)) else "")
            for row in rows
        ]
        count = f"{len(rows)}{NBSP}of{NBSP}{rows[0].n_cells}"
        said.setdefault((count, ", ".join(names)), []).append(dataset)
    runs = study.runs_where(place.backbone, place.target)
    for (count, names_text), datasets in said.items():
        yield [
            f"In accuracy and retention on {' or '.join(datasets)}, ",
            Printed(count, "", DERIVED, runs),
            f" cells are not beaten in both: {names_text}.",
        ]
