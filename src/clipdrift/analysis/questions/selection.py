"""Among runs about as accurate as the best, which one would each signal have picked?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from clipdrift.analysis.statistics.columns import (
    DRIFT,
    LOG_LR,
    VAL_ACCURACY,
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
RANDOM = "random"
# Validation accuracies are ratios of counts; this only keeps a run on the edge of a band inside it.
EDGE = 1e-9


def rows(frame: pd.DataFrame, *, bands_pp: tuple[float, ...] = BANDS_PP) -> list[dict[str, Any]]:
    """The pick of every rule within bands of the best validation accuracy, and what it keeps.

    Candidates are the matched runs of a target, of all methods, whose validation accuracy is at
    most the band below the best one, and whose outcome is defined. Rules: each `|drift.*|` picks
    the run that moved least either way; each `drift.*` the lowest value with its sign, so that a
    fall counts as less than no drift (of a similarity the highest, as it falls with drift);
    `log10_learning_rate` the lowest rate; `val_accuracy` the highest accuracy; `random` any. Runs
    that tie are picked with equal chance: `retention_pct` is then their mean, and `run_id` is null.

    Args:
        frame: one row per finished run.
        bands_pp: widths of the bands in percentage points of validation accuracy.

    Returns:
        One dict per backbone, target, band, outcome, rule and moment: `backbone, target, band_pp,
        best_val_accuracy, outcome, signal, when, n_candidates, n_tied, run_id, method, lr, seed,
        val_accuracy, retention_pct, oracle_retention_pct, random_retention_pct, regret_pp,
        reason`. `oracle_retention_pct` is the highest among the candidates, regret the oracle less
        the pick, in percentage points, 0 or more.

    >>> runs = pd.DataFrame({
    ...     "run_id": ["a", "b"], "backbone": "m", "target": "t", "method": "f", "seed": 1,
    ...     "learning_rate": [1e-5, 1e-4], "val_accuracy": [0.90, 0.905],
    ...     "drift.gini_pct": [-1.0, 3.0], "transfer.c.retention_pct": [95.0, 70.0]})
    >>> [(r["signal"], r["run_id"], r["regret_pp"]) for r in rows(runs, bands_pp=(1.0,))]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('drift.gini_pct', 'a', 0.0), ('log10_learning_rate', 'a', 0.0), ('random', None, 12.5),
     ('val_accuracy', 'b', 25.0), ('|drift.gini_pct|', 'a', 0.0)]
    """
    out = []
    for (backbone, target), runs in parts(matched_runs(frame), "backbone", "target"):
        key = {"backbone": backbone, "target": target}
        if VAL_ACCURACY not in runs:
            runs[VAL_ACCURACY] = np.nan
        for band in bands_pp:
            for outcome in outcome_columns(runs):
                out += [{**key, **row} for row in _band(runs, band, outcome)]
    return out


def _band(runs: pd.DataFrame, band: float, outcome: str) -> Iterator[dict[str, Any]]:
    accuracy, retention = column(runs, VAL_ACCURACY), column(runs, outcome)
    known = np.isfinite(accuracy)
    best = float(accuracy[known].max()) if known.any() else None
    head = {"band_pp": band, "best_val_accuracy": best, "outcome": outcome}
    if best is None:
        empty = _unpicked(0, "no validation accuracy in these records")
        yield {**head, "signal": None, "when": None, **empty}
        return
    near = (accuracy >= best - band / 100 - EDGE) & np.isfinite(retention)
    candidates = runs[near].reset_index(drop=True)
    for signal, when, cost in _rules(candidates):
        yield {**head, "signal": signal, "when": when, **_pick(candidates, outcome, cost)}


def _rules(candidates: pd.DataFrame) -> list[tuple[str, str, Floats]]:
    """Name, moment and what each rule minimises, shape (n_candidates,); NaN is never picked."""
    rules = [(RANDOM, "final", np.zeros(len(candidates)))]
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


def _pick(candidates: pd.DataFrame, outcome: str, cost: Floats) -> dict[str, Any]:
    n = len(candidates)
    if not n:
        return _unpicked(0, "no candidate with a defined outcome")
    retention = column(candidates, outcome)
    oracle = float(retention.max())
    field = {"oracle_retention_pct": oracle, "random_retention_pct": float(retention.mean())}
    if not np.isfinite(cost).any():
        return {**_unpicked(n, "signal undefined on every candidate"), **field}
    tied = np.flatnonzero(cost == np.nanmin(cost))
    kept = float(retention[tied].mean())
    reason = f"{len(tied)} runs tie: their mean" if len(tied) > 1 else None
    row = {**_unpicked(n, reason), **field, "n_tied": len(tied)}
    row |= {"retention_pct": kept, "regret_pp": oracle - kept}
    if len(tied) == 1:
        run = candidates.iloc[int(tied[0])]
        row |= {
            "run_id": str(run["run_id"]),
            "method": str(run["method"]),
            "lr": float(run["learning_rate"]),
            "seed": int(run["seed"]),
            "val_accuracy": float(run[VAL_ACCURACY]),
        }
    return row


def _unpicked(n_candidates: int, reason: str | None) -> dict[str, Any]:
    """A row of nulls, to be filled by what is known."""
    nulls: dict[str, Any] = dict.fromkeys(
        [
            "run_id",
            "method",
            "lr",
            "seed",
            "val_accuracy",
            "retention_pct",
            "oracle_retention_pct",
            "random_retention_pct",
            "regret_pp",
        ]
    )
    return {"n_candidates": n_candidates, "n_tied": 0, **nulls, "reason": reason}


__all__ = ["BANDS_PP", "RANDOM", "rows"]
