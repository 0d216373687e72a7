"""Does a metric rise or fall with the learning rate? Rank correlation per target and method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.cells import matrix
from clipdrift.analysis.frame import in_order, metric_columns
from clipdrift.analysis.intervals import (
    UNDEFINED,
    Interval,
    cluster_resamples,
    distinct_draws,
    percentile_cis,
)
from clipdrift.analysis.ranks import (
    Correlation,
    Floats,
    centred_ranks,
    correlate_centred,
    spearman,
    sum_of_squares,
)
from clipdrift.analysis.signals import column, parts

N_RESAMPLES = 2_000
MIN_SEEDS = 2
# Numbers held at a time in a matrix of ranks: 16 MB.
BLOCK = 2_000_000


def rows(
    frame: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, seed: int = 0, level: float = 0.95
) -> list[dict[str, Any]]:
    """Spearman correlation of every metric with log10 learning rate, per target and method.

    The interval is a percentile bootstrap over seeds: a drawn seed brings its runs at every rate,
    because runs of a seed share data order and head init. `p` takes runs as independent.

    Args:
        frame: one row per finished run.
        n_resamples, seed: of the bootstrap.
        level: coverage.

    Returns:
        One dict per backbone, target, method and metric: `backbone, target, role, method, metric,
        n, n_lrs, n_seeds, spearman_rho, p, ci_low, ci_high, n_resamples, seed, reason`.

    Reference: Spearman (1904); Davison & Hinkley (1997), section 3.8.
    """
    runs = in_order(frame)
    out = []
    for key, part in parts(runs, "backbone", "target", "role", "method"):
        head = dict(zip(("backbone", "target", "role", "method"), key, strict=True))
        metrics = metric_columns(part)
        group = _Group(part, metrics, n_resamples, seed, level)
        tail = {"n_resamples": n_resamples, "seed": seed}
        for metric, found in zip(metrics, group.rows(), strict=True):
            reason = found.pop("reason")
            out.append({**head, "metric": metric, **found, **tail, "reason": reason})
    return out


class _Group:
    """The runs of one method on one target."""

    def __init__(
        self, runs: pd.DataFrame, metrics: list[str], n_resamples: int, seed: int, level: float
    ) -> None:
        self.rate = np.log10(column(runs, "learning_rate"))
        self.seeds = runs["seed"].to_numpy()
        self.values = matrix(runs, metrics)
        self.n_resamples, self.seed, self.level = n_resamples, seed, level

    def rows(self) -> Iterator[dict[str, Any]]:
        points = [spearman(self.rate, y, ("learning rate", "metric")) for y in self.values.T]
        intervals = self._intervals([i for i, p in enumerate(points) if p.rho is not None])
        for i, point in enumerate(points):
            yield self._row(i, point, intervals.get(i, UNDEFINED))

    def _row(self, i: int, point: Correlation, interval: Interval) -> dict[str, Any]:
        used = np.isfinite(self.values[:, i])
        n_seeds = len(set(self.seeds[used].tolist()))
        reason = point.reason
        if reason is None and interval.low is None:
            few = n_seeds < MIN_SEEDS
            reason = "one seed: no interval" if few else "undefined in most resamples"
        return {
            "n": point.n,
            "n_lrs": len(set(self.rate[used].tolist())),
            "n_seeds": n_seeds,
            "spearman_rho": point.rho,
            "p": point.p,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "reason": reason,
        }

    def _intervals(self, metrics: list[int]) -> dict[int, Interval]:
        """Bootstrap intervals; metrics defined on the same runs share draws and ranks of rates."""
        by_runs: dict[bytes, list[int]] = defaultdict(list)
        for i in metrics:
            by_runs[np.isfinite(self.values[:, i]).tobytes()].append(i)
        out: dict[int, Interval] = {}
        for mask, group in by_runs.items():
            used = np.frombuffer(mask, dtype=bool)
            if len(set(self.seeds[used].tolist())) < MIN_SEEDS:
                continue
            samples = self._resampled(used, group)
            out.update(zip(group, percentile_cis(samples, self.level), strict=True))
        return out

    def _resampled(self, used: NDArray[np.bool_], metrics: list[int]) -> Floats:
        """rho of each metric in each resample, (n_metrics, n_resamples)."""
        draws = cluster_resamples(self.seeds[used].tolist(), self.n_resamples, self.seed)
        distinct = distinct_draws(draws)
        step = max(1, BLOCK // int(used.sum()))
        blocks = []
        for start in range(0, distinct.counts.shape[1], step):
            weights = distinct.counts[:, start : start + step][draws.codes]
            rates = centred_ranks(self.rate[used], weights)
            squares, weighted = sum_of_squares(rates, weights), weights * rates
            block = []
            for i in metrics:
                ranks = centred_ranks(self.values[used, i], weights)
                products = np.einsum("ib,ib->b", weighted, ranks)
                block.append(correlate_centred(products, squares, sum_of_squares(ranks, weights)))
            blocks.append(np.stack(block))
        return np.concatenate(blocks, axis=1)[:, distinct.inverse]


__all__ = ["N_RESAMPLES", "rows"]
