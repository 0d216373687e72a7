"""Intervals and verdicts on numbers of runs without images, counted over made-up studies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.questions import dose, mediation, predictors
from clipdrift.analysis.questions.forecast_trial import LEVEL, validation
from clipdrift.analysis.questions.held_out import hold_out
from clipdrift.analysis.questions.lessons import Cell, Lessons
from clipdrift.analysis.statistics.crossed import SEEDS
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.meta import random_effects
from clipdrift.analysis.statistics.tolerance import Theirs, tolerance
from clipdrift.records.transfer import wilson_low
from simulated import CKA, ENTROPY, KEPT, readings
from simulated.shares import Line, Table, inside, plain

MANY_SEEDS = 5_000
Row = Mapping[str, Any]
Known = Callable[[Row], float]


@cache
def _every_seed() -> pd.DataFrame:
    return readings(np.random.default_rng(1), 1, MANY_SEEDS)


def _held(
    rows: Iterable[Row], known: Mapping[Any, float], keys: list[str], ends: tuple[str, str]
) -> Iterable[tuple[str, bool | None]]:
    for row in rows:
        truth = known[tuple(row[key] for key in keys)]
        yield row["target"], inside(row[ends[0]], row[ends[1]], truth)


def _of(rows: Iterable[Row], keys: list[str], value: str) -> dict[Any, float]:
    return {tuple(row[key] for key in keys): row[value] for row in rows}


def count_dose(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Correlations of metrics with the rate, within a seed."""
    keys = ["method", "metric"]
    known = _of(plain(dose.rows(_every_seed())), keys, "spearman_rho")
    rows = [
        r for r in plain(dose.rows(readings(rng, studies, seeds))) if r["metric"] in (ENTROPY, KEPT)
    ]
    found = _held(rows, known, keys, ("ci_low", "ci_high"))
    table.add(Line("dose-response: holds", SEEDS, None), seeds, found)


def count_predictors(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Correlations of signals with retention, and their gaps to the reference's."""
    known = plain(predictors.rows(_every_seed(), reference=CKA))
    frame = readings(rng, studies, seeds)
    rows = [
        {**row, "target": row["backbone"]}
        for row in plain(predictors.rows(frame.assign(backbone=frame["target"]), reference=CKA))
        if row["signal"] in (ENTROPY, "val_accuracy")
    ]
    for name, value, ends in (
        ("rho", "spearman_overall", ("ci_low", "ci_high")),
        ("gap", "gap", ("gap_ci_low", "gap_ci_high")),
    ):
        found = _held(rows, _of(known, ["signal"], value), ["signal"], ends)
        table.add(Line(f"predictors, {name}: holds", SEEDS, None), seeds, found)


def count_mediation(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Indirect and direct effects."""
    keys = ["method_a", "method_b", "mediator"]
    known = plain(mediation.rows(_every_seed()))
    found = plain(mediation.rows(readings(rng, studies, seeds)))
    rows = [row for row in found if row["mediator"] == ENTROPY]
    for way in ("indirect", "direct"):
        held = _held(rows, _of(known, keys, way), keys, (f"{way}_ci_low", f"{way}_ci_high"))
        table.add(Line(f"mediation, {way}: holds", SEEDS, None), seeds, held)


def count_forecast(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Intervals of runs of other cells; and whether drift that tells nothing is said to tell.

    Of a tenth of the studies: to leave out each cell in turn takes long.
    """
    holds, better = [], []
    for study in range(studies // 10):
        cells = np.repeat(np.arange(24), seeds)
        moved, kept = _cells(rng, 24, seeds, slope=20.0)
        model = fit(moved, kept, cells)
        moved, kept = _cells(rng, 24, seeds, slope=20.0)
        found = model.forecast(moved, LEVEL)
        rows = zip(found.low.tolist(), found.high.tolist(), kept.tolist(), strict=True)
        holds += [(str(study), inside(*row)) for row in rows]
        data = _lessons(*_cells(rng, 24, seeds, slope=0.0), cells)
        row = validation(data, hold_out(data, "cell", LEVEL))
        better.append((str(study), row.against_mean == "better"))
    table.add(Line("forecast of another cell, 80 %: holds", "cells", None), seeds, holds)
    name = "forecast by what tells nothing: better than the mean"
    table.add(Line(name, "cells", None), seeds, better)


def _cells(rng: np.random.Generator, n: int, seeds: int, slope: float) -> tuple[Any, Any]:
    """Movement (n * seeds, 1) and retention of runs of n cells."""
    dose, own = (np.repeat(rng.normal(size=n), seeds) for _ in range(2))
    moved = np.exp(dose + 0.2 * rng.normal(size=n * seeds))
    kept = 90 - slope * np.log1p(moved) + 3 * own + 2 * rng.normal(size=n * seeds)
    return moved[:, None], kept


def _lessons(moved: Any, kept: Any, cells: Any) -> Lessons:
    n = len(kept)
    places = [Cell("study", "made up", "one", "lora", float(i)) for i in cells]
    names = [str(i) for i in range(n)]
    return Lessons(places, names, ["weight_drift_rel"], moved, kept, ["photos"], 0)


def count_replays(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """A mean over seeds published with its SD, held against another of the same kind."""
    found = []
    for study in range(studies):
        theirs, ours = 0.9 + 0.01 * rng.normal(size=(2, seeds))
        told = Theirs(float(theirs.mean()), seeds, float(theirs.std(ddof=1)), None, 6)
        most = tolerance(told, [ours])
        apart = abs(float(theirs.mean() - ours.mean()))
        found.append((str(study), None if most is None else apart <= most))
    table.add(Line("reproduction, another lab's seeds: within", SEEDS, None), seeds, found)


def count_guesses(table: Table, rng: np.random.Generator, studies: int, images: int) -> None:
    """Whether a model that guesses among 10 classes is told from chance."""
    right = rng.binomial(images, 0.1, size=10 * studies) / images
    found = [(str(i), wilson_low(float(p), images) > 0.1) for i, p in enumerate(right)]
    table.add(Line("a model that guesses: called better than chance", "images", images), 0, found)


def count_pools(table: Table, rng: np.random.Generator, studies: int, seeds: int) -> None:
    """Effects of studies of other errors, each read off its seeds, about true effects that vary."""
    for k in (2, 3, 5, 10):
        for tau in (0.0, 1.0, 3.0):
            means, new = [], []
            for i in range(studies):
                error = rng.uniform(0.5, 2.0, k)
                runs = rng.normal(size=(seeds, k)) * error * seeds**0.5 + tau * rng.normal(size=k)
                errors = runs.std(axis=0, ddof=1) / seeds**0.5
                found = random_effects(runs.mean(axis=0).tolist(), errors.tolist(), [seeds] * k)
                means.append((str(i), inside(*found.ci, 0.0)))
                new.append((str(i), inside(*found.prediction, tau * float(rng.normal()))))
            of = f"of {k} studies, tau {tau:g}"
            table.add(Line(f"pooled mean {of}: holds", "studies", None), seeds, means)
            table.add(Line(f"a new study, {of}: holds", "studies", None), seeds, new)


COUNTS = {
    "pools": count_pools,
    "dose": count_dose,
    "predictors": count_predictors,
    "mediation": count_mediation,
    "forecast": count_forecast,
    "replays": count_replays,
}
__all__ = ["COUNTS", "count_guesses"]
