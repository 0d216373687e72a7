"""Rankings of methods against pandas, scipy's PCHIP and paired t tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import RATES, made_up_runs, shuffled
from scipy import stats
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression
from synthetic_records import synthetic_records

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import ranking, ranking_agreement
from clipdrift.analysis.statistics.influence import Images
from clipdrift.records import RunRecord
from clipdrift.records.correct import Correct

OUTCOME = "transfer.cifar100.retention_pct"
METHODS = ("bitfit", "dora", "full_ft", "lora")
MOVED = "drift.weight_drift_rel"
Rows = list[dict[str, Any]]


def runs(**keys: Any) -> pd.DataFrame:
    return made_up_runs(targets=("pets",), methods=METHODS, **keys)


def view(rows: Rows, name: str, metric: str = OUTCOME) -> dict[str, dict[str, Any]]:
    return {r.method: r for r in rows if (r.view, r.metric) == (name, metric)}


def values(rows: dict[str, dict[str, Any]]) -> pd.Series:
    return pd.Series({name: row.value for name, row in rows.items()})


def equal_rates(frame: pd.DataFrame) -> pd.Series:
    cells = frame.groupby(["method", "learning_rate"])[OUTCOME].mean()
    return cells.groupby("method").mean()


def own_best(frame: pd.DataFrame, metric: str = OUTCOME) -> pd.Series:
    cells = frame.groupby(["method", "learning_rate"])[[*{"val_accuracy", metric}]].mean()
    best = cells.loc[cells.groupby("method")["val_accuracy"].idxmax().tolist()]
    return best[metric].droplevel("learning_rate")


def along(frame: pd.DataFrame, method: str, held: pd.Series, place: float) -> float:
    """Retention where `held` reaches a place: isotonic regression and PCHIP, both scipy's."""
    own = frame[frame["method"] == method].assign(held=held)
    means = own.groupby("learning_rate")[["held", OUTCOME]].mean()
    means = means.iloc[: int(means["held"].to_numpy().argmax()) + 1]
    knots = means.groupby(isotonic_regression(means["held"].to_numpy()).x.round(13)).mean()
    return float(PchipInterpolator(knots["held"], knots[OUTCOME], extrapolate=False)(place))


def test_values_and_ranks_of_every_view() -> None:
    frame = runs()
    found = ranking.rows(shuffled(frame), underfit_fraction=0.9)
    expected = {
        "equal_learning_rate": equal_rates(frame),
        "own_best_rate": own_best(frame),
    }
    place = 0.9 * own_best(frame, "val_accuracy").max()
    accuracy = {m: along(frame, m, frame["val_accuracy"], place) for m in METHODS}
    expected["equal_val_accuracy"] = pd.Series(accuracy)
    moved = float(own_best(frame, MOVED).median())
    for name, series in expected.items():
        rows = view(found, name)
        assert values(rows)[list(METHODS)].to_numpy() == pytest.approx(
            series[list(METHODS)].to_numpy(), rel=1e-9, nan_ok=True
        )
        ranks = series.rank(ascending=False, method="min")
        assert {m: row.rank for m, row in rows.items() if row.rank} == ranks.dropna().to_dict()
    for row in view(found, "equal_val_accuracy").values():
        assert row.at == pytest.approx(place, rel=1e-12)
    for row in view(found, "equal_weight_drift").values():
        assert row.at == pytest.approx(moved, rel=1e-12)


def test_learning_rate_is_where_the_method_gets_there() -> None:
    frame = runs()
    found = ranking.rows(frame, underfit_fraction=0.9)
    cells = frame.groupby(["method", "learning_rate"])["val_accuracy"].mean()
    for method, row in view(found, "own_best_rate").items():
        assert row.learning_rate == pytest.approx(cells[method].idxmax(), rel=1e-12)
    assert all(r.learning_rate is None for r in view(found, "equal_learning_rate").values())
    for row in view(found, "equal_weight_drift").values():
        assert row.learning_rate is None or RATES[0] <= row.learning_rate <= RATES[-1]


def test_ranks_left_open_are_those_of_paired_t_tests() -> None:
    frame = runs(rng_seed=3)
    frame[OUTCOME] += 15 * np.random.default_rng(1).normal(size=len(frame))
    found = ranking.rows(frame, underfit_fraction=0.9)
    best = frame.groupby(["method", "learning_rate"])["val_accuracy"].mean()
    rates = {m: best[m].idxmax() for m in METHODS}
    chosen = frame[frame["learning_rate"] == frame["method"].map(rates)]
    left_open = set()
    for name, part in (("equal_learning_rate", frame), ("own_best_rate", chosen)):
        table = part.pivot_table(index="seed", columns="method", values=OUTCOME)
        for method, row in view(found, name).items():
            above = below = 0
            for other in table.columns.drop(method):
                test = stats.ttest_rel(table[method], table[other])
                if test.pvalue < 0.05 / 3:
                    above += int(test.statistic < 0)
                    below += int(test.statistic > 0)
            assert (row.rank_low, row.rank_high) == (1 + above, 4 - below)
            assert row.rank_low <= row.rank <= row.rank_high
            left_open.add(row.rank_high - row.rank_low)
    assert len(left_open) > 1


def _on_images(record: RunRecord, n: int) -> RunRecord:
    """The same run, its test accuracy that of n images, nearly the same ones in all of a method."""
    rngs = [np.random.default_rng([i, METHODS.index(record.method)]) for i in (0, record.seed)]
    order = np.argsort(np.argsort(rngs[0].normal(size=n) + 0.1 * rngs[1].normal(size=n)))
    correct = Correct.of(order < round(record.result.test_accuracy * n))
    changed = {"correct": {"test_accuracy": correct}, "test_accuracy": correct.accuracy}
    return record.model_copy(update={"result": record.result.model_copy(update=changed)})


def test_ranks_left_open_draw_the_images_that_all_methods_share() -> None:
    """Images are hard for one method and not for another, so that they tell methods apart less."""
    seeds = (1, 2, 3, 4, 5)
    records = [
        _on_images(record, 40)
        for record in synthetic_records(methods=METHODS, targets=("pets",), seeds=seeds)
    ]
    frame, images = runs_frame(records), Images(records)
    found = ranking.rows(frame, underfit_fraction=0.9, images=images)
    alone = ranking.rows(frame, underfit_fraction=0.9)
    own = view(found, "equal_learning_rate", "test_accuracy")
    right = {
        method: np.array(
            [
                np.mean([images.influence([run], "test_accuracy").values[0] for run in part], 0)
                for _, part in frame[frame["method"] == method].groupby("seed")["run_id"]
            ]
        )
        for method in METHODS
    }
    level = 1 - 0.05 / 3 / 2
    for method, row in own.items():
        above = below = 0
        for other in set(METHODS) - {method}:
            gap = right[method] - right[other]  # seeds x images
            rest = gap - gap.mean(0) - gap.mean(1, keepdims=True) + gap.mean()
            apart = (rest**2).sum() / (4 * 39) / gap.size
            shared = max(gap.mean(0).var(ddof=1) / 40 - apart, 0)
            seeds = gap.mean(1).var(ddof=1) / 5
            half = np.hypot(
                stats.t.ppf(level, 4) * seeds**0.5, stats.t.ppf(level, 39) * shared**0.5
            )
            above += int(gap.mean() < -half)
            below += int(gap.mean() > half)
        assert (row.rank_low, row.rank_high) == (1 + above, 4 - below)
        assert row.interval_over == "seeds and images"
    surer = view(alone, "equal_learning_rate", "test_accuracy")
    assert {row.interval_over for row in surer.values()} == {"seeds"}
    widths = [sum(row.rank_high - row.rank_low for row in rows.values()) for rows in (own, surer)]
    assert widths[0] > widths[1]


@pytest.mark.slow
def test_methods_that_do_not_differ_are_seldom_told_apart() -> None:
    """Percentile bootstraps of the rank left the true one out in most studies of three seeds."""
    rng, frame = np.random.default_rng(0), runs(seeds=(1, 2, 3), n_extra=0)
    studies = [
        frame.assign(target=f"t{i}", test_accuracy=0.9 + 0.01 * rng.normal(size=len(frame)))
        for i in range(100)
    ]
    rows = ranking.rows(pd.concat(studies, ignore_index=True), underfit_fraction=0.9)
    own = [r for r in rows if (r.view, r.metric) == ("own_best_rate", "test_accuracy")]
    wrong = {r.target for r in own if (r.rank_low, r.rank_high) != (1, 4)}
    assert len(own) == 400
    # Each of four methods is told apart from another at a level of 5 % at most.
    assert len(wrong) <= 20


def test_where_a_curve_does_not_reach_there_is_no_rank_but_a_reason() -> None:
    frame = runs()
    weak, strong = frame["method"] == "bitfit", frame["method"] == "dora"
    frame.loc[weak, "val_accuracy"] -= 0.5
    frame.loc[strong, "val_accuracy"] = 0.94 + 1e-3 * np.log10(frame.loc[strong, "learning_rate"])
    frame.loc[frame["method"] == "lora", MOVED] = np.nan
    found = ranking.rows(frame, underfit_fraction=0.9)
    accuracy, moved = view(found, "equal_val_accuracy"), view(found, "equal_weight_drift")
    assert accuracy["bitfit"].reason.startswith("its curve ends below")
    assert accuracy["dora"].reason.startswith("its curve begins above")
    assert moved["lora"].reason == "its curve has fewer than two distinct values"
    for row in (accuracy["bitfit"], accuracy["dora"], moved["lora"]):
        assert (row.value, row.rank, row.rank_low, row.rank_high) == (None,) * 4
    assert {row.n_ranked for row in accuracy.values()} == {2}
    assert sorted(row.rank for row in accuracy.values() if row.rank) == [1, 2]


def test_equal_values_share_the_better_rank() -> None:
    frame = runs()
    twin = frame[frame["method"] == "lora"].assign(method="twin")
    frame = pd.concat([frame, twin], ignore_index=True)
    rows = view(ranking.rows(frame, underfit_fraction=0.9), "own_best_rate")
    assert rows["twin"].rank == rows["lora"].rank
    assert rows["twin"].rank + 1 not in {row.rank for row in rows.values()}


def test_no_common_rate_and_one_seed() -> None:
    frame = runs(seeds=(7,))
    frame.loc[frame["method"] == "lora", "learning_rate"] *= 1.5
    found = ranking.rows(frame, underfit_fraction=0.9)
    for row in view(found, "equal_learning_rate").values():
        assert (row.rank, row.reason) == (None, "the methods share no learning rate")
    for row in view(found, "own_best_rate").values():
        assert (row.rank_low, row.reason) == (
            None,
            "one seed: nothing says how sure the rank is",
        )
        assert row.rank is not None


def test_two_methods_are_not_ranked() -> None:
    assert ranking.rows(made_up_runs(), underfit_fraction=0.9) == []
    assert ranking_agreement.agreement([]) == []


def test_agreement_counts_concordant_pairs() -> None:
    found = ranking.rows(runs(), underfit_fraction=0.9)
    (row,) = [
        row
        for row in ranking_agreement.agreement(found)
        if (row.view_a, row.view_b, row.metric) == ("equal_learning_rate", "own_best_rate", OUTCOME)
    ]
    a, b = (values(view(found, name)) for name in ("equal_learning_rate", "own_best_rate"))
    signs = [
        np.sign((a[m] - a[n]) * (b[m] - b[n])) for i, m in enumerate(METHODS) for n in METHODS[:i]
    ]
    assert row.kendall_tau == pytest.approx(sum(signs) / len(signs))
    assert (row.best_a, row.best_b) == (a.idxmax(), b.idxmax())
    assert row.n_methods == len(METHODS)


def test_agreement_is_undefined_for_too_few_or_equal_values() -> None:
    frame = runs()
    frame[OUTCOME] = 50.0
    rows = ranking_agreement.agreement(ranking.rows(frame, underfit_fraction=0.9))
    reasons = {row.reason for row in rows if row.metric == OUTCOME}
    assert "all methods have one value in a view" in reasons
    frame.loc[frame["method"] != "lora", MOVED] = np.nan
    rows = ranking_agreement.agreement(ranking.rows(frame, underfit_fraction=0.9))
    few = [row for row in rows if "equal_weight_drift" in (row.view_a, row.view_b)]
    assert {row.reason for row in few} == {"1 methods have a rank in both views"}
