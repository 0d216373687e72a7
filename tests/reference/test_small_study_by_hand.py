"""One whole small study: twelve runs, every statistic worked out here with plain arithmetic."""

from __future__ import annotations

import math
from itertools import product
from statistics import mean, stdev
from typing import Any

import pytest

from clipdrift.analysis.summary import analyze
from clipdrift.records import RunRecord
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading

LOW, HIGH = 1e-5, 1e-4
SEEDS = (7, 11, 19)
# method, rate -> per seed: (validation, test accuracy, retention %, weight movement)
RUNS = {
    ("full_ft", LOW): [
        (0.90, 0.89, 70.0, 0.010),
        (0.92, 0.90, 64.0, 0.011),
        (0.91, 0.91, 67.0, 0.012),
    ],
    ("full_ft", HIGH): [
        (0.95, 0.95, 20.0, 0.050),
        (0.96, 0.94, 29.0, 0.052),
        (0.94, 0.96, 23.0, 0.051),
    ],
    ("lora", LOW): [
        (0.60, 0.58, 99.0, 0.002),
        (0.64, 0.63, 98.0, 0.003),
        (0.62, 0.62, 97.0, 0.004),
    ],
    ("lora", HIGH): [
        (0.93, 0.92, 80.0, 0.020),
        (0.92, 0.93, 85.0, 0.021),
        (0.94, 0.91, 81.0, 0.022),
    ],
}
RETENTION = "transfer.cifar100.retention_pct"
T2 = math.sqrt(2) * 0.95 / math.sqrt(1 - 0.95**2)  # t_{0.975} with 2 degrees of freedom


def study() -> list[RunRecord]:
    return [
        RunRecord(
            run_id=f"{method}-{rate}-{seed}",
            identity="",
            status="finished",
            study="hand",
            backbone="clip",
            target="eurosat",
            method=method,
            learning_rate=rate,
            seed=seed,
            result=Result(
                val_accuracy=val,
                test_accuracy=test,
                transfer={"cifar100": TransferReading(accuracy=kept * 0.006, retention_pct=kept)},
                drift={"weight_drift_rel": moved},
            ),
        )
        for (method, rate), cells in RUNS.items()
        for seed, (val, test, kept, moved) in zip(SEEDS, cells, strict=True)
    ]


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    return analyze(study())


def one(rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    found = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    assert len(found) == 1, (keys, len(found))
    return found[0]


def kept(method: str, rate: float) -> list[float]:
    return [cell[2] for cell in RUNS[method, rate]]


def two_sided_p(t: float, df: int) -> float:
    """Student's t in closed form for 2 and for 5 degrees of freedom."""
    t = abs(t)
    if df == 2:
        return 1 - t / math.sqrt(2 + t * t)
    assert df == 5
    u = 1 + t * t / 5
    inner = t / (math.sqrt(5) * u) * (1 + 2 / (3 * u)) + math.atan(t / math.sqrt(5))
    return 1 - 2 / math.pi * inner


def test_cell_of_full_ft_at_the_high_rate(answers: dict[str, Any]) -> None:
    row = one(answers["cells"], method="full_ft", learning_rate=HIGH, metric=RETENTION)
    # 20, 29, 23: mean 24, deviations -4, 5, -1, sum of squares 42, SD sqrt(21).
    assert (row["n"], row["mean"]) == (3, pytest.approx(24.0, rel=1e-12))
    assert row["sd"] == pytest.approx(math.sqrt(21), rel=1e-12)
    half = T2 * math.sqrt(21) / math.sqrt(3)
    assert row["ci_low"] == pytest.approx(24 - half, rel=1e-12)
    assert row["ci_high"] == pytest.approx(24 + half, rel=1e-12)
    assert row["run_ids"] == [f"full_ft-{HIGH}-{seed}" for seed in SEEDS]


def test_underfitting_is_flagged_below_ninety_percent_of_the_best_cell(
    answers: dict[str, Any],
) -> None:
    # Mean test accuracies .90, .95, .61, .92; 90 % of .95 is .855.
    flags = {
        (row["method"], row["learning_rate"]): row["fit"]
        for row in answers["cells"]
        if row["metric"] == RETENTION
    }
    assert flags == {
        ("full_ft", LOW): "fits",
        ("full_ft", HIGH): "fits",
        ("lora", LOW): "underfits",
        ("lora", HIGH): "fits",
    }


@pytest.mark.parametrize("rate", [LOW, HIGH])
def test_paired_per_rate(answers: dict[str, Any], rate: float) -> None:
    row = one(answers["paired"], metric=RETENTION, scope="per_lr", learning_rate=rate)
    assert (row["method_a"], row["method_b"]) == ("full_ft", "lora")
    d = [a - b for a, b in zip(kept("full_ft", rate), kept("lora", rate), strict=True)]
    centre, sd = mean(d), stdev(d)
    t = centre / (sd / math.sqrt(3))
    assert row["n_pairs"] == 3
    assert row["mean_diff"] == pytest.approx(centre, rel=1e-12)
    assert row["t"] == pytest.approx(t, rel=1e-12)
    assert row["p_t"] == pytest.approx(two_sided_p(t, 2), rel=1e-9)
    assert row["ci_low"] == pytest.approx(centre - T2 * sd / math.sqrt(3), rel=1e-12)
    assert row["cohen_dz"] == pytest.approx(centre / sd, rel=1e-12)
    # J(2) = Gamma(1) / (sqrt(1) Gamma(1/2)) = 1 / sqrt(pi).
    assert row["hedges_gz"] == pytest.approx(centre / sd / math.sqrt(math.pi), rel=1e-12)
    # All three differences are negative: the most extreme of 8 sign patterns, and its mirror.
    assert row["p_wilcoxon"] == row["wilcoxon_floor"] == 0.25


def test_paired_over_the_grid(answers: dict[str, Any]) -> None:
    row = one(answers["paired"], metric=RETENTION, scope="grid_mean")
    # Per seed -29, -34, -30 at the low rate and -60, -56, -58 at the high one.
    d = [-44.5, -45.0, -44.0]
    assert d == [
        (full_low - lora_low + full_high - lora_high) / 2
        for full_low, lora_low, full_high, lora_high in zip(
            kept("full_ft", LOW), kept("lora", LOW), kept("full_ft", HIGH), kept("lora", HIGH),
            strict=True,
        )
    ]  # fmt: skip
    assert (row["n_pairs"], row["n_seeds"], row["learning_rate"]) == (6, 3, None)
    assert row["learning_rates"] == [LOW, HIGH]
    assert row["mean_diff"] == pytest.approx(-44.5, rel=1e-12)
    assert row["ci_low"] == pytest.approx(-44.5 - T2 * 0.5 / math.sqrt(3), rel=1e-12)
    t = -44.5 / (0.5 / math.sqrt(3))
    assert row["p_t"] == pytest.approx(two_sided_p(t, 2), rel=1e-9)
    assert row["wilcoxon_floor"] == row["p_wilcoxon"] == 0.25


def test_paired_where_both_fit(answers: dict[str, Any]) -> None:
    # lora underfits at the low rate: only the high one is left.
    row = one(answers["paired"], metric=RETENTION, scope="both_fit")
    alone = one(answers["paired"], metric=RETENTION, scope="per_lr", learning_rate=HIGH)
    assert row["learning_rates"] == [HIGH]
    for field in ("mean_diff", "ci_low", "ci_high", "p_t", "n_pairs"):
        assert row[field] == alone[field]


def test_all_pairs_have_a_test_and_no_interval(answers: dict[str, Any]) -> None:
    row = one(answers["paired"], metric=RETENTION, scope="all_pairs")
    d = [
        a - b
        for rate in (LOW, HIGH)
        for a, b in zip(kept("full_ft", rate), kept("lora", rate), strict=True)
    ]
    t = mean(d) / (stdev(d) / math.sqrt(6))
    assert (row["n_pairs"], row["learning_rate"], row["ci_low"], row["p_holm"]) == (
        6,
        None,
        None,
        None,
    )
    assert row["t"] == pytest.approx(t, rel=1e-12)
    assert row["p_t"] == pytest.approx(two_sided_p(t, 5), rel=1e-9)
    assert row["wilcoxon_floor"] == row["p_wilcoxon"] == 2 / 64


def test_holm_over_the_rates_of_one_question(answers: dict[str, Any]) -> None:
    family = [r for r in answers["paired"] if (r["metric"], r["scope"]) == (RETENTION, "per_lr")]
    small, large = sorted(row["p_t"] for row in family)
    assert sorted(row["p_holm"] for row in family) == [2 * small, max(2 * small, large)]
    name = f"retention: 2 per_lr tests of {RETENTION} on eurosat (clip)"
    assert {row["family"] for row in family} == {name}


def test_equivalence_is_open_at_the_high_rate(answers: dict[str, Any]) -> None:
    row = one(answers["equivalence"], metric="val_accuracy", scope="per_lr", learning_rate=HIGH)
    # Differences .02, .04, .00: mean .02, SD .02, standard error .02 / sqrt(3), margin .01.
    error = 0.02 / math.sqrt(3)
    lower, upper = (0.02 + 0.01) / error, (0.02 - 0.01) / error
    one_sided = [
        0.5 * (1 - lower / math.sqrt(2 + lower**2)),
        0.5 * (1 + upper / math.sqrt(2 + upper**2)),
    ]
    assert row["p_tost"] == pytest.approx(max(one_sided), rel=1e-9)
    assert row["result"] == "inconclusive"


def test_two_rates_make_no_dose_response(answers: dict[str, Any]) -> None:
    row = one(answers["dose_response"], method="lora", metric="drift.weight_drift_rel")
    assert row["spearman_rho"] is None
    assert row["reason"] == "2 learning rates in a seed, at least 3 needed"
    assert (row["n"], row["n_learning_rates"], row["n_seeds"]) == (6, 2, 0)


def test_operating_points_and_the_edge_of_the_grid(answers: dict[str, Any]) -> None:
    for method, best, reached in (("full_ft", 0.95, 24.0), ("lora", 0.93, 82.0)):
        row = one(answers["operating_points"], method=method, metric=RETENTION)
        assert (row["learning_rate"], row["n"]) == (HIGH, 3)
        assert row["val_accuracy"] == pytest.approx(best, rel=1e-12)
        assert row["mean"] == pytest.approx(reached, rel=1e-12)
        grid = one(answers["grid_adequacy"], method=method)
        assert (grid["edge"], grid["n_learning_rates"]) == ("highest", 2)
    assert one(answers["grid_adequacy"], method="lora")["underfit_learning_rates"] == [LOW]


def test_frontier(answers: dict[str, Any]) -> None:
    # (test, retention): full_ft (.90, 67), (.95, 24); lora (.61, 98), (.92, 82).
    # lora at the high rate beats full_ft at the low one in both; nothing beats the other three.
    found = [
        (row["method"], row["learning_rate"], row["mean_test_accuracy"], row["mean_retention_pct"])
        for row in answers["frontier"]
    ]
    assert found == [
        ("full_ft", HIGH, pytest.approx(0.95), pytest.approx(24.0)),
        ("lora", HIGH, pytest.approx(0.92), pytest.approx(82.0)),
        ("lora", LOW, pytest.approx(0.61), pytest.approx(98.0)),
    ]
    assert [row["fit"] for row in answers["frontier"]] == ["fits", "fits", "underfits"]


def test_interaction_of_method_and_rate(answers: dict[str, Any]) -> None:
    row = one(answers["mixed"], metric=RETENTION, term="method[lora]:log10_lr")
    # In a 2 x 2 grid the interaction is the difference of the differences of cell means:
    # (82 - 98) - (24 - 67) = 27 per factor of ten, and here the rates are a factor of ten apart.
    assert row["estimate"] == pytest.approx(27.0, rel=1e-9)


def test_nothing_is_said_without_need(answers: dict[str, Any]) -> None:
    assert answers["warnings"] == []
    assert answers["generated_from"]["n_runs_used"] == 12


def test_every_cell_of_the_study_is_there(answers: dict[str, Any]) -> None:
    cells = {(row["method"], row["learning_rate"]) for row in answers["cells"]}
    assert cells == set(product(("full_ft", "lora"), (LOW, HIGH)))
