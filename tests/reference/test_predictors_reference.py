"""Predictor correlations and their cell bootstrap against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import made_up_runs, shuffled
from scipy import stats

from clipdrift.analysis import predictor_bootstrap, predictors
from clipdrift.analysis.intervals import cluster_resamples

OUTCOME = "transfer.cifar100.retention_pct"
CKA_FORMS = ("drift.cka_mean", "|drift.cka_mean|")


def pick(rows: list[dict[str, Any]], signal: str, when: str = "final", **more: Any) -> Any:
    wanted = {"outcome": OUTCOME, "signal": signal, "when": when, **more}
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
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
    assert row["n"] == 80
    assert row["spearman_overall"] == pytest.approx(theirs.statistic, rel=1e-9)
    assert row["p"] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert row["within_target_mean_abs"] == pytest.approx(np.mean(np.abs(by_target)), rel=1e-9)
    assert row["within_group_mean_abs"] == pytest.approx(np.mean(np.abs(by_group)), rel=1e-9)
    signed = np.sign(theirs.statistic) * np.mean(by_group)
    assert row["within_group_mean_signed"] == pytest.approx(signed, rel=1e-9)
    assert (row["n_targets"], row["n_groups"], row["reason"]) == (2, 4, None)


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
    assert abs(signed["spearman_overall"]) < 0.1
    assert absolute["spearman_overall"] < -0.85
    assert absolute["spearman_overall"] == pytest.approx(theirs.statistic, rel=1e-9)
    assert absolute["p"] == pytest.approx(theirs.pvalue, rel=1e-9)


def test_every_drift_stands_in_both_forms_and_nothing_else_does() -> None:
    names = {row["signal"] for row in predictors.rows(made_up_runs())}
    drifts = {name for name in names if name.startswith("drift.")}
    assert {name for name in names if name.startswith("|")} == {f"|{name}|" for name in drifts}
    # A similarity is at rest at 1: its size is 1 - CKA, the same rank reversed.
    rows = predictors.rows(made_up_runs())
    cka, size = (pick(rows, name)["spearman_overall"] for name in CKA_FORMS)
    assert size == pytest.approx(-cka, rel=1e-12)


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
    assert row["spearman_overall"] == pytest.approx(19 / 35, rel=1e-12)
    assert row["within_group_mean_abs"] == 1
    assert row["within_group_mean_signed"] == -1


def test_a_group_in_which_nothing_varies_is_left_out_and_not_counted() -> None:
    frame = two_groups([1, 2, 3, 5, 5, 5], [1, 2, 3, 6, 5, 4])
    row = pick(predictors.rows(frame), "drift.d")
    assert (row["within_group_mean_abs"], row["n_groups"]) == (1, 1)
    frame["drift.d"] = 5.0
    row = pick(predictors.rows(frame), "drift.d")
    assert row["spearman_overall"] is None
    assert row["within_group_mean_abs"] is None
    assert row["within_group_mean_signed"] is None
    assert row["reason"] == "signal does not vary"


def test_two_runs_are_too_few() -> None:
    row = pick(predictors.rows(two_groups([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])[:2]), "drift.d")
    assert (row["n"], row["spearman_overall"], row["p"]) == (2, None, None)
    assert row["reason"] == "2 points, at least 3 needed"


def test_one_learning_rate_leaves_the_learning_rate_undefined_and_nothing_else() -> None:
    rows = predictors.rows(made_up_runs(rates=(1e-5,)))
    assert pick(rows, "log10_learning_rate")["reason"] == "signal does not vary"
    assert pick(rows, "drift.cka_mean")["spearman_overall"] is not None


def test_undefined_and_infinite_values_are_left_out_pairwise() -> None:
    frame = made_up_runs()
    frame.loc[3, "drift.cka_mean"] = np.nan
    frame.loc[4, "drift.cka_mean"] = np.inf
    frame.loc[5, OUTCOME] = np.nan
    kept = frame.drop(index=[3, 4, 5])
    row = pick(predictors.rows(frame), "drift.cka_mean")
    theirs = stats.spearmanr(kept["drift.cka_mean"], kept[OUTCOME]).statistic
    assert row["n"] == 77
    assert row["spearman_overall"] == pytest.approx(theirs, rel=1e-9)


def test_backbones_are_never_pooled_and_references_left_out() -> None:
    first, second = made_up_runs(), made_up_runs(rng_seed=5, backbone="other")
    reference = made_up_runs(rng_seed=6, methods=("linear_probe",)).assign(role="reference")
    rows = predictors.rows(pd.concat([first, second, reference]))
    assert [r for r in rows if r["backbone"] == "clip"] == predictors.rows(first)
    assert [r for r in rows if r["backbone"] == "other"] == predictors.rows(second)


@pytest.mark.parametrize("module", [predictors, predictor_bootstrap])
def test_the_order_of_the_rows_changes_no_digit(module: Any) -> None:
    frame = made_up_runs()
    assert module.rows(shuffled(frame)) == module.rows(frame)


def naive_bootstrap(frame: pd.DataFrame, name: str, n_resamples: int, seed: int) -> list[float]:
    """|rho| of written-out resamples of whole cells, each by scipy."""
    keys = ["target", "method", "learning_rate"]
    cells = dict(iter(frame.groupby(keys)))
    counts = cluster_resamples(sorted(cells), n_resamples, seed).counts.astype(int)
    out = []
    for b in range(n_resamples):
        drawn = [cells[key] for key, k in zip(sorted(cells), counts[:, b], strict=True) if k]
        times = [k for k in counts[:, b] if k]
        resample = pd.concat([pd.concat([c] * k) for c, k in zip(drawn, times, strict=True)])
        out.append(abs(float(stats.spearmanr(resample[name], resample[OUTCOME]).statistic)))
    return out


def test_cell_bootstrap_is_the_naive_one_on_written_out_resamples() -> None:
    frame = made_up_runs()
    frame["drift.cls_entropy_pct"] = frame["drift.cls_entropy_pct"].round()  # ties
    rows = predictor_bootstrap.rows(frame, n_resamples=60, seed=3)
    own = np.array(naive_bootstrap(frame, "drift.cls_entropy_pct", 60, 3))
    other = np.array(naive_bootstrap(frame, "drift.cka_mean", 60, 3))
    row = pick(rows, "drift.cls_entropy_pct")
    assert (row["n"], row["n_cells"], row["reference"]) == (80, 16, "drift.cka_mean")
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(
        np.quantile(own, [0.025, 0.975]), rel=1e-9
    )
    assert [row["gap_ci_low"], row["gap_ci_high"]] == pytest.approx(
        np.quantile(own - other, [0.025, 0.975]), rel=1e-9
    )
    point = pick(predictors.rows(frame), "drift.cls_entropy_pct")["spearman_overall"]
    assert row["abs_rho"] == abs(point)


def test_the_gap_is_taken_over_the_runs_both_signals_have() -> None:
    frame = made_up_runs()
    frame.loc[[0, 1, 2], "drift.cka_mean"] = np.nan
    rows = predictor_bootstrap.rows(frame, n_resamples=40, seed=1)
    row = pick(rows, "drift.cls_entropy_pct")
    shared = frame.drop(index=[0, 1, 2])
    own = np.array(naive_bootstrap(shared, "drift.cls_entropy_pct", 40, 1))
    other = np.array(naive_bootstrap(shared, "drift.cka_mean", 40, 1))
    everything = np.array(naive_bootstrap(frame, "drift.cls_entropy_pct", 40, 1))
    assert row["n"] == 80
    assert row["ci_low"] == pytest.approx(np.quantile(everything, 0.025), rel=1e-9)
    assert row["gap_ci_low"] == pytest.approx(np.quantile(own - other, 0.025), rel=1e-9)
    rho = [
        abs(stats.spearmanr(shared[name], shared[OUTCOME]).statistic)
        for name in ("drift.cls_entropy_pct", "drift.cka_mean")
    ]
    assert row["gap"] == pytest.approx(rho[0] - rho[1], rel=1e-9)


def test_the_reference_has_no_gap_to_itself_and_may_be_chosen() -> None:
    frame = made_up_runs()
    row = pick(predictor_bootstrap.rows(frame, n_resamples=50), "drift.cka_mean")
    assert (row["gap"], row["gap_ci_low"], row["gap_ci_high"]) == (0, 0, 0)
    rows = predictor_bootstrap.rows(frame, n_resamples=50, reference="log10_learning_rate")
    assert pick(rows, "log10_learning_rate")["gap"] == 0
    assert pick(rows, "drift.cka_mean")["gap"] != 0


def test_blocks_of_resamples_join_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = made_up_runs()
    whole = predictor_bootstrap.rows(frame, n_resamples=100)
    monkeypatch.setattr(predictor_bootstrap, "BLOCK", 80 * 7)
    blocks = predictor_bootstrap.rows(frame, n_resamples=100)
    for one, other in zip(whole, blocks, strict=True):
        for key in ("ci_low", "ci_high", "gap_ci_low", "gap_ci_high"):
            assert one[key] == pytest.approx(other[key], rel=1e-12)


def test_without_the_reference_the_gap_is_null_with_a_reason() -> None:
    rows = predictor_bootstrap.rows(made_up_runs(), n_resamples=20, reference="drift.absent")
    row = pick(rows, "drift.cka_mean")
    assert row["gap"] is None
    assert row["ci_low"] is not None
    assert row["reason"] == "reference signal drift.absent is not in these records"


def test_without_cka_the_reference_is_the_learning_rate() -> None:
    frame = made_up_runs().drop(columns=["drift.cka_mean", "epoch1.drift.cka_mean"])
    row = pick(predictor_bootstrap.rows(frame, n_resamples=20), "drift.cls_entropy_pct")
    assert row["reference"] == "log10_learning_rate"
    assert row["gap_ci_low"] is not None


def test_two_cells_give_a_correlation_but_no_interval() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,))
    row = pick(predictor_bootstrap.rows(frame, n_resamples=20), "drift.cls_entropy_pct")
    assert row["abs_rho"] is not None
    assert row["ci_low"] is None
    assert row["reason"] == "2 cells, at least 3 needed for an interval"


def test_a_constant_signal_has_no_bootstrap() -> None:
    frame = made_up_runs().assign(**{"drift.cls_entropy_pct": 0.0})
    row = pick(predictor_bootstrap.rows(frame, n_resamples=20), "drift.cls_entropy_pct")
    assert (row["abs_rho"], row["ci_low"], row["gap"]) == (None, None, None)
    assert row["reason"] == "signal does not vary"
