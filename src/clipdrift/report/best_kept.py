"""What the answer says of more than two methods: which keeps most, and which others may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipdrift.analysis.questions.ranking import Ranked
from clipdrift.analysis.statistics.fit import FITS
from clipdrift.report.compared import EQUAL_ACCURACY, at_equal_accuracy, fit_by_rate, of_dataset
from clipdrift.report.digits import NBSP
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Place, Study

LESS, OPEN, MORE, UNKNOWN = "less", "open", "more", "unknown"


def best_kept(study: Study, place: Place, methods: Sequence[str]) -> Iterator[Sentence]:
    """A few sentences whatever the number of methods; the tables have every pair."""
    for metric in study.outcomes:
        where = {**place._asdict(), "view": EQUAL_ACCURACY, "metric": metric}
        rows = study.rows(Ranked, **where)
        best = next((row for row in rows if row.rank == 1), None)
        if best is not None:
            yield _most(study, place, methods, best)
            yield from _others(study, place, best.method, methods, metric)
        elif rows:
            why = rows[0].reason
            what = f"which method keeps most of {of_dataset(metric)}"
            yield [f"At equal validation accuracy nothing can be said of {what}: {why}."]
    yield _fit_together(study, place, methods)


def _most(study: Study, place: Place, methods: Sequence[str], row: Ranked) -> Sentence:
    runs = study.runs_where(*place, methods, matched=True)
    ranked = Printed(f"{row.n_ranked}{NBSP}of{NBSP}{len(methods)}", "", DERIVED, runs)
    own = study.runs_of(row)
    if row.n_ranked == 1:
        return [
            "Validation accuracy ",
            study.printed(row, "at", runs=own),
            f"{NBSP}% is reached by ",
            Printed(row.method, "", DERIVED, own),
            " alone, so no other method is ranked there; it keeps ",
            study.printed(row, "value", unit=True, runs=own),
            f" of {of_dataset(row.metric)}.",
        ]
    return [
        "At equal validation accuracy, ",
        study.printed(row, "at", runs=own),
        f"{NBSP}%, which ",
        ranked,
        " methods reach, ",
        Printed(row.method, "", DERIVED, own),
        f" keeps most of {of_dataset(row.metric)}: ",
        study.printed(row, "value", unit=True, runs=own),
        ".",
    ]


def _others(
    study: Study, place: Place, best: str, methods: Sequence[str], metric: str
) -> Iterator[Sentence]:
    """Each other method held against the best one, where both reach an accuracy."""
    groups: dict[str, list[str]] = {}
    for other in methods:
        if other != best:
            groups.setdefault(_beside(study, place, best, other, metric), []).append(other)
    words = {
        LESS: "keep less: ",
        OPEN: "may keep more or less: ",
        MORE: "keep more where both are read: ",
        UNKNOWN: "have no interval beside it: ",
    }
    sentence: Sentence = []
    for group, text in words.items():
        if group in groups:
            names = groups[group]
            runs = study.runs_where(*place, [best, *names], matched=True)
            sentence += ["; " if sentence else "", text, _named(names, runs)]
    if set(groups) != {UNKNOWN}:
        head = f"Beside {best} by 95 % intervals, pair by pair at the highest accuracy with one, "
        yield [head, *sentence, "."]


def _named(names: Sequence[str], runs: str) -> Printed:
    return Printed(", ".join(names), "", DERIVED, runs)


def _beside(study: Study, place: Place, best: str, other: str, metric: str) -> str:
    """What the interval tells of another method beside the best."""
    pair = (min(best, other), max(best, other))
    found = at_equal_accuracy(study, place, pair, metric)
    low, high = (found[0].ci_low, found[0].ci_high) if found else (None, None)
    if low is None or high is None:
        return UNKNOWN
    if low <= 0 <= high:
        return OPEN
    return LESS if (low > 0) == (pair[0] == best) else MORE


def _fit_together(study: Study, place: Place, methods: Sequence[str]) -> Sentence:
    fit = [fit_by_rate(study, place, method) for method in methods]
    rates = sorted({rate for by_rate in fit for rate in by_rate})
    together = [rate for rate in rates if all(by_rate.get(rate) == FITS for by_rate in fit)]
    runs = study.runs_where(*place, methods, matched=True)
    count = Printed(f"{len(together)}{NBSP}of{NBSP}{len(rates)}", "", DERIVED, runs)
    said = "the tests have each two where both fit"
    if not together:
        said = f"what they keep at an equal rate compares no methods that have learned; {said}"
    return ["At equal learning rate all methods fit at ", count, f" rates: {said}."]
