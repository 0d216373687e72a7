"""What the answer says of two methods: at equal accuracy, and at equal rate where both fit."""

from __future__ import annotations

from collections.abc import Iterator

from clipdrift.analysis.fit import DAMAGED, FITS, UNDERFITS
from clipdrift.report.metrics import NBSP, rate_text
from clipdrift.report.printed import DERIVED, Printed, Sentence, of_row
from clipdrift.report.study import Place, Row, Study

Pair = tuple[str, str]


def compared(study: Study, place: Place) -> list[Sentence]:
    """Matched methods two by two in what they keep, at equal accuracy first."""
    where = {"backbone": place.backbone, "target": place.target}
    found = [
        (row["method_a"], row["method_b"], row["metric"])
        for _, row in study.rows("paired", **where, scope="grid_mean")
        if row["metric"] in study.outcomes and row["mean_diff"] is not None
    ]
    return [
        *(s for a, b, metric in found for s in _equal_accuracy(study, place, (a, b), metric)),
        *(s for a, b, metric in found for s in _equal_rate(study, place, (a, b), metric)),
    ]


def _equal_accuracy(study: Study, place: Place, pair: Pair, metric: str) -> Iterator[Sentence]:
    """At the highest validation accuracy that the curves of both methods reach."""
    rows = list(_of(study, "matched_views", place, pair, metric, view="equal_val_accuracy"))
    there = [(i, row) for i, row in rows if row["diff"] is not None]
    if not there:
        for _, row in rows[:1]:
            what = f"nothing can be said of {_what(pair, row)}"
            yield [f"At equal validation accuracy {what}: {row['reason']}."]
        return
    position, row = max(there, key=lambda item: float(item[1]["at"]))
    runs = study.runs_of(row)
    sentence: Sentence = [
        "At equal validation accuracy, ",
        of_row("matched_views", position, row, "at", runs),
        f"{NBSP}%, the highest that both reach, {_verdict(row)}: ",
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


def _equal_rate(study: Study, place: Place, pair: Pair, metric: str) -> Iterator[Sentence]:
    """At how many rates both methods fit, and the difference there."""
    fit = {method: _by_rate(study, place, method) for method in pair}
    rates = sorted({*fit[pair[0]], *fit[pair[1]]})
    both = [rate for rate in rates if all(fit[method].get(rate) == FITS for method in pair)]
    runs = study.runs_where(place.backbone, place.target, pair, matched=True)
    count = Printed(f"{len(both)}{NBSP}of{NBSP}{len(rates)}", metric, DERIVED, runs)
    known = any(word for by_rate in fit.values() for word in by_rate.values())
    if known and not both:
        each = "; ".join(_where(method, fit[method]) for method in pair)
        yield [
            "At equal learning rate both methods fit at ",
            count,
            " rates (",
            Printed(each, "", DERIVED, runs),
            f"): a difference at equal rate says nothing of how they keep {_dataset(metric)}.",
        ]
        return
    head: Sentence = ["At equal learning rate both methods fit at ", count, " rates. There, "]
    scopes = ["both_fit"] if both == rates else ["both_fit", "grid_mean"]
    if not known:
        head = ["At equal learning rate (no target accuracy: who has learned is not known), "]
        scopes = ["grid_mean"]
    (position, row), *others = (
        next(_of(study, "paired", place, pair, metric, scope=scope)) for scope in scopes
    )
    if row["mean_diff"] is None:
        yield [*head, f"nothing can be said of {_what(pair, row)}: {row['reason']}."]
        return
    yield [
        *head,
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


def _by_rate(study: Study, place: Place, method: str) -> dict[float, str | None]:
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
    what = _dataset(row["metric"])
    if row["ci_low"] is None:
        return f"{_what((a, b), row)} differs by"
    if row["ci_low"] <= 0 <= row["ci_high"]:
        return f"{a} and {b} are not told apart in what they keep of {what}"
    return f"{a} keeps {'more' if row['ci_low'] > 0 else 'less'} of {what} than {b}"


def _what(pair: Pair, row: Row) -> str:
    return f"what {pair[0]} keeps of {_dataset(row['metric'])}, less what {pair[1]} keeps,"


def _dataset(metric: str) -> str:
    name, field = metric.split(".", 1)[1].rsplit(".", 1)
    return name if field == "retention_pct" else f"accuracy on {name}"


__all__ = ["compared"]
