"""Signals ranked within groups, and doses on which methods agree, against planted truths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import made_up_runs, shuffled
from scipy.stats import rankdata, spearmanr

from clipdrift.analysis.questions import dose_axes, signal_ranks

OUTCOME = "transfer.cifar100.retention_pct"
HELD = {
    "method": ["target", "method"],
    "rate": ["target", "learning_rate"],
    "cell": ["target", "method", "learning_rate"],
}


def pick(found: Iterable[Any], **wanted: Any) -> Any:
    rows = [row for row in found if all(getattr(row, k) == v for k, v in wanted.items())]
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("within", HELD)
def test_rho_is_pooled_over_groups_by_hand(within: str) -> None:
    frame = made_up_runs()
    frame.loc[3, "drift.cka_mean"] = np.nan
    wanted = {"outcome": OUTCOME, "when": "final", "within": within, "signal": "|drift.cka_mean|"}
    row = pick(signal_ranks.rows(shuffled(frame)), **wanted)
    products, first, second = 0.0, 0.0, 0.0
    for _, part in frame.dropna(subset=["drift.cka_mean"]).groupby(HELD[within]):
        a, b = rankdata(1 - part["drift.cka_mean"]), rankdata(part[OUTCOME])
        a, b = a - a.mean(), b - b.mean()
        products, first, second = products + a @ b, first + a @ a, second + b @ b
    assert row.rho == pytest.approx(products / np.sqrt(first * second), rel=1e-12)
    assert (row.n, row.n_cells) == (79, 16)
    assert row.n_groups == frame.groupby(HELD[within]).ngroups
    assert row.ci_low < row.rho < row.ci_high


def test_one_group_is_scipys_correlation() -> None:
    frame = made_up_runs(targets=("pets",), methods=("lora",))
    wanted = {"outcome": OUTCOME, "when": "final", "within": "method", "signal": "val_accuracy"}
    row = pick(signal_ranks.rows(frame), **wanted)
    assert row.rho == pytest.approx(spearmanr(frame["val_accuracy"], frame[OUTCOME]).statistic)
    assert row.reason == "no interval of 4 cells, 6 needed"


def test_what_makes_the_loss_is_ranked_first_and_better_than_weight_drift() -> None:
    """Retention falls with one signal alone, in which seeds differ as much as rates do."""
    frame, rng = made_up_runs(n_extra=0), np.random.default_rng(2)
    cause = rng.uniform(0, 5, len(frame))
    frame["epoch1.drift.cause"] = cause
    frame[OUTCOME] = 100 - 10 * cause + rng.normal(size=len(frame))
    found = signal_ranks.rows(frame)
    for within in HELD:
        wanted = {"outcome": OUTCOME, "when": "epoch1", "within": within}
        first = pick(found, **wanted, signal="|drift.cause|")
        assert (first.rank, first.better) == (1, "better")
        assert first.rho < -0.9
        weights = pick(found, **wanted, signal="|drift.weight_drift_rel|")
        assert (weights.gap, weights.reason) == (None, "no gap: it is the reference")
        assert first.gap == pytest.approx(abs(first.rho) - abs(weights.rho), abs=1e-12)
    nothing = pick(found, **wanted, signal="log10_learning_rate")
    assert (nothing.rank, nothing.rho, nothing.reason) == (
        None, None, "signal or outcome varies within no group",
    )  # fmt: skip


def planted(noise: float = 0.0) -> pd.DataFrame:
    """Retention is a straight line in log10 of one dose; methods turn rates into it otherwise."""
    frame = made_up_runs(methods=("full_ft", "lora", "bitfit"), n_extra=0)
    rng = np.random.default_rng(4)
    shift = frame["method"].map({"full_ft": 0.0, "lora": -0.7, "bitfit": -1.1})
    dose = np.log10(frame["learning_rate"]) + shift + 0.01 * rng.normal(size=len(frame))
    frame["drift.dose"] = 10**dose
    frame["drift.rate_again"] = frame["learning_rate"] * 3
    frame[OUTCOME] = 60 - 20 * (dose + 5) + noise * rng.normal(size=len(frame))
    return frame


def test_methods_collapse_on_the_dose_that_makes_the_loss_and_on_no_other() -> None:
    found = dose_axes.rows(shuffled(planted()))
    for target in ("eurosat", "pets"):
        wanted = {"target": target, "outcome": OUTCOME}
        true = pick(found, **wanted, axis="|drift.dose|")
        assert true.collapse < 0.03
        assert true.chosen_elsewhere
        assert true.collapse_elsewhere < 0.2  # over both transfer sets, of which one is noise
        rate = pick(found, **wanted, axis="|drift.rate_again|")
        assert rate.collapse == pytest.approx(1, abs=1e-9)
        assert rate.covered == 1
        assert not rate.chosen_elsewhere
        # Equal rate: differences of 14, 22 and 8 points, of every pair at every cell.
        assert rate.spread_pp == pytest.approx(np.sqrt((14**2 + 22**2 + 8**2) / 3), abs=0.3)


def test_cells_beyond_anothers_curve_are_not_compared() -> None:
    """full_ft at its two highest rates goes where the others never do."""
    row = pick(dose_axes.rows(planted()), target="pets", outcome=OUTCOME, axis="|drift.dose|")
    frame = planted()
    logs = frame[frame["target"] == "pets"].assign(x=lambda f: np.log10(f["drift.dose"]))
    cells = np.log10(10 ** logs["x"]).groupby([logs["method"], logs["learning_rate"]]).mean()
    met = [
        cells[other].min() <= dose <= cells[other].max()
        for method in cells.index.levels[0]
        for other in cells.index.levels[0]
        for dose in cells[method]
        if method != other
    ]
    assert row.covered == pytest.approx(np.mean(met))


def test_an_interval_holds_the_spread_and_nothing_to_compare_says_so() -> None:
    noisy = pick(dose_axes.rows(planted(2.0)), target="pets", outcome=OUTCOME, axis="|drift.dose|")
    assert 0 <= noisy.ci_low < noisy.collapse < noisy.ci_high < 1
    apart = planted()
    apart.loc[apart["method"] == "full_ft", "drift.dose"] *= 1e6
    apart = apart[apart["method"] != "bitfit"]
    row = pick(dose_axes.rows(apart), target="pets", outcome=OUTCOME, axis="|drift.dose|")
    assert row.collapse is None
    why = "no cell whose dose another method's curve has; met on no other target or backbone"
    assert row.reason == why
    assert dose_axes.rows(planted()[lambda f: f["method"] == "lora"]) == []
