"""What a design cannot tell, in words."""

from __future__ import annotations

from collections.abc import Iterable

from clipdrift.analysis.crossed import SEEDS
from clipdrift.report.metrics import metric, rate_text
from clipdrift.report.printed import DERIVED, Printed, Sentence, of_row
from clipdrift.report.study import Place, Row, Study


def limits(study: Study, place: Place) -> list[Sentence]:
    """Sentences on chance, the grid's edges, underfitting, images, what goes undetected."""
    return [
        *_at_chance(study, place),
        *_edges(study, place),
        *_seeds_alone(study, place),
        *_detectable(study, place),
        *_unequal_dose(study, place),
    ]


def _at_chance(study: Study, place: Place) -> Iterable[Sentence]:
    for (backbone, name), why in study.at_chance.items():
        if backbone == place.backbone:
            yield [f"What is kept on {name} is undefined: {why}."]


def _edges(study: Study, place: Place) -> Iterable[Sentence]:
    where = {"backbone": place.backbone, "target": place.target}
    for position, row in study.rows("grid_adequacy", **where):
        if study.looks[row["method"]].role != "matched":
            continue
        if row["edge"]:
            best = of_row("grid_adequacy", position, row, "best_lr", study.runs_of(row))
            risk = "it may do better beyond, so the comparison at best rates may be unfair to it"
            edge = f", is the {row['edge']} of the grid: {risk}."
            yield [f"The best rate of {row['method']}, ", best, edge]
        if row["underfit_lrs"]:
            texts = ", ".join(rate_text(rate) for rate in row["underfit_lrs"])
            rates = Printed(texts, "", DERIVED, study.runs_of(row))
            share = f"below {100 * row['underfit_fraction']:g} % of the best accuracy here"
            yield [
                f"{row['method']} underfits at ",
                rates,
                f" ({share}): what it keeps is no merit.",
            ]
        if row["damaged_lrs"]:
            texts = ", ".join(rate_text(rate) for rate in row["damaged_lrs"])
            rates = Printed(texts, "", DERIVED, study.runs_of(row))
            peak = (
                "past its peak at a lower rate or an earlier epoch, it has lost of the target too"
            )
            yield [f"{row['method']} is damaged at ", rates, f": {peak}."]


def _seeds_alone(study: Study, place: Place) -> Iterable[Sentence]:
    """That differences of methods draw no images, where the records do not say which were right."""
    wanted = (study.accuracy, *study.outcomes)
    rows = (row for _, row in study.rows("paired", **place._asdict()) if row["metric"] in wanted)
    if any(row["interval_over"] == SEEDS for row in rows):
        unknown = "These records do not say which images each run was right on"
        yield [f"{unknown}: intervals of differences between methods draw seeds alone."]


def _detectable(study: Study, place: Place) -> Iterable[Sentence]:
    where = {"backbone": place.backbone, "target": place.target, "scope": "per_lr"}
    pairs = dict.fromkeys((r["method_a"], r["method_b"]) for _, r in study.rows("power", **where))
    for a, b in pairs:
        for outcome in study.outcomes:
            rows = [
                (i, row)
                for i, row in study.rows("power", **where, method_a=a, method_b=b, metric=outcome)
                if row["detectable_diff"] is not None
            ]
            if not rows:
                continue
            rows.sort(key=lambda item: item[1]["detectable_diff"])
            n_pairs = sorted({row["n_pairs"] for _, row in rows})
            pairs_text = "–".join(map(str, n_pairs[:: max(1, len(n_pairs) - 1)]))
            runs = study.runs_where(place.backbone, place.target, (a, b), matched=True)
            what = f"{a} − {b} in {lower(metric(outcome).label)} at one rate"
            yield [
                "With ",
                Printed(pairs_text, outcome, DERIVED, runs),
                f" pairs per rate, {what} is found in 80 % of studies only from ",
                _detect(study, rows[0]),
                " to ",
                _detect(study, rows[-1]),
                ", depending on the rate; an exact signed-rank test cannot go below p = ",
                of_row(
                    "power", rows[0][0], rows[0][1], "wilcoxon_floor", study.runs_of(rows[0][1])
                ),
                ".",
            ]


def _detect(study: Study, item: tuple[int, Row]) -> Printed:
    position, row = item
    return of_row("power", position, row, "detectable_diff", study.runs_of(row), unit=True)


def _unequal_dose(study: Study, place: Place) -> Iterable[Sentence]:
    """Equal rate is not equal dose; say where the curves do not overlap in another view."""
    where = {"backbone": place.backbone, "target": place.target}
    said = set()
    for _, row in study.rows("matched_views", **where):
        view = row["view"].replace("_", " ")
        text = f"{row['method_a']} − {row['method_b']}, {view}: {row['reason']}."
        if row["diff"] is None and row["reason"] and row["at"] is None and text not in said:
            said.add(text)
            yield [text]


def lower(label: str) -> str:
    return label[0].lower() + label[1:]


__all__ = ["limits", "lower"]
