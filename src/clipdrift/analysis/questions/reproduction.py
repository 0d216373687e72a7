"""A known preset against the figures published for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.questions.probe_sensitivity import N_SUBSETS
from clipdrift.analysis.questions.supporting import LAST_EPOCH, LEVELS, PROBE_CV, UNTOUCHED
from clipdrift.analysis.rows import Metric, Reason, Row, Said, key
from clipdrift.analysis.statistics.columns import RUN_ORDER, column, parts
from clipdrift.analysis.statistics.ranks import Floats
from clipdrift.analysis.statistics.tolerance import ONE_SEED, Theirs, between_parts, tolerance

# Learning rates are written as decimals; this only forgives their binary rounding.
SAME_RATE = 1e-6


CANNOT_TELL = "cannot tell: "
"""How a reason begins where there is a value of ours and it settles nothing."""


Kind = Literal["cell", "grid_mean", "nearest_cell", "untouched", "upper_bound"]


@dataclass(frozen=True, kw_only=True)
class Reproduction(Row):
    """Published figures of a known preset beside ours.

    backbone: of ours
    kind: what was published: the mean of a cell, of cells over the grid of rates, one configuration
        whose rate is not given (held against our nearest cell), a reading of the untouched model,
        or a value that theirs is below
    target: null: all of them
    method: null: all of them
    learning_rate: of our nearest cell where theirs is not given; null where rates are pooled
    n: runs with a value
    ours: from these records
    theirs: as published
    diff: ours less theirs
    tolerance: half an interval of 95 % for the difference, from the errors of both means, and half
        a unit of the last digit published
    untouched: what a model reads that no training moved
    within: null also where the untouched model would be within the tolerance
    """

    table: ClassVar = "reproduction"

    backbone: str
    kind: Annotated[Kind, key("What", "words")]
    target: Annotated[str | None, key("Target", "any")]
    method: Annotated[str | None, key("Method", "any")]
    learning_rate: Annotated[float | None, key("LR", "rate")]
    metric: Metric
    n: Annotated[int, Said("count", "Runs")]
    ours: Annotated[float | None, Said("value", "Ours")]
    theirs: Annotated[float, Said("value", "Published")]
    diff: Annotated[float | None, Said("difference", "Diff.")]
    tolerance: Annotated[float | None, Said("size", "Tolerance")]
    untouched: Annotated[float | None, Said("value", "Untouched model")]
    within: Annotated[bool | None, Said("within", "Within")]
    reason: Reason


class Published(NamedTuple):
    """One published figure.

    kind: `cell`, the mean of a cell; `grid_mean`, of cells over the grid of rates; `nearest_cell`,
    of one configuration whose rate is not given; `untouched`, of the untouched model;
    `upper_bound`, of something published as smaller than this. sd: over seeds, where published.
    """

    kind: Kind
    target: str | None
    method: str | None
    rates: tuple[float, ...]
    metric: str
    value: float
    sd: float | None = None


class Ours(NamedTuple):
    """Our counterpart: its mean and the values of each cell behind it, or why there is none."""

    cells: list[Floats]
    value: float | None
    reason: str | None = None
    rate: float | None = None


def rows(frame: pd.DataFrame, preset: str) -> list[Reproduction]:
    """Every published figure of a preset beside ours.

    A cell mean is over the seeds of a cell; a grid mean is over the cell means of all published
    learning rates, which must all be there. Where the rate of a figure is not given it is held
    against the nearest of our cells on the published grid, and `learning_rate` says which: within
    tolerance means that a cell like theirs exists here. A figure of the untouched model, and one
    that is published as an upper bound, is held against the mean over all runs (of its target).

    The tolerance is made of the errors of both sides (`tolerance`), and for readings of the
    untouched model on probe images of their scatter between parts of the probe set. Where it is so
    wide that the untouched model would pass as well, the row is no evidence: `within` is null.

    Args:
        frame: one row per finished run, of `with_supporting` for the figures that need it.
        preset: name of the study; one without published figures gives no rows.

    Returns:
        One row per backbone and published figure; an upper bound has no tolerance.
    """
    known = published().get(preset)
    if known is None:
        return []
    out = []
    ordered = frame.sort_values(RUN_ORDER, kind="stable")
    for (backbone,), runs in parts(ordered, "backbone"):
        out += [_compare(known, backbone, runs, entry) for entry in _entries(known)]
    return out


@lru_cache(maxsize=1)
def published() -> Mapping[str, Any]:
    """Preset -> published figures, as packaged.

    >>> sorted(published())
    ['leakage-free-66', 'leakage-free-b16', 'paper-80']
    """
    text = (files("clipdrift.analysis.questions") / "published.json").read_text(encoding="utf-8")
    figures: Mapping[str, Any] = json.loads(text)
    return figures


def _entries(known: Mapping[str, Any]) -> Iterator[Published]:
    for target, method, rate, *values in known["cells"]:
        for metric, read in zip(known["metrics"], values, strict=True):
            value, sd = read if isinstance(read, list) else (read, None)
            yield Published("cell", target, method, (rate,), metric, value, sd)
    for target, method, rate, metric, value in known["single_cells"]:
        yield Published("cell", target, method, (rate,), metric, value)
    for target, method, metric, value in known["grid_means"]:
        rates = tuple(cell[2] for cell in known["cells"] if cell[:2] == [target, method])
        yield Published("grid_mean", target, method, rates, metric, value)
    for target, method, metric, value in known["rate_not_given"]:
        rates = tuple(cell[2] for cell in known["cells"] if cell[:2] == [target, method])
        yield Published("nearest_cell", target, method, rates, metric, value)
    for target, metric, value in known["untouched"]:
        yield Published("untouched", target, None, (), metric, value)
    for target, metric, value in known["upper_bounds"]:
        yield Published("upper_bound", target, None, (), metric, value)


def _ours(runs: pd.DataFrame, entry: Published) -> Ours:
    if entry.metric not in runs:
        return Ours([], None, f"no {entry.metric} in these records")
    values = column(runs, entry.metric)
    if entry.method is None:
        defined = values[np.isfinite(values)]
        if not defined.size:
            return Ours([], None, f"{entry.metric} is undefined in all runs")
        return Ours([defined], float(defined.mean()))
    own = (runs["method"] == entry.method).to_numpy() & np.isfinite(values)
    rates = column(runs, "learning_rate")
    by_rate = {
        rate: values[own & np.isclose(rates, rate, rtol=SAME_RATE, atol=0)] for rate in entry.rates
    }
    return _of_cells(entry, {rate: cell for rate, cell in by_rate.items() if cell.size})


def _of_cells(entry: Published, cells: Mapping[float, Floats]) -> Ours:
    means = {rate: float(cell.mean()) for rate, cell in cells.items()}
    if entry.kind == "nearest_cell" and means:
        rate = min(means, key=lambda rate: abs(means[rate] - entry.value))
        return Ours([cells[rate]], means[rate], rate=rate)
    if len(means) < len(entry.rates):
        several = entry.kind == "grid_mean"
        reason = f"{len(means)} of {len(entry.rates)} cells" if several else "no such cell"
        return Ours(list(cells.values()), None, reason)
    return Ours(list(cells.values()), float(np.mean(list(means.values()))))


def _compare(
    known: Mapping[str, Any], backbone: str, runs: pd.DataFrame, entry: Published
) -> Reproduction:
    runs = runs if entry.target is None else runs[runs["target"] == entry.target]
    ours = _ours(runs, entry)
    diff = None if ours.value is None else ours.value - entry.value
    allowed = _tolerance(known, runs, entry, ours) if diff is not None else None
    untouched = _untouched(known, runs, entry)
    within, reason = _judged(entry, diff, allowed, untouched)
    return Reproduction(
        backbone=backbone,
        kind=entry.kind,
        target=entry.target,
        method=entry.method,
        learning_rate=entry.rates[0] if entry.kind == "cell" else ours.rate,
        metric=entry.metric,
        n=sum(int(cell.size) for cell in ours.cells),
        ours=ours.value,
        theirs=entry.value,
        diff=diff,
        tolerance=allowed,
        untouched=untouched,
        within=within,
        reason=ours.reason or reason,
    )


def _tolerance(
    known: Mapping[str, Any], runs: pd.DataFrame, entry: Published, ours: Ours
) -> float | None:
    if entry.kind == "upper_bound":
        return None
    images = known["images"].get(entry.metric)
    if isinstance(images, Mapping):
        images = images.get(entry.target)
    seeds = 1 if entry.kind == "nearest_cell" else known["seeds"]
    theirs = Theirs(entry.value, seeds, entry.sd, images, known["decimals"][entry.metric])
    if entry.kind != "untouched":
        return tolerance(theirs, ours.cells)
    if images is not None:  # the same model on the same images: there are no seeds
        return tolerance(theirs, [])
    spread = PROBE_CV + entry.metric.removeprefix(UNTOUCHED)
    cv = column(runs, spread) if spread in runs else np.array([])
    return between_parts(theirs, cv[np.isfinite(cv)], N_SUBSETS)


def _untouched(known: Mapping[str, Any], runs: pd.DataFrame, entry: Published) -> float | None:
    """What a model that no training moved reads; None where that is not known, or not the point.

    Its drift is 0 and its CKA 1; a head that was not trained guesses; zero-shot accuracy was
    published; levels are those before our training.
    """
    if entry.method is None:
        return None
    name = entry.metric.removeprefix(LAST_EPOCH)
    if name.startswith("drift."):
        return 1.0 if "cka" in name else 0.0
    if name == "test_accuracy":
        return 1 / int(known["classes"][entry.target])
    if name.startswith("transfer."):
        before = name.removesuffix("accuracy") + "baseline_accuracy"
        return next(float(value) for _, metric, value in known["untouched"] if metric == before)
    level = UNTOUCHED + name.removeprefix(LEVELS)
    values = column(runs, level) if level in runs else np.array([np.nan])
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _judged(
    entry: Published, diff: float | None, allowed: float | None, untouched: float | None
) -> tuple[bool | None, str | None]:
    """Whether ours is as published, or None with the reason why that cannot be told."""
    if diff is None:
        return None, None
    if entry.kind == "upper_bound":
        return diff < 0, None
    if allowed is None:
        nothing = "no readings image by image" if entry.kind == "untouched" else ONE_SEED
        return None, CANNOT_TELL + nothing
    if abs(diff) > allowed or entry.kind == "untouched":
        return abs(diff) <= allowed, None
    if untouched is None:
        return None, CANNOT_TELL + "the untouched model was not read"
    if abs(untouched - entry.value) <= allowed:
        return None, CANNOT_TELL + "the untouched model is within the tolerance too"
    return True, None
