"""Picks of every rule on a study small enough to work by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import made_up_runs, shuffled

from clipdrift.analysis.questions import selection

OUTCOME = "transfer.c.retention_pct"


def by_hand() -> pd.DataFrame:
    """Five runs of one target; best validation accuracy 0.95."""
    return pd.DataFrame(
        {
            "run_id": ["a", "b", "c", "d", "e"],
            "backbone": "m",
            "target": "t",
            "method": ["full_ft", "full_ft", "lora", "lora", "lora"],
            "role": "matched",
            "learning_rate": [1e-5, 1e-4, 1e-5, 1e-4, 1e-3],
            "seed": [7, 7, 7, 7, 7],
            "val_accuracy": [0.94, 0.95, 0.90, 0.93, 0.925],
            OUTCOME: [70.0, 40.0, 99.0, 80.0, 60.0],
            "drift.cka_mean": [0.80, 0.60, 0.99, 0.70, 0.75],
            "drift.gini_pct": [-4.0, 1.0, 0.1, 2.0, -0.5],
            "epoch1.drift.gini_pct": [0.3, 0.4, 0.0, 0.2, 0.1],
        }
    )


def pick(rows: Sequence[Any], band: float, signal: str, when: str = "final") -> Any:
    found = [r for r in rows if (r.band_pp, r.signal, r.when) == (band, signal, when)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("band", "signal", "when", "run", "retention", "regret"),
    [
        (1.0, "drift.cka_mean", "final", "a", 70.0, 0.0),  # a, b: CKA is 1 at rest
        (1.0, "|drift.gini_pct|", "final", "b", 40.0, 30.0),
        (1.0, "drift.gini_pct", "final", "a", 70.0, 0.0),  # -4 is lower than 1
        (2.0, "drift.cka_mean", "final", "a", 70.0, 10.0),  # a, b, d
        (2.0, "|drift.cka_mean|", "final", "a", 70.0, 10.0),
        (2.0, "|drift.gini_pct|", "epoch1", "d", 80.0, 0.0),
        (3.0, "|drift.gini_pct|", "final", "e", 60.0, 20.0),  # a, b, d, e
        (3.0, "val_accuracy", "final", "b", 40.0, 40.0),
        (3.0, "log10_learning_rate", "final", "a", 70.0, 10.0),
        (5.0, "|drift.gini_pct|", "final", "c", 99.0, 0.0),  # all
    ],
)
def test_picks_worked_by_hand(
    band: float, signal: str, when: str, run: str, retention: float, regret: float
) -> None:
    row = pick(selection.rows(by_hand()), band, signal, when)
    assert (row.run_id, row.retention_pct, row.regret_pp) == (run, retention, regret)
    source = by_hand().set_index("run_id").loc[run]
    assert (row.method, row.learning_rate) == (source["method"], source["learning_rate"])
    assert row.reason is None


def test_random_is_the_mean_of_the_candidates() -> None:
    row = pick(selection.rows(by_hand()), 2.0, "random")
    assert row.n_candidates == 3
    assert row.retention_pct == row.random_retention_pct == pytest.approx(190 / 3)
    assert row.regret_pp == pytest.approx(80 - 190 / 3)
    assert row.run_id is None


def test_ties_are_picked_with_equal_chance() -> None:
    row = pick(selection.rows(by_hand()), 5.0, "log10_learning_rate")  # a and c share 1e-5
    assert (row.run_id, row.retention_pct) == (None, (70 + 99) / 2)
    assert row.reason == "2 runs tie: their mean"


def test_a_run_on_the_edge_of_the_band_is_inside() -> None:
    frame = by_hand()
    frame["val_accuracy"] = [0.7, 0.7 + 0.1, 0.8 - 0.01, 0.1, 0.1]
    assert pick(selection.rows(frame), 1.0, "random").n_candidates == 2


def test_candidates_without_an_outcome_do_not_count() -> None:
    frame = by_hand()
    frame.loc[frame["run_id"] == "d", OUTCOME] = np.nan
    row = pick(selection.rows(frame), 2.0, "random")
    assert (row.n_candidates, row.retention_pct) == (2, 55.0)


def test_undefined_signals_pick_nothing() -> None:
    frame = by_hand().assign(**{"drift.gini_pct": np.nan})
    row = pick(selection.rows(frame), 2.0, "drift.gini_pct")
    assert (row.run_id, row.retention_pct, row.regret_pp) == (None, None, None)
    assert row.oracle_retention_pct == 80
    assert row.reason == "signal undefined on every candidate"


def test_without_validation_accuracy_there_are_nulls_with_a_reason() -> None:
    for frame in (
        by_hand().drop(columns="val_accuracy"),
        by_hand().assign(val_accuracy=np.nan),
    ):
        rows = selection.rows(frame)
        assert len(rows) == 4
        assert {row.reason for row in rows} == {"no validation accuracy in these records"}
        assert {row.regret_pp for row in rows} == {None}


def test_without_any_outcome_in_the_band() -> None:
    frame = by_hand()
    frame.loc[frame["val_accuracy"] > 0.91, OUTCOME] = np.nan
    row = pick(selection.rows(frame), 1.0, "drift.cka_mean")
    assert (row.n_candidates, row.oracle_retention_pct) == (0, None)
    assert row.reason == "no candidate with a defined outcome"


def test_regret_is_never_negative_and_the_order_of_rows_changes_nothing() -> None:
    frame = made_up_runs()
    rows = selection.rows(frame)
    assert min(row.regret_pp for row in rows) >= 0
    assert selection.rows(shuffled(frame)) == rows
    candidates = {(r.target, r.band_pp): r.n_candidates for r in rows}
    for (target, band), n in candidates.items():
        accuracy = frame.loc[frame["target"] == target, "val_accuracy"]
        assert n == (accuracy >= accuracy.max() - band / 100).sum()


def test_reference_methods_are_no_candidates() -> None:
    frame = by_hand()
    frame.loc[frame["run_id"] == "b", "role"] = "reference"
    assert pick(selection.rows(frame), 1.0, "val_accuracy").val_accuracy == 0.94
