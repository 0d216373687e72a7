"""Is there a dose at which all methods keep alike? Every drift signal as the axis, against rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.rows import OfTarget, Outcome, Reason, Said, key, sure
from clipdrift.analysis.statistics.columns import (
    DRIFT,
    LOG_LR,
    Floats,
    matched_runs,
    outcome_columns,
    parts,
    size_of,
)
from clipdrift.analysis.statistics.curves import Curve
from clipdrift.analysis.statistics.intervals import jackknife
from clipdrift.analysis.statistics.method_curves import MethodCurves, View

LEAST_COVERED = 0.2
"""Share of the grid that an axis has to reach before it is held against others."""


@dataclass(frozen=True, kw_only=True)
class DoseAxis(OfTarget):
    """How far methods lie apart at an equal dose of a drift signal, over how far at equal rate.

    A cell and another method's curve where that has the cell's dose: how differently they keep.
    Intervals are of these images: they are not drawn.

    axis: size of the drift signal that is held equal
    collapse: spread at equal dose over spread at equal rate, both over the same cells and methods;
        0: all methods on one curve, 1: no better than the rate
    ci_low: t over seeds, one seed left out at a time, not below 0
    spread_pp: root mean squared difference of retention at equal dose, percentage points
    spread_at_rate_pp: the same at equal learning rate
    covered: share of cells and other methods at which the dose is met on the other's curve
    collapse_elsewhere: geometric mean of the axis's collapse on all other targets and backbones
    chosen_elsewhere: whether that is the smallest of all axes: the axis that one would have chosen
        without this target
    n_methods: that were compared
    n_seeds: the sample
    """

    table: ClassVar = "dose_axes"

    outcome: Outcome
    axis: Annotated[str, key("Held equal", "metric")]
    collapse: Annotated[float | None, Said("two", "Collapse")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "two", upto="ci_high")] = None
    ci_high: float | None = None
    spread_pp: Annotated[float | None, Said("one", "Spread, pp")] = None
    spread_at_rate_pp: Annotated[float | None, Said("one", "At equal rate")] = None
    covered: Annotated[float | None, Said("share", "Covered")] = None
    collapse_elsewhere: Annotated[float | None, Said("two", "Elsewhere")] = None
    chosen_elsewhere: bool = False
    n_methods: Annotated[int, Said("count")]
    n_seeds: Annotated[int, Said("count")]
    reason: Reason = None


def rows(frame: pd.DataFrame) -> list[DoseAxis]:
    """Every drift signal as a dose, per backbone, target and retention.

    Each method's curve of mean retention over log10 of the mean size of the signal, through its
    rates, as `matched_views` draws it. Each cell is held against every other method twice: against
    that method's curve at the cell's dose, and against its mean at the cell's rate; only where
    both are there. Nothing is extrapolated.

    Returns:
        One row per backbone, target, outcome and axis, for two matched methods or more.

    Reference: the ratio is that of a scaling collapse (Bhattacharjee & Seno 2001, J. Phys. A
        34(33)), with spread at equal rate in the place of the range.
    """
    found: list[DoseAxis] = []
    for (backbone, target), part in parts(matched_runs(frame), "backbone", "target"):
        if part["method"].nunique() > 1:
            found += _of_target(backbone, target, part)
    return list(_held_elsewhere(found))


class _Spreads(NamedTuple):
    """Squared differences of retention summed over cells, one per draw, and how many there are."""

    dose: Floats
    rate: Floats
    met: int
    all: int


def _of_target(backbone: str, target: str, runs: pd.DataFrame) -> Iterator[DoseAxis]:
    outcomes = outcome_columns(runs)
    axes = [size_of(name) for name in map(str, runs.columns) if name.startswith(DRIFT)]
    methods = MethodCurves(runs, [*outcomes, *axes, LOG_LR])
    for outcome in outcomes:
        for axis in axes:
            row = DoseAxis(
                backbone=backbone,
                target=target,
                outcome=outcome,
                axis=axis,
                n_methods=len(methods.values),
                n_seeds=len(methods.seeds),
            )
            yield _scored(row, _spreads(methods, View(axis, axis, True), outcome), methods)


def _scored(row: DoseAxis, spreads: _Spreads, methods: MethodCurves) -> DoseAxis:
    if not spreads.met:
        return replace(row, reason="no cell whose dose another method's curve has")
    row = replace(row, covered=spreads.met / spreads.all)
    dose, rate = (np.sqrt(one / spreads.met) for one in (spreads.dose, spreads.rate))
    if not (dose[0] > 0 and rate[0] > 0):
        return replace(row, reason="methods keep the same at every rate or dose")
    seeds = min(int(methods.least_seeds(name).min()) for name in methods.values)
    test = jackknife(dose / rate, seeds, scale=1.0)
    low, high = (None if end is None else max(0.0, end) for end in test.interval())
    return replace(
        row,
        collapse=float(dose[0] / rate[0]),
        ci_low=low,
        ci_high=high,
        spread_pp=float(dose[0]),
        spread_at_rate_pp=float(rate[0]),
        reason=test.reason,
    )


def _spreads(methods: MethodCurves, view: View, outcome: str) -> _Spreads:
    at, n_draws = methods.columns.index(outcome), methods.counts.shape[1]
    kept = {name: means[:, at] for name, means in methods.cell_means.items()}
    curves = {
        name: Curve(methods.abscissa(view, name), kept[name][:, None]) for name in methods.values
    }
    dose, rate, met, every = np.zeros(n_draws), np.zeros(n_draws), 0, 0
    for name, other in permutations(methods.values, 2):
        shared = sorted(set(methods.rates[name]) & set(methods.rates[other]))
        mine, theirs = (
            [methods.rates[one].index(learning_rate) for learning_rate in shared]
            for one in (name, other)
        )
        places, own = methods.abscissa(view, name)[mine], kept[name][mine]
        there = np.stack([_at(curves[other], places[:, d], d) for d in range(n_draws)], axis=1)
        is_met = np.isfinite(there[:, 0])
        met, every = met + int(is_met.sum()), every + len(shared)
        dose += np.square(own - there)[is_met].sum(axis=0)
        rate += np.square(own - kept[other][theirs])[is_met].sum(axis=0)
    return _Spreads(dose, rate, met, every)


def _at(curve: Curve, places: Floats, draw: int) -> Floats:
    """Without one of the seeds a curve may end just short of a place: its end stands for it."""
    span = curve.span(draw)
    held = places if draw == 0 or span is None else np.clip(places, *span)
    return curve.at_draw(held, draw)[:, 0]


def _held_elsewhere(found: list[DoseAxis]) -> Iterator[DoseAxis]:
    """With what each axis came to on all other targets and backbones."""
    logs: dict[str, list[tuple[tuple[str, str], float]]] = {}
    for row in found:
        if row.collapse and (row.covered or 0) >= LEAST_COVERED:
            place = row.backbone, row.target
            logs.setdefault(row.axis, []).append((place, float(np.log(row.collapse))))
    for row in found:
        own = (row.backbone, row.target)
        means = {
            axis: float(np.exp(np.mean(others)))
            for axis, known in logs.items()
            if (others := [value for place, value in known if place != own])
        }
        best = min(means, key=means.__getitem__, default=None)
        elsewhere, why = means.get(row.axis), "met on no other target or backbone"
        reasons = [row.reason, why if elsewhere is None else None]
        yield replace(
            row,
            collapse_elsewhere=elsewhere,
            chosen_elsewhere=row.axis == best,
            reason="; ".join(filter(None, reasons)) or None,
        )
