"""Which signal foretells retention best where method, rate or both are held: all of them ranked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipdrift.analysis.rows import Count, OfBackbone, Outcome, Reason, Said, key, sure
from clipdrift.analysis.statistics.columns import (
    DRIFT,
    WHENS,
    Floats,
    When,
    column,
    is_size,
    matched_runs,
    pairs_of_interest,
    parts,
)
from clipdrift.analysis.statistics.intervals import LEVEL
from clipdrift.analysis.statistics.method_curves import WEIGHT_DRIFT

REFERENCE = f"|{WEIGHT_DRIFT}|"
DRAWS = 1000
LARGEST = 1 - 1e-6
LEAST_CELLS = 6
"""Clusters: of fewer a bootstrap tells little."""
Better = Literal["better", "not told apart", "worse"]
Within = Literal["method", "rate", "cell"]
STRATA: dict[Within, list[str]] = {
    "method": ["target", "method"],
    "rate": ["target", "learning_rate"],
    "cell": ["target", "method", "learning_rate"],
}
CELL = STRATA["cell"]


@dataclass(frozen=True, kw_only=True)
class SignalRank(OfBackbone):
    """Every signal ranked by how well it orders runs by retention where something is held.

    Intervals draw cells; the images are these. Sizes of drifts alone, for either direction counts.

    within: method: runs of one method on one target, over rates and seeds; rate: of one rate on one
        target, over methods and seeds; cell: of one method at one rate on one target, seeds alone
    rank: of |rho| among the signals read at that moment whose error is known, from 1
    rho: Spearman's, pooled over the groups within which runs are ranked; -1: the more it moved, the
        less was kept
    ci_low: cluster bootstrap over cells: t on Fisher's z, its error that of 1,000 draws
    gap: |rho| less that of weight drift at the same moment, over the runs that have both
    gap_ci_low: likewise, not on z
    better: than weight drift, or worse, where the interval of the gap leaves out 0
    n_groups: in which both vary
    n_cells: clusters
    """

    table: ClassVar = "signal_ranks"

    outcome: Outcome
    when: Annotated[When, key("Read at", "moment")]
    within: Annotated[Within, key("Within")]
    rank: Annotated[int | None, Said("count", "Rank")] = None
    signal: Annotated[str, key("Signal", "metric")]
    rho: Annotated[float | None, Said("two", "ρ")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "two", upto="ci_high")] = None
    ci_high: float | None = None
    gap: Annotated[float | None, Said("two", "Gap to weight drift")] = None
    gap_ci_low: Annotated[float | None, sure("95 % CI of gap", "two", upto="gap_ci_high")] = None
    gap_ci_high: float | None = None
    better: Better | None = None
    n: Count
    n_groups: Annotated[int, Said("count")]
    n_cells: Annotated[int, Said("count")]
    reason: Reason = None


def rows(frame: pd.DataFrame) -> list[SignalRank]:
    """All signals of `predictors` but drifts with their sign, ranked within groups of runs.

    rho is Spearman's within groups, pooled: runs are ranked within each group, ranks are centred
    there, and products and squares are summed over groups. Groups in which signal or outcome does
    not vary say nothing and are left out.

    Intervals draw cells (method, rate and target; all their seeds together) with replacement. The
    ranks are those of all runs: a draw weighs the sums of its cells. The standard deviation over
    draws is the error of a t interval with n_cells - 1 degrees of freedom, of artanh(rho) and of
    gaps themselves: percentiles of the draws held the truth in 83 to 92 of 100 made-up studies of
    8 or 16 cells, this in 91 to 98.

    Returns:
        One row per backbone, outcome, moment, `within` and signal.

    Reference: Field & Welsh 2007, "Bootstrapping clustered data", J. R. Statist. Soc. B 69(3), for
        drawing clusters whole.
    """
    out: list[SignalRank] = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        out += _of_backbone(backbone, runs)
    return out


def _of_backbone(backbone: str, runs: pd.DataFrame) -> Iterator[SignalRank]:
    cells = _codes(runs, CELL)
    strata = {within: _codes(runs, keys) for within, keys in STRATA.items()}
    pairs = [
        (signal, outcome)
        for signal, outcome in pairs_of_interest(runs)
        if is_size(signal.name) or not signal.name.startswith(DRIFT)
    ]
    for outcome in dict.fromkeys(outcome for _, outcome in pairs):
        y = column(runs, outcome)
        for when in WHENS:
            columns = {s.name: s.column for s, o in pairs if o == outcome and s.when == when}
            signals = {name: column(runs, own) for name, own in columns.items()}
            for within, groups in strata.items():
                known = SignalRank(
                    backbone=backbone,
                    outcome=outcome,
                    when=when,
                    within=within,
                    signal="",
                    n=0,
                    n_groups=0,
                    n_cells=0,
                )
                yield from _ranked(_correlated(known, _Held(signals, y, groups, cells)))


def _codes(runs: pd.DataFrame, keys: list[str]) -> NDArray[np.intp]:
    return np.asarray(runs.groupby(keys, sort=True).ngroup(), dtype=np.intp)


def _ranked(found: list[SignalRank]) -> Iterator[SignalRank]:
    """Best first; those without an interval last, without a rank: few runs are soon in order."""
    known = [row for row in found if row.ci_low is not None]
    ordered = sorted(known, key=lambda row: (-abs(row.rho or 0.0), row.signal))
    yield from (replace(row, rank=place) for place, row in enumerate(ordered, start=1))
    yield from (row for row in found if row.ci_low is None)


def _correlated(known: SignalRank, held: _Held) -> list[SignalRank]:
    out = []
    for name, x in held.signals.items():
        sums = held.sums(name, np.isfinite(x))
        row = replace(known, signal=name, n=sums.n, n_groups=sums.n_groups, n_cells=len(sums.cells))
        rho = _rho(sums.cells)
        if not len(rho):
            row = replace(row, reason="signal or outcome varies within no group")
        elif sums.n == len(sums.cells):  # a rate is no replicate
            row = replace(row, rho=float(rho[0]), reason="one run a cell: no interval")
        elif len(sums.cells) < LEAST_CELLS:
            reason = f"no interval of {len(sums.cells)} cells, {LEAST_CELLS} needed"
            row = replace(row, rho=float(rho[0]), reason=reason)
        else:
            ends = [float(np.tanh(end)) for end in _interval(np.arctanh(rho), len(sums.cells))]
            row = replace(row, rho=float(rho[0]), ci_low=ends[0], ci_high=ends[1])
            row = _held_against(row, held)
        out.append(row)
    return out


def _held_against(row: SignalRank, held: _Held) -> SignalRank:
    """With its gap to the reference, over the runs that have both."""
    if row.signal == REFERENCE or REFERENCE not in held.signals:
        why = "it is the reference" if row.signal == REFERENCE else "no weight drift was read"
        return replace(row, reason=f"no gap: {why}")
    names = (row.signal, REFERENCE)
    both = np.all([np.isfinite(held.signals[name]) for name in names], axis=0)
    own, other = (_rho(held.sums(name, both).cells) for name in names)
    if len(own) != len(other) or not len(own):
        return replace(row, reason="no gap: cells in which one of the two does not vary")
    # |rho| with the sign that it has over all runs, so that it may cross 0 in a draw.
    gaps = np.sign(own[0]) * own - np.sign(other[0]) * other
    low, high = _interval(gaps, row.n_cells)
    better: Better = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    return replace(
        row,
        gap=float(gaps[0]),
        gap_ci_low=low,
        gap_ci_high=high,
        better=better,
    )


class _Sums(NamedTuple):
    """Products and squares of centred ranks summed over each cell's runs, (n_cells, 3)."""

    cells: Floats
    n: int
    n_groups: int


class _Held:
    """Signals and an outcome of all runs, ranked within groups.

    Args:
        signals: name -> (n,). y: the outcome, (n,). groups, cells: of every run, (n,).
    """

    def __init__(
        self,
        signals: dict[str, Floats],
        y: Floats,
        groups: NDArray[np.intp],
        cells: NDArray[np.intp],
    ) -> None:
        self.signals, self.y, self.groups, self.cells = signals, y, groups, cells
        self._known: dict[tuple[str, bytes], _Sums] = {}

    def sums(self, name: str, usable: NDArray[np.bool_]) -> _Sums:
        """Of one signal over some runs."""
        key = name, usable.tobytes()
        if key not in self._known:
            self._known[key] = self._summed(self.signals[name], usable & np.isfinite(self.y))
        return self._known[key]

    def _summed(self, x: Floats, usable: NDArray[np.bool_]) -> _Sums:
        groups, cells = self.groups[usable], self.cells[usable]
        rx, ry = (_centred_ranks(one[usable], groups) for one in (x, self.y))
        varies = (_by_code(rx**2, groups)[groups] > 0) & (_by_code(ry**2, groups)[groups] > 0)
        found = [_by_code(one[varies], cells[varies]) for one in (rx * ry, rx**2, ry**2)]
        totals = np.column_stack(found)[np.unique(cells[varies])]
        return _Sums(totals, int(varies.sum()), len(np.unique(groups[varies])))


def _centred_ranks(values: Floats, groups: NDArray[np.intp]) -> Floats:
    """Average ranks within each group less their mean."""
    order = np.lexsort((values, groups))
    ordered, group = values[order], groups[order]
    starts = (ordered[1:] != ordered[:-1]) | (group[1:] != group[:-1])
    ties = np.cumsum(np.r_[False, starts])[: len(order)]
    places, out = np.arange(len(order), dtype=np.float64), np.empty(len(order))
    out[order] = _mean(places, ties) - _mean(places, group)
    return out


def _by_code(values: Floats, codes: NDArray[np.intp]) -> Floats:
    """Sums over the members of each code."""
    return np.asarray(np.bincount(codes, values), dtype=np.float64)


def _mean(values: Floats, codes: NDArray[np.intp]) -> Floats:
    out: Floats = (np.bincount(codes, values) / np.maximum(np.bincount(codes), 1))[codes]
    return out


def _rho(totals: Floats) -> Floats:
    """The correlation of all cells, then of every draw of them: the same draws for every signal."""
    if not len(totals):
        return np.zeros(0)
    products, x, y = (_draws(len(totals)) @ totals).T
    with np.errstate(divide="ignore", invalid="ignore"):
        # A correlation of 1, of few runs that a signal happens to order alike, has no z.
        return np.asarray(np.clip(products / np.sqrt(x * y), -LARGEST, LARGEST))


@lru_cache(maxsize=64)
def _draws(n: int) -> Floats:
    drawn = np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return np.vstack([np.ones(n), drawn])


def _interval(samples: Floats, n_cells: int) -> tuple[float, float]:
    """Of the first sample, by the standard deviation of the others; small numbers corrected."""
    error = np.nanstd(samples[1:]) * np.sqrt(n_cells / (n_cells - 1))
    half = float(stdtrit(n_cells - 1, (1 + LEVEL) / 2) * error)
    return float(samples[0]) - half, float(samples[0]) + half
