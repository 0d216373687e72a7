"""What can be chosen from in a study that was raced: cells that were measured more than once.

A race leaves many cells behind after one seed. Among so many the best by its one seed is flattered,
and could pass for better than the answer.
"""

from __future__ import annotations

import pandas as pd

from clipdrift.records.race_log import RaceLog

CELL = ["target", "method", "learning_rate"]
ENOUGH = 2
"""Finished runs that make a cell one to choose from; fewer where the race's answer has fewer."""


def contenders(runs: pd.DataFrame, race: RaceLog | None) -> pd.DataFrame:
    """The runs of cells that have `ENOUGH` finished runs, or as many as the answer on their target.

    Args:
        runs: one row per finished run.
        race: None for a study that was not raced: all of them.
    """
    if race is None or runs.empty:
        return runs
    n = runs.groupby(CELL)["seed"].transform("nunique")
    answers = {
        target: n[
            (runs["target"] == target)
            & (runs["method"] == one.method)
            & (runs["learning_rate"] == one.learning_rate)
        ].max()
        for target, one in race.answers.items()
    }
    return runs[n >= runs["target"].map(answers).fillna(0).clip(upper=ENOUGH)]
