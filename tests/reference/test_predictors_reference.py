"""Predictor correlations and their intervals against scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import made_up_runs, shuffled, t_by_leaving_out, without_each_seed
from scipy import stats

from clipdrift.analysis.questions import predictors

OUTCOME = "transfer.cifar100.retention_pct"
CKA_FORMS = ("drift.cka_mean", "|drift.cka_mean|")


def pick(rows: Sequence[Any], signal: str, when: str = "final", **more: Any) -> Any:
    wanted = {"outcome": OUTCOME, "signal": signal, "when": when, **more}
    found = [
        row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("signal", "when", "name"),
    [
        ("drift.cka_mean", "final", "drift.cka_mean"),
        ("drift.cls_entropy_pct", "epoch1", "epoch1.drift.cls_entropy_pct"),
        ("val_accuracy", "final", "val_accuracy"),
        ("transfer.cifar10.retention_pct", "final", "transfer.cifar10.retention_pct"),
    ],
)
def test_correlations_are_scipys(signal: str, when: str, name: str) -> None:
    frame = made_up_runs()
    row = pick(predictors.rows(frame), signal, when)

    def rho(part: pd.DataFrame) -> float:
        return float(stats.spearmanr(part[name], part[OUTCOME]).statistic)

    theirs = stats.spearmanr(frame[name], frame[OUTCOME])
    by_target = [rho(part) for _, part in frame.groupby("target")]
    by_group = [rho(part) for _, part in frame.groupby(["target", "method"])]
    assert row.n == 80
    assert row.spearman_overall == pytest.approx(theirs.statistic, rel=1e-9)
    assert row.within_target_mean_abs == pytest.approx(np.mean(np.abs(by_target)), rel=1e-9)
    assert row.within_group_mean_abs == pytest.approx(np.mean(np.abs(by_group)), rel=1e-9)
    signed = np.sign(theirs.statistic) * np.mean(by_group)
    assert row.within_group_mean_signed == pytest.approx(signed, rel=1e-9)
    assert (row.n_targets, row.n_groups) == (2, 4)


@pytest.mark.parametrize("when", ["final", "epoch1"])
def test_a_drift_that_costs_either_way_is_found_by_its_size_alone(when: str) -> None:
    # Half of the runs broaden and half narrow; retention falls with the distance from rest.
    rng = np.random.default_rng(4)
    frame = made_up_runs()
    size = rng.permutation(np.linspace(0.5, 20, len(frame)))
    sign = np.tile([1.0, -1.0], len(frame) // 2)
    name = {"final": "drift.cls_entropy_pct", "epoch1": "epoch1.drift.cls_entropy_pct"}[when]
    frame[name] = size * sign
    frame[OUTCOME] = 100 - size + rng.normal(scale=2.5, size=len(frame))
    rows = predictors.rows(frame)
    signed, absolute = (
        pick(rows, signal, when) for signal in ("drift.cls_entropy_pct", "|drift.cls_entropy_pct|")
    )
    theirs = stats.spearmanr(size, frame[OUTCOME])
    assert abs(signed.spearman_overall) < 0.1
    assert absolute.spearman_overall < -0.85
    assert absolute.spearman_overall == pytest.approx(theirs.statistic, rel=1e-9)
    assert absolute.p < 0.001


def test_every_drift_stands_in_both_forms_and_nothing_else_does() -> None:
    names = {row.signal for row in predictors.rows(made_up_runs())}
    drifts = {name for name in names if name.startswith("drift.")}
    assert {name for name in names if name.startswith("|")} == {f"|{name}|" for name in drifts}
    # A similarity is at rest at 1: its size is 1 - CKA, the same rank reversed.
    rows = predictors.rows(made_up_runs())
    cka, size = (pick(rows, name).spearman_overall for name in CKA_FORMS)
    assert size == pytest.approx(-cka, rel=1e-12)


def test_what_is_gone_is_an_outcome_that_its_own_retention_is_no_signal_of() -> None:
    frame = made_up_runs()
    gone = "transfer.cifar100.gone_pp"
    frame[gone] = np.random.default_rng(0).normal(size=len(frame)) - frame[OUTCOME]
    rows = predictors.rows(frame)
    found = pick(rows, "drift.cka_mean", outcome=gone).spearman_overall
    assert found == pytest.approx(stats.spearmanr(frame["drift.cka_mean"], frame[gone]).statistic)
    signals = {row.signal for row in rows if row.outcome == gone and row.when == "final"}
    assert OUTCOME not in signals
    assert "transfer.cifar10.retention_pct" in signals


def two_groups(x: list[float], y: list[float]) -> pd.DataFrame:
    half = len(x) // 2
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(len(x))],
            "backbone": "m",
            "target": "t",
            "method": ["a"] * half + ["b"] * half,
            "role": "matched",
            "learning_rate": [1e-5, 1e-4, 1e-3] * 2,
            "seed": 7,
            "drift.d": x,
            OUTCOME: y,
        }
    )


def test_groups_against_the_overall_direction_give_a_negative_signed_mean() -> None:
    # Inside each method rho = -1; the methods lie apart, so that overall rho = 19/35.
    frame = two_groups([1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11])
    row = pick(predictors.rows(frame), "drift.d")
    assert row.spearman_overall == pytest.approx(19 / 35, rel=1e-12)
    assert row.within_group_mean_abs == 1
    assert row.within_group_mean_signed == -1


def test_a_group_in_which_nothing_varies_is_left_out_and_not_counted() -> None:
    frame = two_groups([1, 2, 3, 5, 5, 5], [1, 2, 3, 6, 5, 4])
    row = pick(predictors.rows(frame), "drift.d")
    assert (row.within_group_mean_abs, row.n_groups) == (1, 1)
    frame["drift.d"] = 5.0
    row = pick(predictors.rows(frame), "drift.d")
    assert row.spearman_overall is None
    assert row.within_group_mean_abs is None
    assert row.within_group_mean_signed is None
    assert row.reason == "signal does not vary"


def test_two_runs_are_too_few() -> None:
    row = pick(predictors.rows(two_groups([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])[:2]), "drift.d")
    assert (row.n, row.spearman_overall, row.p) == (2, None, None)
    assert row.reason == "2 points, at least 3 needed"


def test_one_learning_rate_leaves_the_learning_rate_undefined_and_nothing_else() -> None:
    rows = predictors.rows(made_up_runs(rates=(1e-5,)))
    assert pick(rows, "log10_learning_rate").reason == "signal does not vary"
    assert pick(rows, "drift.cka_mean").spearman_overall is not None


def test_undefined_and_infinite_values_are_left_out_pairwise() -> None:
    frame = made_up_runs()
    frame.loc[3, "drift.cka_mean"] = np.nan
    frame.loc[4, "drift.cka_mean"] = np.inf
    frame.loc[5, OUTCOME] = np.nan
    kept = frame.drop(index=[3, 4, 5])
    row = pick(predictors.rows(frame), "drift.cka_mean")
    theirs = stats.spearmanr(kept["drift.cka_mean"], kept[OUTCOME]).statistic
    assert row.n == 77
    assert row.spearman_overall == pytest.approx(theirs, rel=1e-9)


def test_backbones_are_never_pooled_and_references_left_out() -> None:
    first, second = made_up_runs(), made_up_runs(rng_seed=5, backbone="other")
    reference = made_up_runs(rng_seed=6, methods=("linear_probe",)).assign(role="reference")
    rows = predictors.rows(pd.concat([first, second, reference]))
    assert [r for r in rows if r.backbone == "clip"] == predictors.rows(first)
    assert [r for r in rows if r.backbone == "other"] == predictors.rows(second)


def test_the_order_of_the_rows_changes_no_digit() -> None:
    frame = made_up_runs()
    assert predictors.rows(shuffled(frame)) == predictors.rows(frame)


ENTROPY, CKA = "drift.cls_entropy_pct", "drift.cka_mean"


def rho(frame: pd.DataFrame, name: str) -> float:
    return float(stats.spearmanr(frame[name], frame[OUTCOME]).statistic)


def test_intervals_are_those_of_correlations_without_each_seed() -> None:
    frame = made_up_runs()
    frame[ENTROPY] = frame[ENTROPY].round()  # ties
    row = pick(predictors.rows(frame), ENTROPY)
    whole, *left = (rho(part, ENTROPY) for part in (frame, *without_each_seed(frame)))
    low, high, p = t_by_leaving_out(np.arctanh(whole), np.arctanh(left).tolist())
    assert (row.n_seeds, row.reference) == (5, CKA)
    assert row.p == pytest.approx(p, rel=1e-9)
    assert [row.ci_low, row.ci_high] == pytest.approx(np.tanh([low, high]), rel=1e-9)
    assert row.ci_low < row.spearman_overall < row.ci_high
    gaps = [
        abs(rho(part, ENTROPY)) - abs(rho(part, CKA)) for part in (frame, *without_each_seed(frame))
    ]
    low, high, _ = t_by_leaving_out(gaps[0], gaps[1:])
    assert row.gap == pytest.approx(gaps[0], rel=1e-9)
    assert [row.gap_ci_low, row.gap_ci_high] == pytest.approx([low, high], rel=1e-9)


@pytest.mark.slow
def test_an_interval_of_three_seeds_holds_the_correlation_of_all_seeds() -> None:
    """Cells are the grid, not a sample of one: the truth is rho over many seeds of the same."""
    many = made_up_runs(seeds=tuple(range(600)), targets=("pets",), n_extra=0)
    keys = ["run_id", "backbone", "target", "method", "role", "learning_rate", "seed"]
    many, truth = many[[*keys, ENTROPY, OUTCOME]], rho(many, ENTROPY)
    studies = many.assign(backbone=[f"b{seed // 3}" for seed in many.seed])
    rows = [row for row in predictors.rows(studies) if row.signal == ENTROPY]
    assert len(rows) == 200
    # The error of this share is 1.5 points.
    assert 0.91 < np.mean([row.ci_low <= truth <= row.ci_high for row in rows]) < 0.99


def test_the_gap_is_taken_over_the_runs_both_signals_have() -> None:
    frame = made_up_runs()
    frame.loc[[0, 1, 2], CKA] = np.nan
    row = pick(predictors.rows(frame), ENTROPY)
    shared = frame.drop(index=[0, 1, 2])
    assert row.n == 80
    assert row.spearman_overall == pytest.approx(rho(frame, ENTROPY), rel=1e-9)
    gap = abs(rho(shared, ENTROPY)) - abs(rho(shared, CKA))
    assert row.gap == pytest.approx(gap, rel=1e-9)


def test_the_reference_has_no_gap_to_itself_and_may_be_chosen() -> None:
    frame = made_up_runs()
    row = pick(predictors.rows(frame), CKA)
    assert (row.gap, row.reason) == (None, "no gap: it is the reference")
    rows = predictors.rows(frame, reference="log10_learning_rate")
    assert pick(rows, "log10_learning_rate").gap is None
    assert pick(rows, CKA).gap != 0


def test_without_the_reference_the_gap_is_null_with_a_reason() -> None:
    row = pick(predictors.rows(made_up_runs(), reference="drift.absent"), CKA)
    assert row.gap is None
    assert row.ci_low is not None
    assert row.reason == "no gap: reference drift.absent is not in these records"


def test_without_cka_the_reference_is_the_learning_rate() -> None:
    frame = made_up_runs().drop(columns=[CKA, f"epoch1.{CKA}"])
    row = pick(predictors.rows(frame), ENTROPY)
    assert row.reference == "log10_learning_rate"
    assert row.gap_ci_low is not None


def test_one_seed_gives_a_correlation_but_no_interval() -> None:
    for seeds in ((7,), (7, 11)):
        frame = made_up_runs(seeds=seeds)
        lora = frame["method"] == "lora"
        # One method at one seed tells no more about its spread than a study of one seed.
        row = pick(predictors.rows(frame[~lora | (frame["seed"] == 7)]), ENTROPY)
        assert row.spearman_overall is not None
        assert (row.p, row.ci_low) == (None, None)
        assert row.reason.startswith("one seed")


def test_perfect_order_and_a_constant_have_no_interval() -> None:
    frame = made_up_runs()
    frame["drift.copy"] = frame[OUTCOME]
    row = pick(predictors.rows(frame), "drift.copy")
    assert (row.spearman_overall, row.p, row.ci_low) == (1, None, None)
    assert row.reason == "a perfect correlation: no interval"
    row = pick(predictors.rows(frame.assign(**{ENTROPY: 0.0})), ENTROPY)
    assert (row.spearman_overall, row.ci_low, row.gap) == (None, None, None)
    assert row.reason == "signal does not vary"
