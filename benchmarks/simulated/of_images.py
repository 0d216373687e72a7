"""Intervals and verdicts on what is read image by image, counted over made-up studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from clipdrift.analysis.questions import cell_metrics as cells
from clipdrift.analysis.questions import (
    choice,
    equivalence,
    matched_views,
    mixed,
    operating,
    paired,
    ranking,
)
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION
from simulated import ALIKE, APART, KEPT, RATES, TEST, USUAL, VAL, Kind, Photographs, photographs
from simulated.shares import Line, Table, by_drawn, inside, plain, told_wrongly
from simulated.truths import Truth

METRICS = (TEST, KEPT)
NAMES = {
    "per_lr": "at one rate",
    "grid_mean": "over the grid",
    "both_fit": "where both fit",
    "equal_learning_rate": "at equal rates",
    "own_best_rate": "at own best rates",
    "equal_val_accuracy": "at equal validation accuracy",
    "equal_weight_drift": "at equal weight movement",
}
Rows = list[dict[str, Any]]


class Asked(NamedTuple):
    """A question to studies of some kind: rows of the analysis, and what is counted of them.

    rows: of a lot of studies. counted: what, study and outcome of rows, given the truth that they
    claim. claims: what an interval draws that does not say so itself.
    """

    kind: Kind
    rows: Callable[[Photographs], Iterable[dict[str, Any]]]
    counted: Callable[[Rows, Truth], Iterable[tuple[str, str, bool | None]]]
    claims: str = SEEDS


def count(
    table: Table,
    rng: np.random.Generator,
    asked: Mapping[str, Asked],
    *,
    studies: int,
    seeds: int,
    images: int,
) -> None:
    """Ask each question of as many studies of its kind, all of them of the same studies."""
    for kind in (USUAL, ALIKE, APART):
        own = [one for one in asked.values() if one.kind is kind]
        for made in photographs(rng, studies, seeds, images, kind) if own else ():
            truths = {SEEDS: Truth(made.of_seeds), SEEDS_AND_IMAGES: Truth(made.of_all)}
            known: dict[Any, Rows] = {}
            for one in own:
                if one.rows not in known:
                    known[one.rows] = list(one.rows(made))
                for over, rows in by_drawn(known[one.rows], one.claims).items():
                    found = defaultdict(list)
                    for what, study, out in one.counted(rows, truths[over]):
                        found[what].append((study, out))
                    for what, outcomes in found.items():
                        table.add(Line(what, over, images), seeds, outcomes)


def _cells(made: Photographs) -> Rows:
    found = plain(cells.rows(made.frame, images=made.images))
    return [row for row in found if row["metric"] in METRICS]


def _operating(made: Photographs) -> Rows:
    found = plain(operating.rows(made.frame, images=made.images))
    return [row for row in found if row["metric"] in METRICS]


def _paired(made: Photographs) -> Rows:
    found = plain(paired.rows(made.frame, metrics=list(METRICS), images=made.images))
    return [row for row in found if row["scope"] in NAMES]


def _equivalence(made: Photographs) -> Rows:
    """With the rates that a row is about, which its runs tell."""
    rate = dict(zip(made.frame["run_id"], made.frame["learning_rate"], strict=True))
    return [
        {**row, "learning_rates": sorted({rate[run] for run in row["run_ids"]})}
        for row in plain(equivalence.rows(made.frame, images=made.images))
        if row["metric"] in METRICS
    ]


def _views(made: Photographs) -> Rows:
    return plain(matched_views.rows(made.frame, metrics=[KEPT], images=made.images))


def _mixed(made: Photographs) -> Rows:
    """Each study as a backbone: the model is one of all targets of a backbone."""
    own = made.frame.assign(backbone=made.frame["target"], target="one")
    found = plain(mixed.rows(own, metrics=list(METRICS)))
    return [row | {"target": row["backbone"]} for row in found]


def _ranking(made: Photographs) -> Rows:
    found = ranking.rows(made.frame, images=made.images, underfit_fraction=UNDERFIT_FRACTION)
    return plain(found)


def _choice(made: Photographs) -> Rows:
    return plain(choice.rows(made.frame, images=made.images, top=2, n_resamples=2))


def _means(name: str) -> Callable[[Rows, Truth], Iterator[tuple[str, str, bool | None]]]:
    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        for row in rows:
            yield name, row["target"], inside(row["ci_low"], row["ci_high"], truth.mean(row))

    return counted


def _gaps(what: str, judge: Callable[..., bool | None]) -> Any:
    """Of rows of `paired` or `equivalence`, by scope."""

    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        for row in rows:
            ends = row["ci_low"], row["ci_high"]
            name = what.format(NAMES[row["scope"]])
            known = row["ci_low"] is not None
            gap = truth.difference(row) if known else np.nan
            yield name, row["target"], judge(*ends, gap)

    return counted


def _curves(what: str, judge: Callable[..., bool | None]) -> Any:
    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        for row in rows:
            out = judge(row["ci_low"], row["ci_high"], truth.on_curves(row))
            yield what.format(NAMES[row["view"]]), row["target"], out

    return counted


def _families(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
    """Whether a family of Holm's tests has one that is told apart wrongly."""
    wrong: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for row in rows:
        if row["p_holm"] is not None:
            gap = truth.difference(row)
            told = row["p_holm"] < 0.05 and (abs(gap) < 1e-12 or gap * row["mean_diff"] < 0)
            wrong[row["target"], row["scope"], row["metric"]].append(bool(told))
    for (target, scope, _), own in wrong.items():
        yield f"paired {NAMES[scope]}: a Holm family with a wrong one", target, any(own)


def _results(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
    for row in rows:
        name, out = f"equivalence {NAMES[row['scope']]}: verdict wrong", None
        if row["result"] is not None:
            near = abs(truth.difference(row)) < row["margin"]
            out = bool(row["result"] == ("different" if near else "equivalent"))
        yield name, row["target"], out


def _terms(what: str, judge: Callable[..., bool | None]) -> Any:
    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        for row in rows:
            value = truth.terms[row["target"], row["metric"], row["term"]]
            if judge is inside or row["term"].startswith("method"):
                yield what, row["target"], judge(row["ci_low"], row["ci_high"], value)

    return counted


def _ranks(what: str, *, alike: bool) -> Any:
    """Each method's ranks left open; of equal methods, whether the ranks of one are wrong."""

    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        together: dict[tuple[str, str, str], Rows] = defaultdict(list)
        for row in rows:
            if row["rank_low"] is not None:
                together[row["target"], row["view"], row["metric"]].append(row)
        for (target, view, _), own in together.items():
            ranks = truth.ranks(own, list(RATES))
            held = [
                inside(r["rank_low"], r["rank_high"], n) for r, n in zip(own, ranks, strict=True)
            ]
            for out in [None if None in held else not all(held)] if alike else held:
                yield what.format(NAMES[view]), target, out

    return counted


def _leads(what: str, judge: Callable[..., bool | None]) -> Any:
    """Of the chosen one over the runner-up, in points of what decides."""

    def counted(rows: Rows, truth: Truth) -> Iterator[tuple[str, str, bool | None]]:
        for best, other in pairwise(rows):
            if best["lead_pp"] is None or best["target"] != other["target"]:
                continue
            kept = best["budget"].endswith("retention")
            metric, scale = (KEPT, 1) if kept else (VAL, 100)
            first, second = (
                scale
                * truth.of(
                    {"metric": metric, "target": r["target"]}, r["method"], r["learning_rate"]
                )
                for r in (best, other)
            )
            name = what.format("retention" if kept else "accuracy")
            out = judge(best["lead_ci_low"], best["lead_ci_high"], first - second)
            yield name, best["target"], out

    return counted


ASKED: dict[str, Asked] = {
    "cells": Asked(USUAL, _cells, _means("cells: holds")),
    "operating": Asked(USUAL, _operating, _means("operating points: holds")),
    "paired": Asked(USUAL, _paired, _gaps("paired {}: holds", inside)),
    "equivalence": Asked(USUAL, _equivalence, _gaps("equivalence {}, 90 %: holds", inside)),
    "views": Asked(USUAL, _views, _curves("matched {}: holds", inside)),
    "mixed": Asked(USUAL, _mixed, _terms("mixed model, terms: holds", inside)),
    "ranks": Asked(USUAL, _ranking, _ranks("ranks {}: hold", alike=False)),
    "choice": Asked(USUAL, _choice, _leads("choose, lead in {}: holds", inside), SEEDS_AND_IMAGES),
    "results": Asked(USUAL, _equivalence, _results),
    "told": Asked(ALIKE, _paired, _gaps("paired {}: equal ones called different", told_wrongly)),
    "families": Asked(ALIKE, _paired, _families),
    "views-told": Asked(
        ALIKE, _views, _curves("matched {}: equal ones called different", told_wrongly)
    ),
    "mixed-told": Asked(
        ALIKE, _mixed, _terms("mixed model: equal ones called different", told_wrongly)
    ),
    "ranks-told": Asked(
        ALIKE, _ranking, _ranks("ranks {}: equal ones called different", alike=True)
    ),
    "choice-told": Asked(
        ALIKE,
        _choice,
        _leads("choose by {}: an equal one called different", told_wrongly),
        SEEDS_AND_IMAGES,
    ),
    "apart": Asked(APART, _cells, _means("cells, 6 points between seeds: holds")),
}

__all__ = ["ASKED", "Asked", "count"]
