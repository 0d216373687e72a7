"""How sure are the correlations of `predictors`: cells resampled, all runs of a cell together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.intervals import Interval, cluster_resamples, percentile_ci
from clipdrift.analysis.ranks import (
    Floats,
    centred_ranks,
    correlate_centred,
    spearman,
    sum_of_squares,
)
from clipdrift.analysis.signals import (
    LOG_LR,
    Signal,
    cell_labels,
    column,
    matched_runs,
    pairs_of_interest,
    parts,
)

N_RESAMPLES = 10_000
MIN_CELLS = 3
REFERENCES = ("drift.cka_mean", "drift.cka", LOG_LR)
"""The signal others are held against: the first of these that the records have."""

# Numbers held at a time per matrix of ranks: 48 MB. Smaller blocks are slower for many runs.
BLOCK = 6_000_000


class Request(NamedTuple):
    """One correlation to resample: two columns, and the runs (as mask bytes) it is taken over."""

    x: str
    y: str
    runs: bytes


def rows(
    frame: pd.DataFrame,
    *,
    reference: str | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Percentile intervals of |rho| and of its gap to a reference signal's |rho|, per backbone.

    Cells (target x method x learning rate) are drawn with replacement, as many as there are, and
    every run of a drawn cell comes along; ranks are taken anew in every resample. The gap
    |rho_signal| - |rho_reference| uses the same draws for both, the reference read at the same
    moment, over the runs in which both are defined. |rho| cannot be negative, so an interval that
    starts near 0 says no more than that the direction is unsure.

    Args:
        frame: one row per finished run.
        reference: name of a signal; default the first of `REFERENCES` in the frame.
        n_resamples: bootstrap resamples.
        seed: of the generator; the same draws serve all signals.
        level: coverage.

    Returns:
        One dict per row of `predictors`: `backbone, signal, when, outcome, n, n_cells, abs_rho,
        ci_low, ci_high, reference, gap, gap_ci_low, gap_ci_high, n_resamples, seed, reason`.

    Reference: Davison & Hinkley (1997), section 3.8; Efron & Tibshirani (1993), section 13.3.
    """
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        study = _Study(runs, reference, n_resamples, seed, level)
        out += [{"backbone": backbone, **row} for row in study.rows()]
    return out


class _Study:
    """The runs of one backbone and the resamples their correlations share."""

    def __init__(
        self, runs: pd.DataFrame, reference: str | None, n_resamples: int, seed: int, level: float
    ) -> None:
        self.pairs = pairs_of_interest(runs)
        self.values = {n: column(runs, n) for s, o in self.pairs for n in (s.column, o)}
        self.cells = cell_labels(runs)
        self.columns = {(s.name, s.when): s.column for s, _ in self.pairs}
        self.reference = reference or next(
            name for name in REFERENCES if name == LOG_LR or (name, "final") in self.columns
        )
        self.n_resamples, self.seed, self.level = n_resamples, seed, level

    def rows(self) -> list[dict[str, Any]]:
        wanted = {request for pair in self.pairs for request in self._requests(*pair)}
        samples = resampled_correlations(
            self.values, self.cells, wanted, n_resamples=self.n_resamples, seed=self.seed
        )
        return [self._row(signal, outcome, samples) for signal, outcome in self.pairs]

    def _mask(self, *names: str) -> bytes:
        return bytes(np.all([np.isfinite(self.values[name]) for name in names], axis=0))

    def _requests(self, signal: Signal, outcome: str) -> list[Request]:
        """The correlation itself; then signal and reference over the runs they share."""
        x, other = signal.column, self.columns.get((self.reference, signal.when))
        requests = [Request(x, outcome, self._mask(x, outcome))]
        if other is not None:
            shared = self._mask(x, outcome, other)
            requests += [Request(x, outcome, shared), Request(other, outcome, shared)]
        return requests

    def _row(
        self, signal: Signal, outcome: str, samples: Mapping[Request, Floats]
    ) -> dict[str, Any]:
        own, *gap = self._requests(signal, outcome)
        point, cells, interval, reason = self._interval(own, samples)
        row = {
            "signal": signal.name,
            "when": signal.when,
            "outcome": outcome,
            "n": sum(own.runs),
            "n_cells": cells,
            "abs_rho": point,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "reference": self.reference,
            "n_resamples": self.n_resamples,
            "seed": self.seed,
        }
        return {**row, **self._gap(gap, samples, reason)}

    def _interval(
        self, request: Request, samples: Mapping[Request, Floats]
    ) -> tuple[float | None, int, Interval, str | None]:
        mask = np.frombuffer(request.runs, dtype=bool)
        x, y = (self.values[name][mask] for name in request[:2])
        point = spearman(x, y, ("signal", "outcome"))
        cells = len({cell for cell, used in zip(self.cells, mask, strict=True) if used})
        if point.rho is None:
            return None, cells, Interval(None, None), point.reason
        if cells < MIN_CELLS:
            reason = f"{cells} cells, at least {MIN_CELLS} needed for an interval"
            return abs(point.rho), cells, Interval(None, None), reason
        interval = percentile_ci(np.abs(samples[request]), self.level)
        undefined = "undefined in most resamples" if interval.low is None else None
        return abs(point.rho), cells, interval, undefined

    def _gap(
        self, requests: list[Request], samples: Mapping[Request, Floats], reason: str | None
    ) -> dict[str, Any]:
        empty = {"gap": None, "gap_ci_low": None, "gap_ci_high": None}
        if not requests:
            missing = f"reference signal {self.reference} is not in these records"
            return {**empty, "reason": "; ".join(filter(None, [reason, missing]))}
        (own, _, own_ci, own_reason), (other, _, other_ci, other_reason) = (
            self._interval(request, samples) for request in requests
        )
        if own is None or other is None:
            why = None if other is not None else f"reference: {other_reason}"
            texts = dict.fromkeys(filter(None, [reason, why or own_reason]))
            return {**empty, "reason": "; ".join(texts)}
        interval = Interval(None, None)
        if own_ci.low is not None and other_ci.low is not None:
            gaps = np.abs(samples[requests[0]]) - np.abs(samples[requests[1]])
            interval = percentile_ci(gaps, self.level)
        return {
            "gap": own - other,
            "gap_ci_low": interval.low,
            "gap_ci_high": interval.high,
            "reason": reason or own_reason or other_reason,
        }


def resampled_correlations(
    values: Mapping[str, Floats],
    cells: list[tuple[str, str, float]],
    requests: Iterable[Request],
    *,
    n_resamples: int,
    seed: int,
) -> dict[Request, Floats]:
    """Spearman's rho of every request in every resample of cells.

    Args:
        values: column -> shape (n,).
        cells: label of every run, length n.
        requests: what to correlate, over which runs.

    Returns:
        request -> shape (n_resamples,), NaN where undefined.
    """
    by_runs: dict[bytes, list[Request]] = defaultdict(list)
    for request in sorted(requests):
        by_runs[request.runs].append(request)
    out: dict[Request, Floats] = {}
    for runs, group in by_runs.items():
        mask = np.frombuffer(runs, dtype=bool)
        used = {name: values[name][mask] for request in group for name in request[:2]}
        labels = [cell for cell, is_used in zip(cells, mask, strict=True) if is_used]
        draws = cluster_resamples(labels, n_resamples, seed)
        step = max(1, BLOCK // max(1, len(labels)))
        blocks = [
            _correlate_block(used, draws.counts[:, start : start + step][draws.codes], group)
            for start in range(0, n_resamples, step)
        ]
        for request in group:
            out[request] = np.concatenate([block[request] for block in blocks])
    return out


def _correlate_block(
    values: Mapping[str, Floats], weights: Floats, group: list[Request]
) -> dict[Request, Floats]:
    """Each outcome and each signal is ranked once, whatever the number of their pairs."""
    by_signal: dict[str, list[Request]] = defaultdict(list)
    for request in group:
        by_signal[request.x].append(request)
    outcomes = {}
    for name in {request.y for request in group}:
        ranks = centred_ranks(values[name], weights)
        outcomes[name] = (weights * ranks, sum_of_squares(ranks, weights))
    out = {}
    for name, own in by_signal.items():
        ranks = centred_ranks(values[name], weights)
        squares = sum_of_squares(ranks, weights)
        for request in own:
            weighted, other = outcomes[request.y]
            products = np.einsum("ib,ib->b", ranks, weighted)
            out[request] = correlate_centred(products, squares, other)
    return out


__all__ = ["MIN_CELLS", "N_RESAMPLES", "REFERENCES", "Request", "resampled_correlations", "rows"]
