"""How often the intervals that the tool prints hold the truth, and how often its verdicts err.

    python benchmarks/coverage.py [--quick] [--studies 400]

Studies are made up (`simulated`), so that the truth is known, and put through the package's own
functions. Each number is the mean over studies of the share of rows of a study whose interval holds
the truth, or whose verdict is wrong, with the Monte Carlo error of that mean. Rows without an
interval are left out and counted in brackets.

"These images" is the truth over all seeds there are on the images at hand, "all images" that over
all images there are as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from simulated import CKA, ENTROPY, KEPT, METHODS, photographs, readings

from clipdrift.analysis import (
    cells,
    dose,
    equivalence,
    matched_views,
    mediation,
    operating,
    paired,
    predictors,
    ranking,
)
from clipdrift.analysis.curves import Curve
from clipdrift.analysis.influence import Images
from clipdrift.analysis.method_curves import VIEWS, MethodCurves

SEEDS, IMAGES = (2, 3, 5, 10), (50, 300, 2_000)
TEST = "test_accuracy"
MANY_SEEDS = 5_000
Row = Mapping[str, Any]
Truth = Callable[[Row], float]


class Share(NamedTuple):
    """Of rows that came out a way: mean over studies, its error, and rows that print nothing."""

    mean: float
    error: float
    missing: float

    def __str__(self) -> str:
        missing = f" ({100 * self.missing:.0f})" if self.missing >= 0.005 else ""
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f}{missing}"


class Table:
    """Lines of what was counted, a column for each number of seeds."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], dict[int, list[tuple[str, bool | None]]]] = {}

    def add(self, what: str, on: str, seeds: int, found: Iterable[tuple[str, bool | None]]) -> None:
        """found: study and what came out of each row, None where the row prints nothing."""
        self.found.setdefault((what, on), {}).setdefault(seeds, []).extend(found)

    def __str__(self) -> str:
        head = ["what", "images", *(f"{n} seeds" for n in SEEDS)]
        lines = [head, ["---"] * len(head)]
        for (what, on), by_seeds in self.found.items():
            shares = [str(_share(by_seeds[n])) if n in by_seeds else "" for n in SEEDS]
            lines.append([what, on, *shares])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(found: list[tuple[str, bool | None]]) -> Share:
    table = pd.DataFrame(found, columns=["study", "out"])
    printed = table.dropna().astype({"out": float}).groupby("study")["out"].mean()
    error = float(printed.std() / np.sqrt(len(printed))) if len(printed) > 1 else np.nan
    return Share(float(printed.mean()), error, float(table["out"].isna().mean()))


def held(rows: Iterable[Row], truth: Truth, ends: tuple[str, str] = ("ci_low", "ci_high")) -> Any:
    """Whether each row's interval holds its truth."""
    for row in rows:
        low, high = (row[end] for end in ends)
        value = truth(row)
        yield row["target"], None if low is None or np.isnan(value) else low <= value <= high


class Known:
    """The truths of studies, from their means over all seeds: one row per cell."""

    def __init__(self, means: pd.DataFrame) -> None:
        keys = ["target", "method", "learning_rate"]
        self.cell = {metric: means.set_index(keys)[metric].to_dict() for metric in (TEST, KEPT)}
        self.curves: dict[tuple[str, str, str], Curve] = {}
        for target, part in means.groupby("target"):
            methods = MethodCurves(part, [KEPT])
            self.at = methods.columns.index(KEPT)
            for view in VIEWS:
                for name in METHODS:
                    self.curves[str(target), view.name, name] = methods.curve(view, name)
        overall = means.groupby(["target", "method"])[[TEST, KEPT]].mean()
        self.rank = {
            (target, metric): dict(zip(METHODS, rankdata(-part[metric]), strict=True))
            for target, part in overall.groupby("target")
            for metric in (TEST, KEPT)
        }

    def mean(self, row: Row) -> float:
        return float(self.cell[row["metric"]][row["target"], row["method"], row["lr"]])

    def difference(self, row: Row) -> float:
        first, second = (
            self.cell[row["metric"]][row["target"], row[method], row["lr"]]
            for method in ("method_a", "method_b")
        )
        return float(first - second)

    def on_curves(self, row: Row) -> float:
        in_log10 = next(view.in_log10 for view in VIEWS if view.name == row["view"])
        place = np.log10(row["at"]) if in_log10 else row["at"]
        first, second = (
            self.curves[row["target"], row["view"], row[method]].at(place)[self.at, 0]
            for method in ("method_a", "method_b")
        )
        return float(first - second)


def count_photographs(table: Table, rng: np.random.Generator, studies: int) -> None:
    """Intervals and verdicts of what is read image by image."""
    for images in IMAGES:
        for seeds in SEEDS:
            for made in photographs(rng, studies, seeds, images):
                printed = _printed(made.frame, made.images)
                for name, means in (("these", made.of_seeds), ("all", made.of_all)):
                    _count(table, printed, Known(means), f"{name} {images}", seeds)


def _printed(frame: pd.DataFrame, images: Images) -> dict[str, list[dict[str, Any]]]:
    metrics = [TEST, KEPT]
    views = matched_views.rows(frame, metrics=[KEPT], images=images)
    return {
        "cells": [row for row in cells.rows(frame) if row["metric"] in metrics],
        "operating points": [row for row in operating.rows(frame) if row["metric"] in metrics],
        "paired, one rate": _scope(paired.rows(frame, metrics=metrics), "per_lr"),
        "equal validation accuracy": [r for r in views if r["view"] == VIEWS[0].name],
        "equal weight movement": [r for r in views if r["view"] == VIEWS[1].name],
        "ranks": [
            row
            for row in ranking.rows(frame, underfit_fraction=0.9)
            if row["view"] == "equal_learning_rate"
        ],
        "equivalence, one rate": _scope(equivalence.rows(frame), "per_lr"),
    }


def _scope(rows: list[dict[str, Any]], scope: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["scope"] == scope and row["metric"] in (TEST, KEPT)]


def _count(
    table: Table, printed: Mapping[str, list[dict[str, Any]]], known: Known, on: str, seeds: int
) -> None:
    truths = {
        "cells": known.mean,
        "operating points": known.mean,
        "paired, one rate": known.difference,
        "equal validation accuracy": known.on_curves,
        "equal weight movement": known.on_curves,
    }
    for name, truth in truths.items():
        rows = (row for row in printed[name] if row.get("at", 0) is not None)
        table.add(f"{name}: holds", on, seeds, held(rows, truth))
    ranks = (
        (
            row["target"],
            None
            if row["rank_low"] is None
            else row["rank_low"]
            <= known.rank[row["target"], row["metric"]][row["method"]]
            <= row["rank_high"],
        )
        for row in printed["ranks"]
    )
    table.add("ranks left open: hold", on, seeds, ranks)
    rows = printed["equivalence, one rate"]
    table.add("equivalence, 90 %: holds", on, seeds, held(rows, known.difference))
    verdicts = ((row["target"], _wrong(row, known.difference(row))) for row in rows)
    table.add("equivalence: wrong", on, seeds, verdicts)


def _wrong(row: Row, difference: float) -> bool | None:
    if row["result"] is None:
        return None
    inside = abs(difference) < row["margin"]
    return bool(row["result"] == ("different" if inside else "equivalent"))


def count_readings(table: Table, rng: np.random.Generator, studies: int) -> None:
    """Intervals of what is read of runs, whatever the images."""
    many = readings(rng, 1, MANY_SEEDS)
    rho = {(r["method"], r["metric"]): r["spearman_rho"] for r in dose.rows(many)}
    foretold = {row["signal"]: row for row in predictors.rows(many, reference=CKA)}
    ways = {
        (row["method_a"], row["method_b"], row["mediator"]): row for row in mediation.rows(many)
    }
    for seeds in SEEDS:
        frame = readings(rng, studies, seeds)
        rows = [row for row in dose.rows(frame) if row["metric"] in (ENTROPY, KEPT)]
        table.add(
            "dose-response: holds", "", seeds, held(rows, lambda r: rho[r["method"], r["metric"]])
        )
        one_each = frame.assign(backbone=frame["target"])
        rows = [
            {**row, "target": row["backbone"]}
            for row in predictors.rows(one_each, reference=CKA)
            if row["signal"] in (ENTROPY, "val_accuracy")
        ]
        table.add(
            "predictors, rho: holds",
            "",
            seeds,
            held(rows, lambda r: foretold[r["signal"]]["spearman_overall"]),
        )
        gaps = held(rows, lambda r: foretold[r["signal"]]["gap"], ("gap_ci_low", "gap_ci_high"))
        table.add("predictors, gap: holds", "", seeds, gaps)
        rows = [row for row in mediation.rows(frame) if row["mediator"] == ENTROPY]
        for way in ("indirect", "direct"):
            ends = (f"{way}_ci_low", f"{way}_ci_high")
            found = held(
                rows,
                lambda r, way=way: ways[r["method_a"], r["method_b"], r["mediator"]][way],
                ends,
            )
            table.add(f"mediation, {way}: holds", "", seeds, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="few studies, to see that it runs")
    asked = parser.parse_args()
    studies = 10 if asked.quick else asked.studies
    rng, table, start = np.random.default_rng(0), Table(), time.perf_counter()
    count_photographs(table, rng, studies)
    count_readings(table, rng, studies)
    print(table)
    print(f"{studies} studies for each column and line, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
