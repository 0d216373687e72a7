"""What weights made after training keep, beside the cells that they are made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.rows import Metric, OfCell, Reason, RunIds, Said
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells, number, summarise
from clipdrift.analysis.statistics.columns import column
from clipdrift.analysis.statistics.intervals import (
    UNDEFINED,
    Floats,
    TTest,
    delete_one,
    jackknife,
)
from clipdrift.analysis.usable import numbers
from clipdrift.records.after import AfterReading, Kind

DRIFTS = ("drift.weight_drift_rel", "drift.embedding_drift", "drift.cls_entropy_pct")
ACCURACIES = ("val_accuracy", "test_accuracy")


@dataclass(frozen=True, kw_only=True)
class AfterTraining(OfCell):
    """Soups over seeds and rescaled movements, beside the runs that they are made from.

    kind: soup: mean of the seeds' weights; else of each run, rescaled as docs/methods.md says
    weights: what the weights are, in words
    alpha: of a soup: 1 as averaged; below, mixed with the untouched weights
    scale: the number of a rescaling
    head_inits: different heads that the runs began with; the heads are averaged all the same
    n: models read in which the metric is defined: 1 of a soup
    n_runs: runs that the weights come from
    mean: of the models that were made
    sd: over seeds, ddof 1
    cell_mean: of the same runs as they were trained
    cell_sd: over the same seeds, ddof 1
    diff: mean less cell_mean
    above_plain: of what a rescaled run keeps of a transfer set: mean less what the movement times
        one factor keeps at the same test accuracy
    above_plain_low: t over seeds, one seed left out at a time
    """

    table: ClassVar = "after_training"

    kind: Kind
    weights: str
    alpha: float | None
    scale: float | None
    head_inits: int
    metric: Metric
    n: Annotated[int, Said("count")]
    n_runs: Annotated[int, Said("count")]
    mean: Annotated[float | None, Said("value")]
    sd: Annotated[float | None, Said("size")]
    cell_mean: Annotated[float | None, Said("value")]
    cell_sd: Annotated[float | None, Said("size")]
    diff: Annotated[float | None, Said("difference")]
    above_plain: Annotated[float | None, Said("difference")] = None
    above_plain_low: Annotated[float | None, Said("difference")] = None
    above_plain_high: Annotated[float | None, Said("difference")] = None
    run_ids: RunIds
    reason: Reason


def rows(frame: pd.DataFrame, readings: Sequence[AfterReading]) -> list[AfterTraining]:
    """Every metric of soups and scaled runs, beside the mean of the runs that they come from.

    A soup is one model: it has a value and no SD. Scaled runs have a mean over seeds. `cell_mean`
    is over the runs as trained, of the same seeds, and `diff` the value less that mean.

    `above_plain` holds what a rescaling keeps against plain interpolation of the same runs: the
    straight lines between their means as trained and times each factor that was read, the best of
    them at the rescaling's own mean accuracy. Beyond the ends of that path there is none.

    Args:
        readings: as `records.after.readings` gives them.

    Returns:
        One row per reading (or group of scaled runs) and metric.
    """
    runs = in_order(frame)
    grid = cells(runs)
    out = []
    paths: dict[CellKey, PlainPath] = {}
    for key, at, group in grouped(grid, readings):
        first = group[0]
        ids = sorted({run_id for one in group for run_id in one.runs})
        mine = at[np.isin(runs["run_id"].to_numpy(dtype=object)[at], ids)]
        # Defined in no run is no column: retention, where the baseline is at chance.
        for metric in (metric for metric in _metrics(group) if metric in runs):
            values = np.array([numbers(one.result).get(metric, np.nan) for one in group])
            found = summarise(values[:, None])
            own = summarise(column(runs, metric)[mine, None])
            if key not in paths:
                plain = [r for r in readings if r.kind == "scaled" and r.cell == tuple(key)]
                paths[key] = PlainPath(runs.iloc[at], plain)
            above = paths[key].under(group, metric)
            low, high = above.interval() if above else UNDEFINED
            out.append(
                AfterTraining(
                    **key._asdict(),
                    kind=first.kind,
                    weights=first.weights,
                    alpha=first.alpha,
                    scale=first.scale,
                    head_inits=first.head_inits,
                    metric=metric,
                    n=int(found.n[0]),
                    n_runs=len(ids),
                    mean=number(found.mean[0]),
                    sd=number(found.sd[0]),
                    cell_mean=number(own.mean[0]),
                    cell_sd=number(own.sd[0]),
                    diff=number(found.mean[0] - own.mean[0]),
                    above_plain=above.value if above else None,
                    above_plain_low=low,
                    above_plain_high=high,
                    run_ids=ids,
                    reason=_reason(first, len(values), int(found.n[0])),
                )
            )
    return out


class PlainPath:
    """What runs of a cell keep at each accuracy as their movement is multiplied by one factor."""

    def __init__(self, runs: pd.DataFrame, scaled: Sequence[AfterReading]) -> None:
        self.runs = runs.set_index("seed")
        self.scaled: dict[float, dict[int, AfterReading]] = {}
        for one in scaled:
            self.scaled.setdefault(one.scale or 0.0, {})[one.seeds[0]] = one

    def under(self, group: Sequence[AfterReading], metric: str) -> TTest | None:
        """What rescaled runs keep above it at equal test accuracy; None off its ends."""
        if group[0].kind in ("soup", "scaled") or not metric.startswith("transfer."):
            return None
        made = {one.seeds[0]: one for one in group}
        seeds = sorted(set(made).intersection(self.runs.index, *self.scaled.values()))
        if not self.scaled or not seeds:
            return None
        pair = ["test_accuracy", metric]
        path = {scale: _points(some, seeds, pair) for scale, some in self.scaled.items()}
        path[1.0] = self.runs.reindex(index=seeds, columns=pair).to_numpy(dtype=np.float64)
        places = [path[scale] for scale in sorted(path)]
        points = np.stack([*places, _points(made, seeds, pair)])  # (places, seeds, 2)
        weights = delete_one(len(seeds))
        with np.errstate(invalid="ignore"):  # without the only seed there is none
            means = np.einsum("psm,sd->dpm", points, weights / weights.sum(axis=0))
        gaps = np.array([_above(one[:-1], one[-1]) for one in means])
        scale = float(np.abs(points[..., 1]).max())
        return jackknife(gaps, len(seeds), scale) if np.isfinite(gaps[0]) else None


def _points(made: dict[int, AfterReading], seeds: Sequence[int], pair: list[str]) -> Floats:
    every = [numbers(made[seed].result) for seed in seeds]
    return np.array([[one.get(name, np.nan) for name in pair] for one in every])


def _above(path: Floats, point: Floats) -> float:
    """How much more is kept than on the best straight piece of a path; NaN beyond its ends."""
    (a0, k0), (a1, k1) = path[:-1].T, path[1:].T
    with np.errstate(divide="ignore", invalid="ignore"):
        there = k0 + (point[0] - a0) / (a1 - a0) * (k1 - k0)
    meets = (np.minimum(a0, a1) <= point[0]) & (point[0] <= np.maximum(a0, a1)) & (a0 != a1)
    return float(point[1] - there[meets].max()) if meets.any() else float("nan")


def grouped(
    grid: dict[CellKey, Positions], readings: Sequence[AfterReading]
) -> Iterator[tuple[CellKey, Positions, list[AfterReading]]]:
    """Readings by cell and by what was made of it: one of a soup, one per seed of scaled runs."""
    for (cell, _), some in groupby(readings, key=lambda one: (one.cell, one.weights)):
        key = CellKey(*cell)
        if key in grid:
            yield key, grid[key], list(some)


def _metrics(group: Sequence[AfterReading]) -> list[str]:
    names = sorted({name for one in group for name in numbers(one.result)})
    kept = [
        n
        for n in names
        if n.endswith((".accuracy", ".mean_recall", ".retention_pct")) and "transfer" in n
    ]
    return [*(n for n in ACCURACIES if n in names), *kept, *(n for n in DRIFTS if n in names)]


def _reason(first: AfterReading, n_readings: int, n: int) -> str | None:
    if n == 0:
        return "undefined"
    if first.kind == "soup":
        return "one soup of all seeds: no SD"
    if n == 1:
        return "one run: no SD"
    return None if n == n_readings else f"undefined in {n_readings - n} of {n_readings} runs"
