"""Each matched method's means over seeds along its rates, with all seeds and without each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.statistics.columns import VAL_ACCURACY, column, parts
from clipdrift.analysis.statistics.curves import Curve
from clipdrift.analysis.statistics.intervals import delete_one
from clipdrift.analysis.statistics.ranks import Floats

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


def tensor(
    runs: pd.DataFrame, rates: Sequence[float], seeds: Sequence[int], columns: Sequence[str]
) -> Floats:
    """(n_rates, n_seeds, n_columns); NaN where there is no value; repeated runs averaged.

    rates, seeds: those of the runs, rising.
    """
    values = np.column_stack([column(runs, name) for name in columns])
    places = np.searchsorted(rates, runs["learning_rate"]) * len(seeds)
    places += np.searchsorted(seeds, runs["seed"])
    defined = np.isfinite(values)
    total, count = np.zeros((2, len(rates) * len(seeds), len(columns)))
    np.add.at(total, places, np.where(defined, values, 0.0))
    np.add.at(count, places, defined)
    table = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return table.reshape(len(rates), len(seeds), len(columns))


class MethodCurves:
    """Runs of one target as method -> (learning rate, seed, metric), and the seeds in each draw.

    Draw 0 has all seeds, draw 1 + g all but seed g: what `intervals.jackknife` takes. All methods
    leave out the same seed, because their runs are matched.

    Args:
        runs: matched runs of one backbone and target.
        metrics: columns to follow; what the views hold equal is added where it was measured.
    """

    def __init__(self, runs: pd.DataFrame, metrics: list[str]) -> None:
        held = [view.metric for view in VIEWS if view.metric in runs]
        self.columns = list(dict.fromkeys([*metrics, *held]))
        self.seeds = sorted(set(runs["seed"]))
        self.rates: dict[str, list[float]] = {}
        self.values: dict[str, Floats] = {}
        for (method,), part in parts(runs, "method"):
            self.rates[method] = sorted(set(part["learning_rate"]))
            self.values[method] = tensor(part, self.rates[method], self.seeds, self.columns)
        self.counts = delete_one(len(self.seeds))
        self.run_ids = {
            (str(method), float(rate), int(seed)): str(run_id)
            for method, rate, seed, run_id in runs[
                ["method", "learning_rate", "seed", "run_id"]
            ].itertuples(index=False)
        }

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

    def least_seeds(self, method: str) -> NDArray[np.intp]:
        """Fewest seeds with a value at any of a method's rates that has one, (n_columns,)."""
        defined = np.isfinite(self.values[method]).sum(axis=1)
        return np.asarray(np.where(defined > 0, defined, len(self.seeds)).min(axis=0))

    def abscissa(self, view: View, method: str) -> Floats:
        """What a view holds equal at each rate of a method, (n_rates, n_draws)."""
        x = self.cell_means[method][:, self.columns.index(view.metric)]
        return np.log10(np.where(x > 0, x, np.nan)) if view.in_log10 else x

    def curve(self, view: View, method: str) -> Curve:
        """All columns of a method along what a view holds equal."""
        return Curve(self.abscissa(view, method), self.cell_means[method])
