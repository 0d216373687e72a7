"""What the answer says of two methods: at equal accuracy, and at equal rate where both fit."""

from __future__ import annotations

from collections.abc import Iterator

from clipdrift.analysis.questions.grid_adequacy import GridAdequacy
from clipdrift.analysis.questions.matched_views import MatchedView
from clipdrift.analysis.questions.paired import Paired
from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.fit import DAMAGED, FITS, UNDERFITS
from clipdrift.report.digits import NBSP
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Place, R, Study

Pair = tuple[str, str]
EQUAL_ACCURACY = "equal_val_accuracy"


def compared(study: Study, place: Place, pair: Pair) -> list[Sentence]:
    """Two matched methods in what they keep, at equal accuracy first."""
    return [
        *(s for metric in study.outcomes for s in _equal_accuracy(study, place, pair, metric)),
        *_equal_rate(study, place, pair),
    ]


def at_equal_accuracy(
    study: Study, place: Place, pair: Pair, metric: str
) -> tuple[MatchedView, bool] | None:
    """The row at the highest accuracy that has an interval, and whether it is the highest read.

    Where none has an interval, the highest of all; None where the curves do not overlap.
    """
    rows = _of(study, MatchedView, place, pair, metric, view=EQUAL_ACCURACY)
    there = [(row.at, row) for row in rows if row.at is not None and row.diff is not None]
    if not there:
        return None
    sure = [item for item in there if item[1].ci_low is not None]
    at, row = max(sure or there, key=lambda item: item[0])
    return row, at == max(other for other, _ in there)


def _equal_accuracy(study: Study, place: Place, pair: Pair, metric: str) -> Iterator[Sentence]:
    found = at_equal_accuracy(study, place, pair, metric)
    if found is None:
        for row in _of(study, MatchedView, place, pair, metric, view=EQUAL_ACCURACY)[:1]:
            what = f"nothing can be said of {_what(row)}"
            yield [f"At equal validation accuracy {what}: {row.reason}."]
        return
    row, highest = found
    where = "near the highest that both reach" if highest else "the highest with an interval"
    sentence: Sentence = [
        "At equal validation accuracy, ",
        study.printed(row, "at"),
        f"{NBSP}%, {where}, {_verdict(row)}: ",
        study.printed(row, "diff", unit=True),
        *_interval(study, row),
    ]
    if (row.at or 0.0) < _line(study, place):
        sentence.append("; no cell so low fits, so this is before either has learned the target")
    yield [*sentence, "."]


def _line(study: Study, place: Place) -> float:
    """The validation accuracy below which a cell does not fit."""
    rows = study.rows(GridAdequacy, **place._asdict())
    best = max((row.best_val_accuracy or 0.0 for row in rows), default=0.0)
    return float(study.analysis["settings"]["underfit_fraction"]) * best


def _equal_rate(study: Study, place: Place, pair: Pair) -> Iterator[Sentence]:
    """At how many rates both methods fit, and the differences there."""
    fit = {method: fit_by_rate(study, place, method) for method in pair}
    rates = sorted(set(fit[pair[0]]) & set(fit[pair[1]]))
    both = [rate for rate in rates if all(fit[method][rate] == FITS for method in pair)]
    runs = study.runs_where(place.backbone, place.target, pair, matched=True)
    count = Printed(f"{len(both)}{NBSP}of{NBSP}{len(rates)}", "", DERIVED, runs)
    known = any(word for by_rate in fit.values() for word in by_rate.values())
    if not rates:
        yield [f"{pair[0]} and {pair[1]} have no learning rate in common to be compared at."]
    elif known and not both:
        each = "; ".join(_where(method, fit[method]) for method in pair)
        yield [
            "At equal learning rate both methods fit at ",
            count,
            " rates (",
            Printed(each, "", DERIVED, runs),
            "): a difference at equal rate says nothing of what they keep.",
        ]
    else:
        head: Sentence = ["At equal learning rate both methods fit at ", count, " rates. There, "]
        scopes = ["both_fit"] if both == rates else ["both_fit", "grid_mean"]
        if not known:
            unknown = "no target accuracy: who has learned is not known"
            head, scopes = [f"At equal learning rate ({unknown}), "], ["grid_mean"]
        for metric in study.outcomes:
            yield [*head, *_at_rates(study, place, pair, metric, scopes)]


def _at_rates(study: Study, place: Place, pair: Pair, metric: str, scopes: list[str]) -> Sentence:
    row, *others = (_of(study, Paired, place, pair, metric, scope=scope)[0] for scope in scopes)
    if row.mean_diff is None:
        return [f"nothing can be said of {_what(row)}: {row.reason}."]
    return [
        f"{_verdict(row)}: ",
        *_mean(study, row),
        *(part for other in others for part in ("; over the whole grid ", *_mean(study, other))),
        ".",
    ]


def _mean(study: Study, row: Paired) -> Sentence:
    """The mean difference over rates, its seeds and its interval."""
    runs = study.runs_of(row)
    return [
        study.printed(row, "mean_diff", unit=True),
        " on average over ",
        Printed(", ".join(map(rate_text, row.learning_rates)), row.metric, DERIVED, runs),
        *_interval(study, row),
    ]


def _interval(study: Study, row: Paired | MatchedView) -> Sentence:
    if row.ci_low is None:
        return [f" (no interval: {row.reason})"] if row.reason else []
    count: Sentence = []
    if isinstance(row, Paired):
        count = [" over ", study.printed(row, "n_seeds"), " seeds"]
        count += [" and ", study.printed(row, "n_images"), " images"] if row.n_images else []
    return [" (95 % CI ", study.printed(row, "ci_low"), *count, ")"]


def _of(
    study: Study, kind: type[R], place: Place, pair: Pair, metric: str, **where: str
) -> list[R]:
    methods = {"method_a": pair[0], "method_b": pair[1]}
    return study.rows(kind, **place._asdict(), **methods, metric=metric, **where)


def fit_by_rate(study: Study, place: Place, method: str) -> dict[float, str | None]:
    """Learning rate -> whether a method fits there."""
    cells = (cell for cell in study.cells_of(place) if cell.method == method)
    return {cell.learning_rate: study.fit(cell) for cell in cells}


def _where(method: str, by_rate: dict[float, str | None]) -> str:
    """For example `lora fits at 1e-4 and underfits at 1e-6, 1e-5`."""
    words = {FITS: "fits", UNDERFITS: "underfits", DAMAGED: "is damaged"}
    parts = []
    for fit, text in words.items():
        rates = [rate_text(rate) for rate, found in by_rate.items() if found == fit]
        if rates:
            parts.append(f"{text} at {', '.join(rates)}")
    return f"{method} {' and '.join(parts)}"


def _verdict(row: Paired | MatchedView) -> str:
    """Which of two methods keeps more, as far as the interval tells."""
    a, b = row.method_a, row.method_b
    what = of_dataset(row.metric)
    if row.ci_low is None or row.ci_high is None:
        return f"{_what(row)}, differs by"
    if row.ci_low <= 0 <= row.ci_high:
        return f"whether {a} or {b} keeps more of {what} is open"
    return f"{a} keeps {'more' if row.ci_low > 0 else 'less'} of {what} than {b}"


def _what(row: Paired | MatchedView) -> str:
    return f"what {row.method_a} keeps of {of_dataset(row.metric)}, less what {row.method_b} keeps"


def of_dataset(metric: str) -> str:
    """Of what a method keeps something, in words."""
    name, field = metric.split(".", 1)[1].rsplit(".", 1)
    return name if field == "retention_pct" else f"accuracy on {name}"
