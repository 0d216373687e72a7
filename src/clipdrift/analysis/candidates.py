"""What a user can choose between: every method x learning rate x alpha of a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.cells import CellKey, Positions, cells
from clipdrift.analysis.extras import interpolated
from clipdrift.analysis.intervals import cluster_resamples
from clipdrift.analysis.signals import Floats, column

ADAPTED = 1.0


class Candidate(NamedTuple):
    """A cell at one alpha: 1 the weights as adapted, below it mixed with the untouched ones.

    Of the runs in which everything asked for is defined, in order of their seeds:
    `chosen_by` (n,) the accuracy that the choice reads, `test` (n,), `kept` (n, n_transfers)
    retention in percent. `n_runs` counts all runs of the cell.
    """

    cell: CellKey
    alpha: float
    runs: Positions
    seeds: tuple[int, ...]
    chosen_by: Floats
    test: Floats
    kept: Floats
    n_runs: int

    @property
    def name(self) -> str:
        alpha = "" if self.alpha == ADAPTED else f" at alpha {self.alpha:g}"
        return f"{self.cell.method} {self.cell.lr:g}{alpha}"


class Field(NamedTuple):
    """The candidates of one target, and those that cannot be judged.

    leak: whether the test part had a say, in this choice or in which epoch a run kept.
    """

    backbone: str
    target: str
    transfers: Sequence[str]
    selected_on: str
    leak: bool
    candidates: list[Candidate]
    unjudged: list[str]


def fields(runs: pd.DataFrame, transfers: Sequence[str]) -> Iterator[Field]:
    """The field of every backbone and target.

    The choice reads validation accuracy. Only where no run of a target has one, test accuracy
    stands in: that is selection on the test part, and `selected_on` says so.

    Args:
        runs: in order, one row per finished run.
        transfers: datasets on which retention counts.
    """
    grid = cells(runs)
    alphas = _alphas(runs)
    for place in dict.fromkeys(key[:2] for key in grid):
        own = {key: at for key, at in grid.items() if key[:2] == place}
        every = np.concatenate(list(own.values()))
        validated = bool(np.isfinite(_read(runs, "val_accuracy")[every]).any())
        selected_on = "val_accuracy" if validated else "test_accuracy"
        found, unjudged = [], []
        for key, at in own.items():
            for alpha in alphas:
                one = _candidate(runs, key, at, alpha, selected_on, transfers)
                if len(one.runs):
                    found.append(one)
                elif alpha == ADAPTED:
                    unjudged.append(one.name)
        leak = not validated or bool(runs["leak"].to_numpy(dtype=bool)[every].any())
        yield Field(*place, transfers, selected_on, leak, found, unjudged)


def _alphas(runs: pd.DataFrame) -> list[float]:
    """The adapted weights first, then what was read of interpolated ones, by falling alpha."""
    found = (interpolated(name) for name in map(str, runs.columns))
    between = {item.alpha for item in found if item is not None} - {ADAPTED}
    return [ADAPTED, *sorted(between, reverse=True)]


def _candidate(
    runs: pd.DataFrame,
    key: CellKey,
    at: Positions,
    alpha: float,
    selected_on: str,
    transfers: Sequence[str],
) -> Candidate:
    prefix = "" if alpha == ADAPTED else f"extra.interpolation.{alpha:g}."
    chosen_by = _read(runs, prefix + selected_on)
    test = _read(runs, f"{prefix}test_accuracy")
    kept = np.column_stack(
        [_read(runs, f"{prefix}transfer.{name}.retention_pct") for name in transfers]
    )
    whole = at[np.isfinite(chosen_by[at]) & np.isfinite(kept[at]).all(axis=1)]
    seeds = tuple(int(seed) for seed in runs["seed"].to_numpy()[whole])
    return Candidate(key, alpha, whole, seeds, chosen_by[whole], test[whole], kept[whole], len(at))


def _read(runs: pd.DataFrame, name: str) -> Floats:
    return column(runs, name) if name in runs else np.full(len(runs), np.nan)


class Means(NamedTuple):
    """Means over seeds, once per draw of seeds: accuracy and retention, (n_candidates, n_draws).

    Retention is that of the transfer dataset on which a candidate keeps least in the draw.
    """

    accuracy: Floats
    kept: Floats


def observed(candidates: Sequence[Candidate]) -> Means:
    """The means over the seeds as they are, n_draws = 1."""
    return _means(candidates, {c.seeds: np.ones((len(c.seeds), 1)) for c in candidates})


def resampled(candidates: Sequence[Candidate], n_resamples: int, seed: int) -> Means:
    """The means over seeds drawn again with replacement.

    Candidates with the same seeds are drawn together, because their runs are matched; others have
    draws of their own, as many as they have seeds.
    """
    sets = sorted({c.seeds for c in candidates})
    weights = {
        seeds: cluster_resamples(seeds, n_resamples, seed + i).counts
        for i, seeds in enumerate(sets)
    }
    return _means(candidates, weights)


def _means(
    candidates: Sequence[Candidate], weights: Mapping[tuple[int, ...], NDArray[np.float64]]
) -> Means:
    accuracy, kept = [], []
    for one in candidates:
        drawn = weights[one.seeds] / len(one.seeds)
        accuracy.append(one.chosen_by @ drawn)
        kept.append((one.kept.T @ drawn).min(axis=0))
    return Means(np.array(accuracy), np.array(kept))


__all__ = ["ADAPTED", "Candidate", "Field", "Means", "fields", "observed", "resampled"]
