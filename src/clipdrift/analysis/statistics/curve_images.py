"""What drawing images adds to the error of a difference of cells, or read off two curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from clipdrift.analysis.statistics.crossed import Crossed, crossed
from clipdrift.analysis.statistics.curves import sensitivity
from clipdrift.analysis.statistics.influence import Images, Influence
from clipdrift.analysis.statistics.intervals import LEVEL, Interval
from clipdrift.analysis.statistics.method_curves import MethodCurves, View
from clipdrift.analysis.statistics.ranks import Floats

Cell = tuple[str, float]
"""Method and learning rate."""
READ_ON_IMAGES = ("accuracy", "retention_pct")


class ImageSet(NamedTuple):
    """One set of images behind a difference: the error from it, and how many they are."""

    error: Crossed
    n_images: int


class CurveImages:
    """The curves of a target's methods, and which images their runs were right on.

    A reading is taken as linear in the points that its curve goes through (the delta method). The
    images of what is held equal and those of the metric are two samples, each shared by all runs.
    """

    def __init__(self, methods: MethodCurves, images: Images) -> None:
        self.methods, self.images = methods, images
        self._known: dict[tuple[Cell, str], tuple[list[int], Influence] | None] = {}

    def slopes(self, view: View, place: float, name: str) -> tuple[Floats, Floats]:
        """`sensitivity` of a method's curve through its means over all seeds."""
        x, y = self.methods.abscissa(view, name)[:, 0], self.methods.cell_means[name][:, :, 0]
        return sensitivity(x, y, place)

    def behind(
        self, view: View, place: float, pair: tuple[str, str], metrics: list[str]
    ) -> dict[str, list[ImageSet]]:
        """Metric -> image sets behind its difference at a place; left out where one is unknown."""
        if not self.images.known:
            return {}
        slopes = [self.slopes(view, place, name) for name in pair]
        out = {}
        for metric in metrics:
            i = self.methods.columns.index(metric)
            found = []
            for held, of in ((view.metric, 0), (metric, 1)):
                if held.endswith(READ_ON_IMAGES):
                    signed = (slopes[0][of][i], -slopes[1][of][i])
                    found.append(self._drawn(held, pair, signed))
            known = [one for one in found if one is not None]
            if known and len(known) == len(found):
                out[metric] = known
        return out

    def of_cells(
        self, weights: Mapping[str, Floats], pair: tuple[str, str], metrics: list[str]
    ) -> dict[str, list[ImageSet]]:
        """As `behind`, of weighted sums of a method's cells; weights by method, one a rate."""
        signed = (weights[pair[0]], -weights[pair[1]])
        found = {m: self._drawn(m, pair, signed) for m in metrics if m.endswith(READ_ON_IMAGES)}
        return {metric: [one] for metric, one in found.items() if one is not None}

    def _drawn(
        self, metric: str, pair: tuple[str, str], weights: tuple[Floats, Floats]
    ) -> ImageSet | None:
        """Of the sum over cells of weight times mean, over the seeds that all these cells have."""
        parts = []
        for name, own in zip(pair, weights, strict=True):
            for rate, weight in zip(self.methods.rates[name], own.tolist(), strict=True):
                if weight:
                    parts.append((weight, self._influence((name, rate), metric)))
        known = [(weight, *found) for weight, found in parts if found is not None]
        if not known or len(known) < len(parts):
            return None
        seeds = sorted(set.intersection(*(set(own) for _, own, _ in known)))
        counts = {influence.values.shape[1] for _, _, influence in known}
        if not seeds or len(counts) > 1:
            return None
        values = sum(
            weight * influence.values[[own.index(seed) for seed in seeds]]
            for weight, own, influence in known
        )
        return ImageSet(crossed(np.asarray(values)), counts.pop())

    def _influence(self, cell: Cell, metric: str) -> tuple[list[int], Influence] | None:
        """Seeds of a cell in which a metric is defined, and what each image adds in them."""
        if (cell, metric) not in self._known:
            methods, (name, rate) = self.methods, cell
            column = methods.columns.index(metric)
            read = methods.values[name][methods.rates[name].index(rate), :, column]
            seeds = [s for s, value in zip(methods.seeds, read, strict=True) if np.isfinite(value)]
            ids = [methods.run_ids[name, rate, seed] for seed in seeds]
            found = self.images.influence(ids, metric)
            self._known[cell, metric] = None if found is None else (seeds, found)
        return self._known[cell, metric]


def with_images(seeds: Interval, drawn: Sequence[ImageSet], level: float = LEVEL) -> Interval:
    """An interval over seeds widened by what drawing each set of images adds: see `crossed`."""
    if seeds.low is None or seeds.high is None:
        return seeds
    middle, half = (seeds.low + seeds.high) / 2, (seeds.high - seeds.low) / 2
    images = [
        float(stdtrit(one.n_images - 1, (1 + level) / 2)) * one.error.shared_se for one in drawn
    ]
    half = float(np.hypot(half, np.hypot.reduce(images))) if images else half
    return Interval(middle - half, middle + half)
