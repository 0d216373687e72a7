"""What a design cannot tell, in words."""

from __future__ import annotations

from collections.abc import Iterable

from clipdrift.analysis.questions.grid_adequacy import GridAdequacy
from clipdrift.analysis.questions.matched_views import MatchedView
from clipdrift.analysis.questions.operating import AtBest
from clipdrift.analysis.questions.paired import Paired
from clipdrift.analysis.questions.power import Power
from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.crossed import SEEDS
from clipdrift.report.digits import NBSP, fixed
from clipdrift.report.metrics import metric
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Place, Study

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
    rows = study.rows(GridAdequacy, **place._asdict(), role="matched")
    edges = [row for row in rows if row.edge]
    for which in dict.fromkeys(row.edge for row in edges):
        found: Sentence = []
        for row in edges:
            if row.edge == which:
                best = study.printed(row, "best_learning_rate")
                found += [f"{', ' if found else ''}of {row.method}, ", best]
        risk = "there may be better beyond it, so the comparison at best rates may be unfair"
        yield ["The best rate ", *found, f", is the {which} of the grid: {risk}."]
    share = f"{100 * study.analysis['settings']['underfit_fraction']:g} %"
    why = "they keep what they keep because they barely trained"
    head = f"Underfit (below {share} of the best accuracy here; {why}): "
    yield from _unfit(study, [(row, row.underfit_learning_rates) for row in rows], head)
    lost = "past their peak at a lower rate or an earlier epoch, they have lost of the target too"
    head = f"Damaged ({lost}): "
    yield from _unfit(study, [(row, row.damaged_learning_rates) for row in rows], head)


def _unfit(
    study: Study, unfit: list[tuple[GridAdequacy, list[float]]], head: str
) -> Iterable[Sentence]:
    found: Sentence = []
    for row, rates in unfit:
        if rates:
            at = Printed(", ".join(map(rate_text, rates)), "", DERIVED, study.runs_of(row))
            found += ["; " if found else "", f"{row.method} at ", at]
    if found:
        yield [head, *found, "."]


def _few_images(study: Study, place: Place) -> Iterable[Sentence]:
    """Where a point of validation accuracy is less than two standard errors from its images."""
    where = {**place._asdict(), "metric": "val_accuracy"}
    known = [(row.image_se, row) for row in study.rows(AtBest, **where) if row.image_se]
    if not known:
        return
    error, row = max(known, key=lambda item: item[0])
    if 2 * error > POINT:
        runs = study.runs_of(row)
        se = fixed(100 * error, 1)
        yield [
            "With ",
            study.printed(row, "n_images"),
            " validation images an accuracy has a standard error of up to ",
            Printed(f"{se}{NBSP}pp", "val_accuracy", DERIVED, runs),
            " from images alone: rates and methods less than twice that apart are not ordered by ",
            "it, and 1 pp is less.",
        ]


def _seeds_alone(study: Study, place: Place) -> Iterable[Sentence]:
    """That differences of methods draw no images, where the records do not say which were right."""
    rows = study.rows(Paired, **place._asdict())
    alone = {row.metric for row in rows if row.interval_over == SEEDS}
    found = [name for name in (study.accuracy, *study.outcomes) if name in alone]
    if found:
        of = " and ".join(lower(metric(name).label) for name in found)
        known = "these records do not say which images each run was right on"
        yield [f"Of {of}, {known}: intervals of differences between methods draw seeds alone."]


def _detectable(study: Study, place: Place) -> Iterable[Sentence]:
    """The smallest and the largest of what the pairs of methods can show at one rate."""
    for outcome in study.outcomes:
        where = {**place._asdict(), "scope": "per_lr", "metric": outcome}
        rows = [row for row in study.rows(Power, **where) if row.detectable_diff is not None]
        if not rows:
            continue
        rows.sort(key=lambda row: row.detectable_diff or 0.0)
        methods = sorted({name for row in rows for name in (row.method_a, row.method_b)})
        runs = study.runs_where(place.backbone, place.target, methods, matched=True)
        n_pairs = sorted({row.n_pairs for row in rows})
        pairs_text = "–".join(map(str, n_pairs[:: max(1, len(n_pairs) - 1)]))
        two, depends = (" − ".join(methods), "the rate")
        if len(methods) > 2:
            two, depends = "a difference of two methods", "the rate and the methods"
        yield [
            "With ",
            Printed(pairs_text, outcome, DERIVED, runs),
            f" pairs per rate, {two} in {lower(metric(outcome).label)} at one rate",
            " is found in 80 % of studies only from ",
            study.printed(rows[0], "detectable_diff", unit=True),
            " to ",
            study.printed(rows[-1], "detectable_diff", unit=True),
            f", depending on {depends}; an exact signed-rank test cannot go below p = ",
            study.printed(rows[0], "wilcoxon_floor"),
            ".",
        ]


def _unequal_dose(study: Study, place: Place) -> Iterable[Sentence]:
    """Equal rate is not equal dose; say where the curves do not overlap in another view."""
    said: dict[str, list[str]] = {}
    for row in study.rows(MatchedView, **place._asdict()):
        if row.diff is None and row.reason and row.at is None:
            pair = f"{row.method_a} − {row.method_b}"
            pairs = said.setdefault(f"{row.view.replace('_', ' ')}: {row.reason}", [])
            pairs += [] if pair in pairs else [pair]
    for text, pairs in said.items():
        yield [f"{', '.join(pairs)}, {text}."]


def lower(label: str) -> str:
    return label[0].lower() + label[1:]
