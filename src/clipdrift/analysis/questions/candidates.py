"""What a user can choose between: every method x learning rate x alpha of a target.

And what was made of a cell after training: its soup, or its runs with their movement scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.questions.after_training import grouped
from clipdrift.analysis.statistics.cell_means import CellKey, Positions, cells
from clipdrift.analysis.statistics.columns import Floats, column
from clipdrift.analysis.statistics.extras import interpolations
from clipdrift.analysis.usable import numbers
from clipdrift.records.after import AfterReading

ADAPTED = 1.0
AS_TRAINED, INTERPOLATED = "adapted", "interpolated"
SOUP = -1
Accuracy = Literal["val_accuracy", "test_accuracy"]


class Candidate(NamedTuple):
    """A cell at one alpha: 1 the weights as adapted, below it mixed with the untouched ones.

    `weights` says what they are: "adapted", "interpolated", or those of an `AfterReading`. A soup
    is one model of all seeds: it stands under `SOUP` in place of a seed.

    Of the runs in which everything asked for is defined, in order of their seeds:
    `chosen_by` (n,) the accuracy that the choice reads, `test` (n,), `kept` (n, n_transfers)
    retention in percent. `n_runs` counts all runs of the cell. `ids` (n,) and `names` (1 +
    n_transfers,) find the images behind accuracy and retention in `Images`.
    """

    cell: CellKey
    alpha: float
    runs: Positions
    seeds: tuple[int, ...]
    chosen_by: Floats
    test: Floats
    kept: Floats
    n_runs: int
    weights: str
    ids: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return name_of(self.cell.method, self.cell.learning_rate, self.weights, self.alpha)


def name_of(method: str, lr: float, weights: str, alpha: float) -> str:
    """For people, for example `lora 0.003 at alpha 0.5`, or `lora 0.003, soup`."""
    if weights == INTERPOLATED:
        return f"{method} {lr:g} at alpha {alpha:g}"
    made = "" if weights == AS_TRAINED else f", {weights}"
    return f"{method} {lr:g}{made}"


class Field(NamedTuple):
    """The candidates of one target, and those that cannot be judged.

    leak: whether the test part had a say, in this choice or in which epoch a run kept.
    at_chance: transfer dataset on which retention is undefined -> why.
    """

    backbone: str
    target: str
    transfers: Sequence[str]
    selected_on: Accuracy
    leak: bool
    candidates: list[Candidate]
    unjudged: list[str]
    at_chance: Mapping[str, str]


def fields(
    runs: pd.DataFrame,
    transfers: Sequence[str],
    made: Sequence[AfterReading] = (),
    at_chance: Mapping[tuple[str, str], str] | None = None,
) -> Iterator[Field]:
    """The field of every backbone and target.

    The choice reads validation accuracy. Only where no run of a target has one, test accuracy
    stands in: that is selection on the test part, and `selected_on` says so.

    Args:
        runs: in order, one row per finished run.
        transfers: datasets on which retention counts, but for those where it is undefined.
        made: readings of weights made after training.
        at_chance: as `frame.at_chance` gives it.
    """
    grid = cells(runs)
    later = list(grouped(grid, made))
    alphas = _alphas(runs)
    for place in dict.fromkeys(key[:2] for key in grid):
        own = {key: at for key, at in grid.items() if key[:2] == place}
        unknown = {n: why for (b, n), why in (at_chance or {}).items() if b == place[0]}
        judged = [name for name in transfers if name not in unknown]
        every = np.concatenate(list(own.values()))
        validated = bool(np.isfinite(_read(runs, "val_accuracy")[every]).any())
        selected_on: Accuracy = "val_accuracy" if validated else "test_accuracy"
        found, unjudged = [], []
        for key, at in own.items() if judged else ():
            for alpha in alphas:
                one = _candidate(runs, key, at, alpha, selected_on, judged)
                if len(one.runs):
                    found.append(one)
                elif alpha == ADAPTED:
                    unjudged.append(one.name)
        found += [
            one
            for key, at, group in later
            if judged
            and key in own
            and (one := _made(runs, key, at, group, selected_on, judged)).seeds
        ]
        leak = not validated or bool(runs["leak"].to_numpy(dtype=bool)[every].any())
        yield Field(*place, judged, selected_on, leak, found, unjudged, unknown)


def _alphas(runs: pd.DataFrame) -> list[float]:
    """The adapted weights first, then what was read of interpolated ones, by falling alpha."""
    between = {item.alpha for item in interpolations(map(str, runs.columns))} - {ADAPTED}
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
    names = (prefix + selected_on, *(f"{prefix}{_kept_on(name)}" for name in transfers))
    kept = np.column_stack([_read(runs, name) for name in names[1:]])
    whole = at[np.isfinite(chosen_by[at]) & np.isfinite(kept[at]).all(axis=1)]
    seeds = tuple(int(seed) for seed in runs["seed"].to_numpy()[whole])
    values = (chosen_by[whole], test[whole], kept[whole])
    weights = AS_TRAINED if alpha == ADAPTED else INTERPOLATED
    ids = tuple(runs["run_id"].iloc[whole])
    return Candidate(key, alpha, whole, seeds, *values, len(at), weights, ids, names)


def _kept_on(transfer: str) -> str:
    return f"transfer.{transfer}.retention_pct"


def _made(
    runs: pd.DataFrame,
    key: CellKey,
    at: Positions,
    group: Sequence[AfterReading],
    selected_on: str,
    transfers: Sequence[str],
) -> Candidate:
    """A soup, or scaled runs in order of their seeds."""
    read = [numbers(one.result) for one in group]
    names = (selected_on, *map(_kept_on, transfers))
    table = np.array(
        [[v.get(name, np.nan) for name in (*names, "test_accuracy")] for v in read], dtype=float
    )
    whole = np.isfinite(table[:, :-1]).all(axis=1)
    table = table[whole]
    group = [one for one, there in zip(group, whole, strict=True) if there] or group[:1]
    soup = group[0].kind == "soup"
    seeds = tuple(SOUP if soup else one.seeds[0] for one in group) if whole.any() else ()
    alpha = group[0].alpha if soup and group[0].alpha is not None else ADAPTED
    values = (table[:, 0], table[:, -1], table[:, 1:-1])
    of = {run_id for one in group for run_id in one.runs}
    used = at[[run_id in of for run_id in runs["run_id"].iloc[at]]]
    ids = tuple(one.identity for one in group)
    return Candidate(key, alpha, used, seeds, *values, len(at), group[0].weights, ids, names)


def _read(runs: pd.DataFrame, name: str) -> Floats:
    return column(runs, name) if name in runs else np.full(len(runs), np.nan)
