"""Among runs about as accurate as the best, which one would each signal have picked?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.rows import OfTarget, Outcome, Reason, Said, key
from clipdrift.analysis.statistics.columns import (
    DRIFT,
    LOG_LR,
    VAL_ACCURACY,
    When,
    column,
    is_size,
    matched_runs,
    outcome_columns,
    parts,
    resting_value,
    signal_columns,
)
from clipdrift.analysis.statistics.ranks import Floats

BANDS_PP = (1.0, 2.0, 3.0, 5.0)
KEPT = ["run_id", "method", "learning_rate", "seed", VAL_ACCURACY]
RANDOM = "random"
# Validation accuracies are ratios of counts; this only keeps a run on the edge of a band inside it.
EDGE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Selection(OfTarget):
    """Within a band of the best validation accuracy, which run each signal picks.

    band_pp: width of the band, percentage points of validation accuracy
    signal: |drift.x| picks the run that moved least, drift.x the lowest value (the highest of a
        similarity)
    when: when the signal is read
    n_candidates: runs within the band
    run_id: the run that is picked; null where runs tie
    method: its method
    learning_rate: its learning rate
    val_accuracy: of the run that is picked
    retention_pct: what it keeps; the mean of runs that tie
    oracle_retention_pct: the highest among the candidates
    random_retention_pct: the mean of the candidates
    regret_pp: the oracle less the pick, 0 or more
    """

    table: ClassVar = "selection"

    band_pp: float
    outcome: Outcome
    signal: Annotated[str | None, key("Chosen by", "metric")] = None
    when: Annotated[When | None, key("Read at", "moment")] = None
    n_candidates: Annotated[int, Said("count", "Candidates")] = 0
    run_id: str | None = None
    method: Annotated[str | None, Said("name", "Picks")] = None
    learning_rate: Annotated[float | None, Said("rate", "at LR")] = None
    seed: int | None = None
    val_accuracy: float | None = None
    retention_pct: Annotated[float | None, Said("one", "Retention (%)")] = None
    oracle_retention_pct: Annotated[float | None, Said("one", "Best possible (%)")] = None
    random_retention_pct: Annotated[float | None, Said("one", "At random (%)")] = None
    regret_pp: Annotated[float | None, Said("one", "Regret (pp)")] = None
    reason: Reason = None


def rows(frame: pd.DataFrame, *, bands_pp: tuple[float, ...] = BANDS_PP) -> list[Selection]:
    """The pick of every rule within bands of the best validation accuracy, and what it keeps.

    Candidates are the matched runs of a target, of all methods, whose validation accuracy is at
    most the band below the best one, and whose outcome is defined. Rules: each `|drift.*|` picks
    the run that moved least either way; each `drift.*` the lowest value with its sign, so that a
    fall counts as less than no drift (of a similarity the highest, as it falls with drift);
    `log10_learning_rate` the lowest rate; `val_accuracy` the highest accuracy; `random` any. Runs
    that tie are picked with equal chance: `retention_pct` is then their mean, and `run_id` is null.

    Args:
        bands_pp: widths of the bands in percentage points of validation accuracy.

    Returns:
        One row per backbone, target, band, outcome, rule and moment.

    >>> runs = pd.DataFrame({
    ...     "run_id": ["a", "b"], "backbone": "m", "target": "t", "method": "f", "seed": 1,
    ...     "learning_rate": [1e-5, 1e-4], "val_accuracy": [0.90, 0.905],
    ...     "drift.gini_pct": [-1.0, 3.0], "transfer.c.retention_pct": [95.0, 70.0]})
    >>> [(r.signal, r.run_id, r.regret_pp) for r in rows(runs, bands_pp=(1.0,))]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('drift.gini_pct', 'a', 0.0), ('log10_learning_rate', 'a', 0.0), ('random', None, 12.5),
     ('val_accuracy', 'b', 25.0), ('|drift.gini_pct|', 'a', 0.0)]
    """
    out: list[Selection] = []
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        if VAL_ACCURACY not in runs:
            runs[VAL_ACCURACY] = np.nan
        for band in bands_pp:
            for outcome in outcome_columns(runs):
                head = Selection(backbone=backbone, target=target, band_pp=band, outcome=outcome)
                out += _band(head, runs)
    return out


def _band(head: Selection, runs: pd.DataFrame) -> Iterator[Selection]:
    accuracy, retention = column(runs, VAL_ACCURACY), column(runs, head.outcome)
    known = np.isfinite(accuracy)
    if not known.any():
        yield replace(head, reason="no validation accuracy in these records")
        return
    best = float(accuracy[known].max())
    near = (accuracy >= best - head.band_pp / 100 - EDGE) & np.isfinite(retention)
    candidates = runs[near].reset_index(drop=True)
    for signal, when, cost in _rules(candidates):
        row = replace(head, signal=signal, when=when, n_candidates=len(candidates))
        yield _pick(row, candidates, cost)


def _rules(candidates: pd.DataFrame) -> list[tuple[str, When, Floats]]:
    """Name, moment and what each rule minimises, shape (n_candidates,); NaN is never picked."""
    rules: list[tuple[str, When, Floats]] = [(RANDOM, "final", np.zeros(len(candidates)))]
    for signal in signal_columns(candidates):
        values = column(candidates, signal.column)
        if is_size(signal.name):
            cost = values
        elif signal.name.startswith(DRIFT):
            cost = -values if resting_value(signal.name) else values
        elif signal.name == LOG_LR and signal.when == "final":
            cost = values
        elif signal.name == VAL_ACCURACY:
            cost = -values
        else:
            continue
        rules.append((signal.name, signal.when, cost))
    return sorted(rules, key=lambda rule: (rule[1] == "epoch1", rule[0]))


def _pick(row: Selection, candidates: pd.DataFrame, cost: Floats) -> Selection:
    if not len(candidates):
        return replace(row, reason="no candidate with a defined outcome")
    retention = column(candidates, row.outcome)
    oracle = float(retention.max())
    row = replace(row, oracle_retention_pct=oracle, random_retention_pct=float(retention.mean()))
    if not np.isfinite(cost).any():
        return replace(row, reason="signal undefined on every candidate")
    tied = np.flatnonzero(cost == np.nanmin(cost))
    kept = float(retention[tied].mean())
    row = replace(row, retention_pct=kept, regret_pp=oracle - kept)
    if len(tied) > 1:
        return replace(row, reason=f"{len(tied)} runs tie: their mean")
    names = ["run_id", "method", "learning_rate", "seed", VAL_ACCURACY]
    run_id, method, rate, seed, accuracy = (candidates[name].iloc[tied[0]] for name in names)
    return replace(
        row,
        run_id=str(run_id),
        method=str(method),
        learning_rate=float(rate),
        seed=int(seed),
        val_accuracy=float(accuracy),
    )
