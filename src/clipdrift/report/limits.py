"""What a design cannot tell, in words."""

from __future__ import annotations

from collections.abc import Iterable

from clipdrift.analysis.statistics.crossed import SEEDS
from clipdrift.report.metrics import NBSP, fixed, metric, rate_text
from clipdrift.report.printed import DERIVED, Printed, Sentence, of_row
from clipdrift.report.source import Place, Row, Study

POINT = 0.01
"""One percentage point of accuracy."""


def limits(study: Study, place: Place) -> list[Sentence]:
    """Sentences on chance, the grid's edges, underfitting, images, what goes undetected."""
    return [
        *_at_chance(study, place),
        *_edges(study, place),
        *_few_images(study, place),
        *_seeds_alone(study, place),
        *_detectable(study, place),
        *_unequal_dose(study, place),
    ]


def _at_chance(study: Study, place: Place) -> Iterable[Sentence]:
    for (backbone, name), why in study.at_chance.items():
        if backbone == place.backbone:
            yield [f"What is kept on {name} is undefined: {why}."]


def _edges(study: Study, place: Place) -> Iterable[Sentence]:
    """Edges of the grid, and what does not fit: one sentence each, however many the methods."""
    rows = [
        (position, row)
        for position, row in study.rows("grid_adequacy", **place._asdict())
        if study.looks[row["method"]].role == "matched"
    ]
    edges = [item for item in rows if item[1]["edge"]]
    for which in dict.fromkeys(row["edge"] for _, row in edges):
        found: Sentence = []
        for position, row in edges:
            if row["edge"] == which:
                best = of_row("grid_adequacy", position, row, "best_lr", study.runs_of(row))
                found += [f"{', ' if found else ''}of {row['method']}, ", best]
        risk = "there may be better beyond it, so the comparison at best rates may be unfair"
        yield ["The best rate ", *found, f", is the {which} of the grid: {risk}."]
    yield from _unfit(study, rows, "underfit_lrs", _barely_trained(rows))
    lost = "past their peak at a lower rate or an earlier epoch, they have lost of the target too"
    yield from _unfit(study, rows, "damaged_lrs", f"Damaged ({lost}): ")


def _barely_trained(rows: list[tuple[int, Row]]) -> str:
    share = f"{100 * rows[0][1]['underfit_fraction']:g} %" if rows else ""
    why = "they keep what they keep because they barely trained"
    return f"Underfit (below {share} of the best accuracy here; {why}): "


def _unfit(study: Study, rows: list[tuple[int, Row]], key: str, head: str) -> Iterable[Sentence]:
    found: Sentence = []
    for _, row in rows:
        if row[key]:
            rates = ", ".join(rate_text(rate) for rate in row[key])
            at = Printed(rates, "", DERIVED, study.runs_of(row))
            found += ["; " if found else "", f"{row['method']} at ", at]
    if found:
        yield [head, *found, "."]


def _few_images(study: Study, place: Place) -> Iterable[Sentence]:
    """Where a point of validation accuracy is less than two standard errors from its images."""
    where = {**place._asdict(), "metric": "val_accuracy"}
    known = [item for item in study.rows("operating_points", **where) if item[1]["n_images"]]
    if not known:
        return
    position, row = max(known, key=lambda item: float(item[1]["image_se"]))
    if 2 * row["image_se"] > POINT:
        runs = study.runs_of(row)
        se = fixed(100 * row["image_se"], 1)
        yield [
            "With ",
            of_row("operating_points", position, row, "n_images", runs),
            " validation images an accuracy has a standard error of up to ",
            Printed(f"{se}{NBSP}pp", "val_accuracy", DERIVED, runs),
            " from images alone: rates and methods less than twice that apart are not ordered by ",
            "it, and 1 pp is less.",
        ]


def _seeds_alone(study: Study, place: Place) -> Iterable[Sentence]:
    """That differences of methods draw no images, where the records do not say which were right."""
    wanted = (study.accuracy, *study.outcomes)
    rows = (row for _, row in study.rows("paired", **place._asdict()) if row["metric"] in wanted)
    if any(row["interval_over"] == SEEDS for row in rows):
        unknown = "These records do not say which images each run was right on"
        yield [f"{unknown}: intervals of differences between methods draw seeds alone."]


def _detectable(study: Study, place: Place) -> Iterable[Sentence]:
    """The smallest and the largest of what the pairs of methods can show at one rate."""
    for outcome in study.outcomes:
        where = {**place._asdict(), "scope": "per_lr", "metric": outcome}
        rows = [i for i in study.rows("power", **where) if i[1]["detectable_diff"] is not None]
        if not rows:
            continue
        rows.sort(key=lambda item: item[1]["detectable_diff"])
        methods = sorted({row[key] for _, row in rows for key in ("method_a", "method_b")})
        runs = study.runs_where(place.backbone, place.target, methods, matched=True)
        n_pairs = sorted({row["n_pairs"] for _, row in rows})
        pairs_text = "–".join(map(str, n_pairs[:: max(1, len(n_pairs) - 1)]))
        two, depends = (" − ".join(methods), "the rate")
        if len(methods) > 2:
            two, depends = "a difference of two methods", "the rate and the methods"
        floor = of_row("power", *rows[0], "wilcoxon_floor", study.runs_of(rows[0][1]))
        yield [
            "With ",
            Printed(pairs_text, outcome, DERIVED, runs),
            f" pairs per rate, {two} in {lower(metric(outcome).label)} at one rate",
            " is found in 80 % of studies only from ",
            _detect(study, rows[0]),
            " to ",
            _detect(study, rows[-1]),
            f", depending on {depends}; an exact signed-rank test cannot go below p = ",
            floor,
            ".",
        ]


def _detect(study: Study, item: tuple[int, Row]) -> Printed:
    position, row = item
    return of_row("power", position, row, "detectable_diff", study.runs_of(row), unit=True)


def _unequal_dose(study: Study, place: Place) -> Iterable[Sentence]:
    """Equal rate is not equal dose; say where the curves do not overlap in another view."""
    said: dict[str, list[str]] = {}
    for _, row in study.rows("matched_views", **place._asdict()):
        if row["diff"] is None and row["reason"] and row["at"] is None:
            pair = f"{row['method_a']} − {row['method_b']}"
            pairs = said.setdefault(f"{row['view'].replace('_', ' ')}: {row['reason']}", [])
            pairs += [] if pair in pairs else [pair]
    for text, pairs in said.items():
        yield [f"{', '.join(pairs)}, {text}."]


def lower(label: str) -> str:
    return label[0].lower() + label[1:]


__all__ = ["limits", "lower"]
