"""Each matched method's means over seeds along its learning rates, for many draws of the seeds."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.curves import Curve
from clipdrift.analysis.intervals import cluster_resamples, distinct_draws
from clipdrift.analysis.ranks import Floats
from clipdrift.analysis.signals import VAL_ACCURACY, column, parts

WEIGHT_DRIFT = "drift.weight_drift_rel"


class View(NamedTuple):
    """What is held equal between methods, and whether its curve is followed in log10."""

    name: str
    metric: str
    in_log10: bool


VIEWS = (
    View("equal_val_accuracy", VAL_ACCURACY, False),
    View("equal_weight_drift", WEIGHT_DRIFT, True),
)


class MethodCurves:
    """Runs of one target as method -> (learning rate, seed, metric), and the draws of seeds.

    Draw 0 is the sample itself. All methods share the draws, because their runs are matched.

    Args:
        runs: matched runs of one backbone and target.
        metrics: columns to follow; what the views hold equal is added where it was measured.
        n_resamples, seed: of the bootstrap over seeds.
    """

    def __init__(self, runs: pd.DataFrame, metrics: list[str], n_resamples: int, seed: int) -> None:
        held = [view.metric for view in VIEWS if view.metric in runs]
        self.columns = list(dict.fromkeys([*metrics, *held]))
        self.seeds = sorted(set(runs["seed"]))
        self.rates: dict[str, list[float]] = {}
        self.values: dict[str, Floats] = {}
        for (method,), part in parts(runs, "method"):
            self.rates[method] = sorted(set(part["learning_rate"]))
            self.values[method] = self._tensor(part, self.rates[method])
        draws = distinct_draws(cluster_resamples(self.seeds, n_resamples, seed))
        # The sample itself goes first, as every seed once; then the distinct resamples.
        self.counts: Floats = np.column_stack([np.ones(len(self.seeds)), draws.counts])
        self.inverse = draws.inverse + 1
        self.n_resamples, self.seed = n_resamples, seed

    def _tensor(self, runs: pd.DataFrame, rates: list[float]) -> Floats:
        """(n_rates, n_seeds, n_columns); NaN where there is no value; repeated runs averaged."""
        data = pd.DataFrame({name: column(runs, name) for name in self.columns})
        means = data.groupby([runs["learning_rate"], runs["seed"]]).mean()
        grid = pd.MultiIndex.from_product([rates, self.seeds])
        table = means.reindex(grid).to_numpy(dtype=np.float64)
        return table.reshape(len(rates), len(self.seeds), len(self.columns))

    def means(self, values: Floats) -> Floats:
        """Means of every draw over the seeds that have a value.

        (n_rates, n_seeds, n_columns) -> (n_rates, n_columns, n_draws).
        """
        defined = np.isfinite(values)
        total = np.where(defined, values, 0.0).swapaxes(1, 2) @ self.counts
        weight = defined.swapaxes(1, 2).astype(np.float64) @ self.counts
        return np.where(weight > 0, total / np.maximum(weight, 1), np.nan)

    @cached_property
    def cell_means(self) -> dict[str, Floats]:
        """Method -> `means` of all its runs."""
        return {method: self.means(values) for method, values in self.values.items()}

    def curve(self, view: View, method: str) -> Curve:
        """All columns of a method along what a view holds equal."""
        means = self.cell_means[method]
        x = means[:, self.columns.index(view.metric)]
        if view.in_log10:
            x = np.log10(np.where(x > 0, x, np.nan))
        return Curve(x, means)


__all__ = ["VIEWS", "WEIGHT_DRIFT", "MethodCurves", "View"]
