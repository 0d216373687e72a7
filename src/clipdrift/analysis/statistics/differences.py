"""Differences of matched runs: at each learning rate, over the grid of rates, where both fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.statistics.columns import Floats, column
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES, Error
from clipdrift.analysis.statistics.fit import FITS, Cell, Fit
from clipdrift.analysis.statistics.influence import NOT_RECORDED, Images, Influence
from clipdrift.analysis.statistics.intervals import ROUNDING
from clipdrift.analysis.statistics.pairs import MatchedRuns

Scope = Literal["per_lr", "grid_mean", "both_fit", "all_pairs"]
PER_LR: Final = "per_lr"
GRID_MEAN: Final = "grid_mean"
BOTH_FIT: Final = "both_fit"
ALL_PAIRS: Final = "all_pairs"
Mask = NDArray[np.bool_]


class Gaps(NamedTuple):
    """Differences method_a - method_b of one metric in one scope.

    values: of scope "per_lr" one per seed at a rate; of "grid_mean" and "both_fit" one per seed,
        its mean over `learning_rates`; of "all_pairs" one per seed and rate.
    rounding: below this a difference or a spread of the values is zero.
    images: what each image adds to the values, both methods read on it; None where that is not
        known of every run, or the metric is no mean over labelled images.
    unread: why images are not known of a metric that is a mean over a known number of them.
    reason: why there can be no value, where the scope itself is empty.
    """

    scope: Scope
    learning_rate: float | None
    learning_rates: list[float]
    values: Floats
    rounding: float
    n_pairs: int
    n_seeds: int
    run_ids: list[str]
    images: Influence | None = None
    unread: str | None = None
    reason: str | None = None

    @property
    def untestable(self) -> str | None:
        """Why seeds do not tell how sure the mean difference is, or None."""
        if self.reason or not self.n_pairs:
            return self.reason or "no usable pair"
        if self.n_seeds < 2:
            return "one seed: no spread"
        if float(self.values.std(ddof=1)) <= self.rounding:
            return "the differences do not vary: no t test"
        return None

    @property
    def error(self) -> Error:
        """Of the mean of testable differences: from seeds, and from images where they are known."""
        n = int(self.values.size)
        seeds = float(self.values.std(ddof=1)) / n**0.5
        if self.images is None:
            return Error(seeds, 0.0, n)
        return Error(seeds, self.images.crossed().shared_se, n, self.images.values.shape[1])

    @property
    def fields(self) -> dict[str, Any]:
        """What every row of a comparison says of them."""
        names = ("scope", "learning_rate", "n_pairs", "n_seeds")
        return {name: getattr(self, name) for name in names}

    @property
    def mean(self) -> float | None:
        return float(self.values.mean()) if self.values.size else None

    @property
    def n_images(self) -> int | None:
        """Labelled images that both methods were read on, where single answers are known."""
        return self.images.values.shape[1] if self.images else None

    @property
    def image_se(self) -> float | None:
        """Error of the mean from drawing images."""
        return self.images.crossed().image_se if self.images else None

    @property
    def interval_over(self) -> Literal["seeds and images", "seeds"] | None:
        """What an interval of the mean draws; None where there is none."""
        if self.untestable or self.scope == ALL_PAIRS:
            return None
        return SEEDS_AND_IMAGES if self.images else SEEDS


class Differences:
    """The differences of two methods on one target, metric by metric.

    Seeds are the replicates and the grid of rates is fixed: over rates a seed has one value, the
    mean of its differences at the rates that all seeds used have (`whole_grid`).

    Args:
        pairs: the matched runs.
        flags: whether each cell fits, as `fits` tells.
        images: which images each of these runs was right on.
    """

    def __init__(
        self,
        pairs: MatchedRuns,
        flags: Mapping[Cell, Fit | None],
        images: Images | None = None,
    ) -> None:
        self.pairs, self.rates, self.images = pairs, pairs.rates(), images or Images()
        self.both_fit = _both_fit(pairs, self.rates, flags)
        seeds = pairs.runs["seed"].to_numpy()[pairs.first]
        self._row = np.unique(seeds, return_inverse=True)[1]
        self._col = np.searchsorted(self.rates, pairs.learning_rate)
        self._shape = (len(set(seeds.tolist())), len(self.rates))
        self._ids = pairs.runs["run_id"].to_numpy(dtype=object)
        self._known: dict[bytes, list[str]] = {}

    def of(self, metric: str) -> Iterator[Gaps]:
        """Each rate, the grid, the rates at which both methods fit, and all pairs."""
        values = column(self.pairs.runs, metric)
        a, b = values[self.pairs.first], values[self.pairs.second]
        for i, rate in enumerate(self.rates):
            yield self._flat(metric, PER_LR, [rate], self._col == i, a, b)
        yield self._mean(metric, GRID_MEAN, self.rates, a, b)
        if self.both_fit:
            yield self._mean(metric, BOTH_FIT, self.both_fit, a, b)
        else:
            yield self._empty()
        yield self._flat(metric, ALL_PAIRS, self.rates, np.ones(len(a), dtype=bool), a, b)

    def _flat(
        self, metric: str, scope: Scope, rates: list[float], inside: Mask, a: Floats, b: Floats
    ) -> Gaps:
        used = inside & np.isfinite(a) & np.isfinite(b)
        found = self._gaps(scope, rates, used, a, b, (a - b)[used])
        return found if scope == ALL_PAIRS else self._with_images(found, metric, used)

    def _mean(self, metric: str, scope: Scope, rates: list[float], a: Floats, b: Floats) -> Gaps:
        inside = np.isin(self._col, np.searchsorted(self.rates, rates))
        defined = inside & np.isfinite(a) & np.isfinite(b)
        there = np.zeros(self._shape, dtype=bool)
        there[self._row[defined], self._col[defined]] = True
        seeds, columns = whole_grid(there)
        used = defined & seeds[self._row] & columns[self._col]
        sums = np.bincount(self._row[used], (a - b)[used], minlength=self._shape[0])
        means = sums[seeds] / max(1, int(columns.sum()))
        shared = [rate for rate, kept in zip(self.rates, columns, strict=True) if kept]
        found = self._gaps(scope, rates, used, a, b, means)
        return self._with_images(found._replace(learning_rates=shared), metric, used)

    def _with_images(self, gaps: Gaps, metric: str, used: Mask) -> Gaps:
        """With what each image adds to a seed's value, its mean over the rates."""
        ids = [self._ids[at[used]].tolist() for at in (self.pairs.first, self.pairs.second)]
        a, b = (self.images.influence(own, metric) for own in ids)
        if a is None or b is None or a.values.shape != b.values.shape:
            counted = self.images.count([*ids[0], *ids[1]], metric) is not None
            return gaps._replace(unread=NOT_RECORDED if counted else None)
        each = a.less(b)
        rows, counts = np.unique(self._row[used], return_inverse=True, return_counts=True)[1:]
        share = np.equal.outer(np.arange(len(counts)), rows) / counts[:, None]
        return gaps._replace(images=each._replace(values=share @ each.values))

    def _gaps(
        self,
        scope: Scope,
        rates: list[float],
        used: Mask,
        a: Floats,
        b: Floats,
        values: Floats,
    ) -> Gaps:
        scale = max(np.abs(a[used]).max(initial=0.0), np.abs(b[used]).max(initial=0.0))
        return Gaps(
            scope,
            rates[0] if scope == PER_LR else None,
            rates,
            values,
            ROUNDING * float(scale),
            int(used.sum()),
            len(np.unique(self._row[used])),
            self._run_ids(used),
        )

    def _empty(self) -> Gaps:
        why = f"both methods fit at none of the {len(self.rates)} rates"
        if self.both_fit is None:
            why = "no target accuracy: whether the methods fit is not known"
        nothing = np.empty(0)
        return Gaps(BOTH_FIT, None, [], nothing, 0.0, 0, 0, [], reason=why)

    def _run_ids(self, used: Mask) -> list[str]:
        """Sorted; most metrics are defined in the same runs."""
        key = used.tobytes()
        if key not in self._known:
            at = [*self.pairs.first[used], *self.pairs.second[used]]
            self._known[key] = sorted(self._ids[at].tolist())
        return self._known[key]


def _both_fit(
    pairs: MatchedRuns, rates: list[float], flags: Mapping[Cell, Fit | None]
) -> list[float] | None:
    """Rates at which both methods fit; None where no fit is known."""
    found = {
        rate: [
            flags.get((pairs.backbone, pairs.target, "matched", method, rate))
            for method in (pairs.method_a, pairs.method_b)
        ]
        for rate in rates
    }
    if not any(fit for both in found.values() for fit in both):
        return None
    return [rate for rate, both in found.items() if both == [FITS, FITS]]


def whole_grid(there: Mask) -> tuple[Mask, Mask]:
    """Seeds (G,) and rates (R,) of the largest part of a grid (G, R) without a gap.

    Looked for among the rates that some seed has, with all seeds that have them too, and those
    that every seed has. Of equal parts the one with more seeds.

    >>> seeds, rates = whole_grid(np.array([[True, True], [True, False], [True, True]]))
    >>> seeds.tolist(), rates.tolist()
    ([True, False, True], [True, True])
    """
    best = (-1, -1)
    found: tuple[Mask, Mask] = np.any(there, axis=1), np.any(there, axis=0)
    for rates in np.unique(np.vstack([there, there.all(axis=0)]), axis=0):
        seeds = np.all(there >= rates, axis=1) & np.any(rates)
        size = (int(seeds.sum() * rates.sum()), int(seeds.sum()))
        if size > best:
            best, found = size, (seeds, rates)
    return found
