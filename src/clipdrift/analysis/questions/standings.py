"""What each matched method comes to, by each way of holding methods equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.statistics.columns import LOG_LR, VAL_ACCURACY
from clipdrift.analysis.statistics.curve_images import CurveImages, ImageSet
from clipdrift.analysis.statistics.curves import Curve
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves, View
from clipdrift.analysis.statistics.ranks import Floats

EQUAL_LR, OWN_BEST = "equal_learning_rate", "own_best_rate"


TEST_ACCURACY = "test_accuracy"
# Two methods are compared whole by the paired tests and the matched views.
MIN_METHODS = 3


class Standing(NamedTuple):
    """What each method comes to in a view: (n_methods, n_metrics, n_draws), NaN where nothing.

    seeds (n_methods, n_metrics): behind the least covered of the cells that it is made of. images:
    by metric, those behind the difference of two methods that have a value. rates: where each
    method gets there, NaN where that is no rate.
    """

    view: str
    at: float | None
    values: Floats
    seeds: NDArray[np.intp]
    images: Callable[[tuple[str, str], list[str]], dict[str, list[ImageSet]]]
    rates: list[float]
    reasons: dict[str, str]


def standings(
    methods: MethodCurves, images: CurveImages, metrics: list[str], underfit_fraction: float
) -> Iterator[Standing]:
    wanted = [methods.columns.index(name) for name in [*metrics, LOG_LR]]
    least = {name: methods.least_seeds(name) for name in methods.values}
    seeds = np.stack([least[name][wanted] for name in methods.values])
    yield _at_equal_rates(methods, images, wanted, seeds)
    best = _best_rates(methods)
    if best is None:
        return
    own = [methods.cell_means[name][at] for name, at in best.items()]
    there = [np.isfinite(methods.values[name][at]).sum(axis=0) for name, at in best.items()]
    values, counts = (np.stack([one[wanted] for one in found]) for found in (own, there))
    one = {name: np.eye(len(methods.rates[name]))[at] for name, at in best.items()}
    rates = [methods.rates[name][at] for name, at in best.items()]
    yield Standing(OWN_BEST, None, values, counts, partial(images.of_cells, one), rates, {})
    for view in VIEWS:
        if view.metric in methods.columns:
            column = methods.columns.index(view.metric)
            held = np.array([values[column, 0] for values in own])
            behind = np.array([least[name][column] for name in methods.values])
            if np.isfinite(held).any():
                fewest = np.minimum(seeds, behind[:, None])
                place = _place(view, held, underfit_fraction)
                yield _along_curves(view, place, methods, images, wanted, fewest)


def _at_equal_rates(
    methods: MethodCurves, images: CurveImages, wanted: list[int], seeds: NDArray[np.intp]
) -> Standing:
    means = methods.cell_means
    shared = set.intersection(*(set(rates) for rates in methods.rates.values()))
    unknown = [np.nan] * len(means)
    share = {
        name: np.array([rate in shared for rate in rates]) / max(1, len(shared))
        for name, rates in methods.rates.items()
    }
    known = partial(images.of_cells, share)
    if not shared:
        nothing = np.full((len(means), len(wanted), methods.counts.shape[1]), np.nan)
        reasons = dict.fromkeys(means, "the methods share no learning rate")
        return Standing(EQUAL_LR, None, nothing, seeds, known, unknown, reasons)
    values = [means[name][share[name] > 0].mean(axis=0)[wanted] for name in means]
    return Standing(EQUAL_LR, None, np.stack(values), seeds, known, unknown, {})


def _best_rates(methods: MethodCurves) -> dict[str, int] | None:
    """Method -> index of its rate with the best mean validation accuracy."""
    if VAL_ACCURACY not in methods.columns:
        return None
    at = methods.columns.index(VAL_ACCURACY)
    # NaN never wins; the first of equal rates is the lowest.
    means = {name: own[:, at, 0] for name, own in methods.cell_means.items()}
    return {
        name: int(np.where(np.isfinite(own), own, -np.inf).argmax()) for name, own in means.items()
    }


def _place(view: View, held: Floats, underfit_fraction: float) -> float:
    """What is held equal in a view, in its unit: held are the methods' at their own best rates."""
    if view.in_log10:
        return float(np.nanmedian(held))
    return underfit_fraction * float(np.nanmax(held))


def _along_curves(
    view: View,
    at: float,
    methods: MethodCurves,
    images: CurveImages,
    wanted: list[int],
    seeds: NDArray[np.intp],
) -> Standing:
    place = float(np.log10(at)) if view.in_log10 else at
    curves: dict[str, Curve] = {name: methods.curve(view, name) for name in methods.values}
    values = np.stack([curve.at(place)[wanted] for curve in curves.values()])
    reasons = {name: _why_not_there(curve, place) for name, curve in curves.items()}
    known = partial(images.behind, view, place)
    rates = (10 ** values[:, -1, 0]).tolist()
    return Standing(view.name, at, values, seeds, known, rates, reasons)


def _why_not_there(curve: Curve, place: float) -> str:
    span = curve.span(0)
    if span is None:
        return "its curve has fewer than two distinct values"
    if span[1] < place:
        return "its curve ends below: it nowhere reaches what is held equal"
    return "its curve begins above: it is beyond what is held equal at its lowest rate"
