"""How sure are the correlations of `predictors`: with one seed left out at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.statistics.columns import LOG_LR, Signal
from clipdrift.analysis.statistics.intervals import (
    ROUNDING,
    UNDEFINED,
    Interval,
    TTest,
    delete_one,
    jackknife,
)
from clipdrift.analysis.statistics.ranks import (
    Floats,
    centred_ranks,
    correlate_centred,
    sum_of_squares,
)

REFERENCES = ("drift.cka_mean", "drift.cka", LOG_LR)
"""The signal others are held against: the first of these that the records have."""


class HowSure(NamedTuple):
    """How sure a correlation is, and its gap to that of the reference; None where undefined."""

    n_seeds: int
    p: float | None
    ci: Interval
    gap: float | None
    gap_ci: Interval
    reason: str | None


class Request(NamedTuple):
    """One correlation: two columns, and the runs (as mask bytes) it is taken over."""

    x: str
    y: str
    runs: bytes


class Errors:
    """Intervals of the correlations of one backbone, and of their gaps to those of a reference.

    Args:
        pairs: signals and outcomes to correlate.
        values: column -> shape (n,).
        seeds, groups: of every run, shape (n,); groups are target x method.
        reference: name of a signal; default the first of `REFERENCES` among the signals.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Signal, str]],
        values: Mapping[str, Floats],
        seeds: NDArray[np.intp],
        groups: NDArray[np.intp],
        reference: str | None,
    ) -> None:
        self.values, self.seeds, self.groups = values, seeds, groups
        self.columns = {(s.name, s.when): s.column for s, _ in pairs}
        self.reference = reference or next(
            name for name in REFERENCES if name == LOG_LR or (name, "final") in self.columns
        )
        wanted = {request for pair in pairs for request in self._requests(*pair)}
        self.samples = correlations_without_seeds(values, seeds, wanted)

    def of(self, signal: Signal, outcome: str) -> HowSure:
        """Of a correlation that is defined."""
        own, *both = self._requests(signal, outcome)
        rho = self.samples[own]
        if (np.abs(rho) > 1 - ROUNDING).any():
            test = TTest(np.inf, None, 0, "a perfect correlation: no interval")
        else:
            test = self._test(own.runs, np.arctanh(rho))
        low, high = (None if end is None else float(np.tanh(end)) for end in test.interval())
        gap, why = self._gap(signal, both)
        return HowSure(
            len(np.unique(self.seeds[np.frombuffer(own.runs, dtype=bool)])),
            test.p,
            Interval(low, high),
            gap.value if gap else None,
            gap.interval() if gap else UNDEFINED,
            "; ".join(dict.fromkeys(filter(None, [test.reason, why]))) or None,
        )

    def _gap(self, signal: Signal, both: list[Request]) -> tuple[TTest | None, str | None]:
        if not both:
            if signal.name == self.reference:
                return None, "no gap: it is the reference"
            return None, f"no gap: reference {self.reference} is not in these records"
        own, other = (self.samples[request] for request in both)
        # |rho| with the sign that it has over all runs, so that it may cross 0 without one of them.
        gaps = np.sign(own[0]) * own - np.sign(other[0]) * other
        if not np.isfinite(gaps[0]):
            return None, "no gap: signal or reference does not vary over the runs that have both"
        test = self._test(both[0].runs, gaps)
        return test, test.reason

    def _test(self, runs: bytes, samples: Floats) -> TTest:
        used = np.frombuffer(runs, dtype=bool)
        groups, seeds = self.groups[used], self.seeds[used]
        least = min(len(np.unique(seeds[groups == group])) for group in np.unique(groups))
        return jackknife(samples, least, scale=1.0)

    def _mask(self, *names: str) -> bytes:
        return bytes(np.all([np.isfinite(self.values[name]) for name in names], axis=0))

    def _requests(self, signal: Signal, outcome: str) -> list[Request]:
        """The correlation itself; then signal and reference over the runs they share."""
        x, other = signal.column, self.columns.get((self.reference, signal.when))
        requests = [Request(x, outcome, self._mask(x, outcome))]
        if other is not None and other not in (x, outcome):
            shared = self._mask(x, outcome, other)
            requests += [Request(x, outcome, shared), Request(other, outcome, shared)]
        return requests


def correlations_without_seeds(
    values: Mapping[str, Floats], seeds: NDArray[np.intp], requests: Iterable[Request]
) -> dict[Request, Floats]:
    """Spearman's rho of every request over all its runs, then without those of each seed.

    Args:
        values: column -> shape (n,).
        seeds: of every run, shape (n,).
        requests: what to correlate, over which runs.

    Returns:
        request -> shape (n_draws,) for `jackknife`; NaN where undefined.
    """
    by_runs: dict[bytes, dict[str, list[Request]]] = defaultdict(lambda: defaultdict(list))
    for request in sorted(requests):
        by_runs[request.runs][request.x].append(request)
    out: dict[Request, Floats] = {}
    for runs, by_signal in by_runs.items():
        used = np.frombuffer(runs, dtype=bool)
        codes = np.unique(seeds[used], return_inverse=True)[1]
        weights = delete_one(codes.max(initial=-1) + 1)[codes]
        outcomes = {}
        for name in {request.y for group in by_signal.values() for request in group}:
            ranks = centred_ranks(values[name][used], weights)
            outcomes[name] = (weights * ranks, sum_of_squares(ranks, weights))
        # Each outcome and each signal is ranked once, whatever the number of their pairs.
        for name, group in by_signal.items():
            ranks = centred_ranks(values[name][used], weights)
            squares = sum_of_squares(ranks, weights)
            for request in group:
                weighted, other = outcomes[request.y]
                products = np.einsum("ib,ib->b", ranks, weighted)
                out[request] = correlate_centred(products, squares, other)
    return out
