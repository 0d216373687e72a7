"""Which runs are matched: equal but for the method, under conditions whose fingerprints agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.frame import FINGERPRINT
from clipdrift.analysis.statistics.columns import matched_runs, parts

MAX_METHODS = 6
REFERENCE = "full_ft"


class Dropped(NamedTuple):
    """A place of the grid at which no pair could be made, and why."""

    learning_rate: float
    why: str


class MatchedRuns(NamedTuple):
    """All pairs of two methods on one target; positions refer to `runs`."""

    backbone: str
    target: str
    method_a: str
    method_b: str
    runs: pd.DataFrame
    learning_rate: NDArray[np.float64]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    dropped: list[Dropped]

    @property
    def names(self) -> dict[str, Any]:
        """Backbone, target and methods as fields of a row."""
        names = ("backbone", "target", "method_a", "method_b")
        return {name: getattr(self, name) for name in names}

    def rates(self) -> list[float]:
        """Learning rates at which at least one of the methods was run, ascending."""
        return sorted(
            {*self.learning_rate.tolist(), *(drop.learning_rate for drop in self.dropped)}
        )


def compared_with(methods: Collection[str], asked: Collection[str] | None) -> list[str] | None:
    """Methods of which every compared pair holds one; None for all pairs.

    Pairs grow with the square of the methods, and with them tables that nobody reads and the family
    that Holm's correction is over. So more than `MAX_METHODS` are compared with one of them.

    Args:
        methods: the matched methods of a study.
        asked: what the study says in `compare_with`.

    >>> compared_with(["full_ft", "lora"], None)
    >>> compared_with([f"rank-{r}" for r in range(9)], None)
    ['rank-0']
    """
    if asked is not None or len(methods) <= MAX_METHODS:
        return None if asked is None else sorted(asked)
    return [REFERENCE if REFERENCE in methods else min(methods)]


def method_pairs(
    methods: Collection[str], compare_with: Collection[str] | None
) -> list[tuple[str, str]]:
    """Pairs in alphabetical order, those with one of `compare_with` where it is not None.

    >>> method_pairs(["c", "a", "b"], ["b"])
    [('a', 'b'), ('b', 'c')]
    """
    return [
        (a, b)
        for a, b in combinations(sorted(methods), 2)
        if compare_with is None or a in compare_with or b in compare_with
    ]


def matched_pairs(
    frame: pd.DataFrame,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
) -> Iterator[MatchedRuns]:
    """Every two matched methods of a backbone and target, with their pairs.

    A pair is two runs at the same learning rate and seed. `method_a` comes first in the alphabet,
    so for Full FT and LoRA differences are `full_ft` - `lora`. A pair is dropped where one run is
    missing, or where a fingerprint that both carry differs.

    Args:
        frame: one row per finished run.
        varied: factors that the study varies on purpose; their fingerprints may differ.
        compare_with: as for `method_pairs`.
    """
    runs = matched_runs(frame)
    for (backbone, target), part in parts(runs, "backbone", "target"):
        places = {
            method: dict(
                zip(
                    zip(own["learning_rate"].tolist(), own["seed"].tolist(), strict=True),
                    own.index.tolist(),
                    strict=True,
                )
            )
            for method, own in part.groupby("method", sort=True)
        }
        marks = _Fingerprints(part, varied)
        for a, b in method_pairs([str(name) for name in places], compare_with):
            first, second, rates, dropped = [], [], [], []
            for lr, seed in sorted({*places[a], *places[b]}):
                i, j = places[a].get((lr, seed)), places[b].get((lr, seed))
                if i is None or j is None:
                    dropped.append(Dropped(lr, f"no matched run of {a if i is None else b}"))
                elif differing := marks.differing(i, j):
                    dropped.append(Dropped(lr, f"different {', '.join(differing)}"))
                else:
                    first.append(i)
                    second.append(j)
                    rates.append(lr)
            yield MatchedRuns(
                backbone,
                target,
                a,
                b,
                part,
                np.array(rates, dtype=np.float64),
                np.array(first, dtype=np.intp),
                np.array(second, dtype=np.intp),
                dropped,
            )


def without_conflicts(frame: pd.DataFrame, varied: Collection[str] = ()) -> pd.DataFrame:
    """The frame without matched runs that differ from a partner in a fingerprint they share.

    For questions that fit a line through each method's runs instead of pairing them. A run without
    a partner stays.

    Args:
        frame: one row per finished run.
        varied: factors that the study varies on purpose; their fingerprints may differ.
    """
    key = ["backbone", "target", "learning_rate", "seed"]
    conflicts = set()
    for place, group in matched_runs(frame).groupby(key, sort=False):
        runs = group.reset_index(drop=True)
        marks = _Fingerprints(runs, varied)
        if any(marks.differing(i, j) for i, j in combinations(range(len(runs)), 2)):
            conflicts.add(place)
    places = zip(*(frame[name].tolist() for name in key), strict=True)
    wrong = np.array([place in conflicts for place in places], dtype=bool)
    matched = (frame["role"] == "matched").to_numpy(dtype=bool)
    return frame[~(wrong & matched)]


class _Fingerprints:
    """Fingerprints of the runs of a target, for comparison two at a time."""

    def __init__(self, runs: pd.DataFrame, varied: Collection[str]) -> None:
        self.factors = [
            name.removeprefix(FINGERPRINT)
            for name in map(str, runs.columns)
            if name.startswith(FINGERPRINT) and name.removeprefix(FINGERPRINT) not in varied
        ]
        self.marks = [
            [None if pd.isna(mark) else mark for mark in runs[FINGERPRINT + factor]]
            for factor in self.factors
        ]

    def differing(self, i: int, j: int) -> list[str]:
        """Factors whose fingerprint both runs carry and that are not equal."""
        return [
            factor
            for factor, marks in zip(self.factors, self.marks, strict=True)
            if marks[i] is not None and marks[j] is not None and marks[i] != marks[j]
        ]
