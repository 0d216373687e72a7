"""What the answer says of two methods: at equal accuracy, and at equal rate where both fit."""

from __future__ import annotations

from collections.abc import Iterator

from clipdrift.analysis.statistics.fit import DAMAGED, FITS, UNDERFITS
from clipdrift.report.metrics import NBSP, rate_text
from clipdrift.report.printed import DERIVED, Printed, Sentence, of_row
from clipdrift.report.source import Place, Row, Study

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
) -> tuple[int, Row, bool] | None:
    """The row at the highest accuracy that has an interval, and whether it is the highest read.

    Where none has an interval, the highest of all; None where the curves do not overlap.
    """
    rows = _of(study, "matched_views", place, pair, metric, view=EQUAL_ACCURACY)
    there = [(i, row) for i, row in rows if row["diff"] is not None]
    if not there:
        return None
    sure = [item for item in there if item[1]["ci_low"] is not None]
    position, row = max(sure or there, key=lambda item: float(item[1]["at"]))
    return position, row, row["at"] == max(other["at"] for _, other in there)


def _equal_accuracy(study: Study, place: Place, pair: Pair, metric: str) -> Iterator[Sentence]:
    found = at_equal_accuracy(study, place, pair, metric)
    if found is None:
        rows = _of(study, "matched_views", place, pair, metric, view=EQUAL_ACCURACY)
        for _, row in list(rows)[:1]:
            what = f"nothing can be said of {_what(pair, row)}"
            yield [f"At equal validation accuracy {what}: {row['reason']}."]
        return
    position, row, highest = found
    runs = study.runs_of(row)
    where = "near the highest that both reach" if highest else "the highest with an interval"
    sentence: Sentence = [
        "At equal validation accuracy, ",
        of_row("matched_views", position, row, "at", runs),
        f"{NBSP}%, {where}, {_verdict(row)}: ",
        of_row("matched_views", position, row, "diff", runs, unit=True),
        *_interval("matched_views", position, row, runs),
    ]
    if row["at"] < _line(study, place):
        sentence.append("; no cell so low fits, so this is before either has learned the target")
    yield [*sentence, "."]


def _line(study: Study, place: Place) -> float:
    """The validation accuracy below which a cell does not fit."""
    rows = [row for _, row in study.rows("grid_adequacy", **place._asdict())]
    best = [row["best_val_accuracy"] for row in rows if row["best_val_accuracy"] is not None]
    return float(study.analysis["settings"]["underfit_fraction"]) * max(best, default=0.0)


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
    (position, row), *others = (
        next(_of(study, "paired", place, pair, metric, scope=scope)) for scope in scopes
    )
    if row["mean_diff"] is None:
        return [f"nothing can be said of {_what(pair, row)}: {row['reason']}."]
    return [
        f"{_verdict(row)}: ",
        *_mean(study, position, row),
        *(part for other in others for part in ("; over the whole grid ", *_mean(study, *other))),
        ".",
    ]


def _mean(study: Study, position: int, row: Row) -> Sentence:
    """The mean difference over rates, its seeds and its interval."""
    runs = study.runs_of(row)
    return [
        of_row("paired", position, row, "mean_diff", runs, unit=True),
        " on average over ",
        Printed(", ".join(map(rate_text, row["lrs"])), row["metric"], DERIVED, runs),
        *_interval("paired", position, row, runs, seeds=True),
    ]


def _interval(table: str, position: int, row: Row, runs: str, *, seeds: bool = False) -> Sentence:
    if row["ci_low"] is None:
        return [f" (no interval: {row['reason']})"] if row["reason"] else []
    count: Sentence = [" over ", of_row(table, position, row, "n_seeds", runs), " seeds"]
    if row.get("n_images"):
        count += [" and ", of_row(table, position, row, "n_images", runs), " images"]
    return [" (95 % CI ", of_row(table, position, row, "ci", runs), *(count if seeds else []), ")"]


def _of(
    study: Study, table: str, place: Place, pair: Pair, metric: str, **where: str
) -> Iterator[tuple[int, Row]]:
    methods = {"method_a": pair[0], "method_b": pair[1]}
    return study.rows(table, **place._asdict(), **methods, metric=metric, **where)


def fit_by_rate(study: Study, place: Place, method: str) -> dict[float, str | None]:
    """Learning rate -> whether a method fits there."""
    cells = (cell for cell in study.cells_of(place) if cell.method == method)
    return {cell.lr: study.fit(cell) for cell in cells}


def _where(method: str, by_rate: dict[float, str | None]) -> str:
    """For example `lora fits at 1e-4 and underfits at 1e-6, 1e-5`."""
    words = {FITS: "fits", UNDERFITS: "underfits", DAMAGED: "is damaged"}
    parts = []
    for fit, text in words.items():
        rates = [rate_text(rate) for rate, found in by_rate.items() if found == fit]
        if rates:
            parts.append(f"{text} at {', '.join(rates)}")
    return f"{method} {' and '.join(parts)}"


def _verdict(row: Row) -> str:
    """Which of two methods keeps more, as far as the interval tells."""
    a, b = row["method_a"], row["method_b"]
    what = of_dataset(row["metric"])
    if row["ci_low"] is None:
        return f"{_what((a, b), row)} differs by"
    if row["ci_low"] <= 0 <= row["ci_high"]:
        return f"whether {a} or {b} keeps more of {what} is open"
    return f"{a} keeps {'more' if row['ci_low'] > 0 else 'less'} of {what} than {b}"


def _what(pair: Pair, row: Row) -> str:
    return f"what {pair[0]} keeps of {of_dataset(row['metric'])}, less what {pair[1]} keeps,"


def of_dataset(metric: str) -> str:
    """Of what a method keeps something, in words."""
    name, field = metric.split(".", 1)[1].rsplit(".", 1)
    return name if field == "retention_pct" else f"accuracy on {name}"


__all__ = ["EQUAL_ACCURACY", "at_equal_accuracy", "compared", "fit_by_rate", "of_dataset"]
