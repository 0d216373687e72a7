"""Paired tests, equivalence and their building blocks against scipy and statsmodels."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import SEEDS, made_up_runs, shuffled
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import equivalence, paired
from clipdrift.analysis.statistics.differences import whole_grid
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import matched_pairs
from clipdrift.analysis.statistics.wilcoxon import MAX_EXACT, signed_rank
from clipdrift.records import RunRecord

RETENTION = "transfer.cifar100.retention_pct"
VAL = "val_accuracy"


def values(frame: pd.DataFrame, target: str, method: str, rate: float | None, metric: str) -> Any:
    part = frame[(frame["target"] == target) & (frame["method"] == method)]
    if rate is not None:
        part = part[part["learning_rate"] == rate]
    return part.sort_values(["learning_rate", "seed"])[metric].to_numpy()


def by_scope(frame: pd.DataFrame, row: Any, method: str, rates: list[float]) -> Any:
    """One value per seed: at a rate, or its mean over rates; of all_pairs one per run."""
    part = frame[(frame["target"] == row.target) & (frame["method"] == method)]
    part = part[part["learning_rate"].isin(rates)].sort_values(["learning_rate", "seed"])
    if row.scope == "all_pairs":
        return part[row.metric].to_numpy()
    return part.groupby("seed")[row.metric].mean().to_numpy()


def test_every_row_agrees_with_scipy() -> None:
    frame = made_up_runs()
    rows = paired.rows(frame)
    n_metrics = len(paired.default_metrics(frame))
    assert len(rows) == 2 * n_metrics * 7  # targets, metrics; four rates and three scopes over them
    for row in rows:
        a, b = (by_scope(frame, row, method, row.learning_rates) for method in ("full_ft", "lora"))
        t_test = stats.ttest_rel(a, b)
        assert row.n_pairs == 5 * len(row.learning_rates)
        assert row.n_seeds == 5
        assert row.mean_diff == pytest.approx((a - b).mean(), rel=1e-9)
        assert row.t == pytest.approx(t_test.statistic, rel=1e-9)
        assert row.p_t == pytest.approx(t_test.pvalue, rel=1e-9)
        if row.scope != "all_pairs":
            ends = t_test.confidence_interval(0.95)
            assert (row.ci_low, row.ci_high) == pytest.approx(tuple(ends), rel=1e-9)
        else:
            assert (row.ci_low, row.ci_high, row.p_holm) == (None, None, None)
            assert row.reason.startswith("learning rates are no replicates: no interval")
        exact = stats.wilcoxon(a, b, method="exact").pvalue
        assert row.p_wilcoxon == pytest.approx(exact, rel=1e-9)
        assert row.wilcoxon_floor == 2 * 0.5 ** len(a)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["per_lr", "grid_mean", "both_fit"])
def test_holm_agrees_with_statsmodels_in_each_family(scope: str) -> None:
    frame = made_up_runs(methods=("full_ft", "lora", "third"))
    rows = [row for row in paired.rows(frame) if row.scope == scope]
    n_tests = 3 * (4 if scope == "per_lr" else 1)
    for metric, question in (
        ("test_accuracy", "target_accuracy"),
        (RETENTION, "retention"),
        ("drift.extra_0", "drift"),
    ):
        family = [r for r in rows if (r.target, r.metric) == ("pets", metric)]
        assert len(family) == n_tests
        adjusted = multipletests([row.p_t for row in family], method="holm")[1]
        assert [row.p_holm for row in family] == pytest.approx(adjusted.tolist(), rel=1e-9)
        name = f"{question}: {n_tests} {scope} tests of {metric} on pets (clip)"
        assert {row.family for row in family} == {name}


def test_p_does_not_depend_on_columns_targets_or_backbones_beside() -> None:
    def found(frame: pd.DataFrame) -> dict[Any, Any]:
        rows = (r for r in paired.rows(frame) if (r.target, r.backbone) == ("pets", "clip"))
        return {(r.metric, r.scope, r.learning_rate): (r.p_holm, r.family) for r in rows}

    frame = made_up_runs()
    few = ["val_accuracy", "transfer.cifar10.retention_pct", "drift.extra_1", "drift.cka_mean"]
    alone = found(frame[frame["target"] == "pets"].drop(columns=few))
    both = found(pd.concat([frame, made_up_runs(backbone="b16", rng_seed=5)], ignore_index=True))
    assert alone.items() <= both.items()
    assert len(both) > len(alone)


def test_what_is_not_corrected_says_so() -> None:
    frame = made_up_runs()
    rows = {(r.metric, r.scope): r for r in paired.rows(frame, questions=["retention"])}
    no_question = "uncorrected: answers none of the questions asked"
    for metric in ("test_accuracy", "val_accuracy", "drift.cka_mean"):
        row = rows[metric, "grid_mean"]
        assert (row.p_holm, row.family) == (None, no_question)
        assert row.p_t is not None
    assert rows[RETENTION, "grid_mean"].p_holm is not None
    row = rows[RETENTION, "all_pairs"]
    assert (row.p_holm, row.family) == (
        None,
        "uncorrected: learning rates are no replicates",
    )
    val = {r.family for r in paired.rows(frame.assign(test_accuracy=np.nan), metrics=[VAL])}
    assert all(text and text.startswith(("target_accuracy: ", "uncorrected: l")) for text in val)


def test_one_seed_gives_no_interval_and_no_p_however_many_rates() -> None:
    rows = [*paired.rows(made_up_runs(seeds=(7,))), *equivalence.rows(made_up_runs(seeds=(7,)))]
    fields = ("ci_low", "ci_high", "p_t", "p_holm", "p_wilcoxon", "p_tost", "sd_diff")
    assert {getattr(row, field, None) for row in rows for field in fields} == {None}
    assert {row.reason for row in rows} == {"one seed: no spread"}
    assert all(row.mean_diff is not None for row in rows)


def test_over_the_grid_seeds_and_not_rates_are_the_sample() -> None:
    """An effect of the rate is no noise, an effect of the seed on the difference is."""
    frame = made_up_runs(targets=("eurosat",), methods=("full_ft", "lora"))
    first = frame["method"] == "full_ft"
    steep = frame["learning_rate"].map({1e-6: 0.0, 5e-6: 10.0, 1e-5: 20.0, 5e-5: 50.0})
    by_seed = frame["seed"].map(dict(zip(SEEDS, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True)))
    frame[RETENTION] = np.where(first, steep + by_seed, 0.0)
    rows = {r.scope: r for r in paired.rows(frame, metrics=[RETENTION]) if r.learning_rate is None}
    row = rows["grid_mean"]
    half = stats.t.ppf(0.975, 4) * math.sqrt(2.5 / 5)
    assert row.mean_diff == pytest.approx(23.0, rel=1e-12)
    assert (row.ci_low, row.ci_high) == pytest.approx((23 - half, 23 + half), rel=1e-9)
    assert rows["all_pairs"].t < row.t / 2  # here it takes the effect of rates for noise


N_IMAGES = 90
PHOTOGRAPHED = [with_images(record, N_IMAGES) for record in synthetic_records(targets=("digits",))]
KEPT = "transfer.cifar10.retention_pct"


def hits(method: str, rate: float, name: str) -> Any:
    """Right or wrong, seeds x images, from the bits of the records."""
    runs = (r for r in PHOTOGRAPHED if (r.method, r.learning_rate) == (method, rate))
    return np.array([run.result.correct[name].hits for run in runs], dtype=float)


def of_method(metric: str, method: str, rates: list[float], images: Any = slice(None)) -> Any:
    """A metric of every seed, its mean over rates, on some of the images."""
    place, _, kind = metric.rpartition(".")
    if kind != "retention_pct":
        return np.mean([hits(method, r, metric)[:, images].mean(1) for r in rates], axis=0)
    now = [hits(method, r, f"{place}.accuracy")[:, images].mean(1) for r in rates]
    before = [hits(method, r, f"{place}.baseline_accuracy")[:, images].mean(1) for r in rates]
    return 100 * np.mean(np.array(now) / np.array(before), axis=0)


def test_a_difference_of_accuracies_draws_the_images_that_both_methods_were_read_on() -> None:
    """Per image the difference of the answers, averaged over rates: a table of seeds x images."""
    frame, images = runs_frame(PHOTOGRAPHED), Images(PHOTOGRAPHED)
    rows = paired.rows(frame, metrics=["test_accuracy"], images=images)
    tost = equivalence.rows(frame, images=images, margins={"test_accuracy": 0.05})
    tested = [row for row in rows if row.scope != "all_pairs" and row.sd_diff]
    assert {row.scope for row in tested} == {"per_lr", "grid_mean", "both_fit"}
    for row in tested:
        z = np.mean(
            [
                hits("full_ft", r, row.metric) - hits("lora", r, row.metric)
                for r in row.learning_rates
            ],
            axis=0,
        )
        n_seeds, n = z.shape
        long = pd.DataFrame([(g, i, z[g, i]) for g in range(n_seeds) for i in range(n)])
        table = anova_lm(ols("z ~ C(g) + C(i)", long.set_axis(["g", "i", "z"], axis=1)).fit())
        seeds, _, both = table["mean_sq"] / z.size
        with_two = np.concatenate([z.mean(0), [1.0, -1.0]])  # one image won and one lost
        drawn = with_two.var(ddof=1) / (n + 2)
        shared = max(drawn - both, 0.0)
        assert (row.n_images, row.interval_over) == (N_IMAGES, "seeds and images")
        assert row.image_se == pytest.approx(drawn**0.5, rel=1e-9)
        assert row.mean_diff == pytest.approx(z.mean(), rel=1e-9)

        def half(level: float, seeds: float = seeds, shared: float = shared) -> float:
            a, b = (stats.t.ppf((1 + level) / 2, df) for df in (n_seeds - 1, n - 1))  # noqa: B023
            return float((a**2 * seeds + b**2 * shared) ** 0.5)

        assert row.ci_high - row.mean_diff == pytest.approx(half(0.95), rel=1e-9)
        assert half(1 - row.p_t) == pytest.approx(abs(z.mean()), rel=1e-6, abs=1e-12)
        assert (row.p_t < 0.05) == (row.ci_low > 0 or row.ci_high < 0)
        two = next(t for t in tost if (t.scope, t.learning_rate) == (row.scope, row.learning_rate))
        assert two.ci_high - two.mean_diff == pytest.approx(half(0.9), rel=1e-9)
        inside = two.ci_low > -0.05 and two.ci_high < 0.05
        assert (two.p_tost < 0.05) == inside == (two.result == "equivalent")
        far, two_sided = 0.05 - abs(z.mean()), 2 * min(two.p_tost, 1 - two.p_tost)
        assert (two.p_tost < 0.5) == (far > 0)
        assert half(1 - two_sided) == pytest.approx(abs(far), rel=1e-6)


def test_a_difference_of_retentions_has_the_jackknifes_error_from_images() -> None:
    frame, images = runs_frame(PHOTOGRAPHED), Images(PHOTOGRAPHED)
    rows = paired.rows(frame, metrics=[KEPT], images=images)
    (row,) = (row for row in rows if row.scope == "grid_mean")
    left = []
    for i in range(N_IMAGES):
        kept = np.arange(N_IMAGES) != i
        a, b = (of_method(KEPT, m, row.learning_rates, kept) for m in ("full_ft", "lora"))
        left.append((a - b).mean())
    squares = (N_IMAGES - 1) ** 2 * np.square(np.array(left) - np.mean(left)).sum()
    d = of_method(KEPT, "full_ft", row.learning_rates) - of_method(KEPT, "lora", row.learning_rates)
    assert row.mean_diff == pytest.approx(d.mean(), rel=1e-9)
    # As if one image more had been won and one lost, each 100 points of the baseline's accuracy.
    unit = 100 / hits("lora", 1e-5, "transfer.cifar10.baseline_accuracy").mean()
    expected = ((squares + 2 * unit**2) / (N_IMAGES + 1) / (N_IMAGES + 2)) ** 0.5
    assert row.image_se == pytest.approx(expected, rel=0.03)
    alone = stats.t.interval(0.95, 2, d.mean(), d.std(ddof=1) / 3**0.5)
    assert row.ci_low < alone[0] < alone[1] < row.ci_high


def test_without_single_answers_seeds_alone_are_drawn_and_the_row_says_so() -> None:
    metrics = ["test_accuracy", KEPT, "drift.gini_pct"]
    result = PHOTOGRAPHED[0].result.model_copy(update={"correct": {}})
    records = [PHOTOGRAPHED[0].model_copy(update={"result": result}), *PHOTOGRAPHED[1:]]
    frame = runs_frame(records)
    found = paired.rows(frame, metrics=metrics, images=Images(records))
    seeds = {(r.metric, r.scope, r.learning_rate): r for r in paired.rows(frame, metrics=metrics)}
    rate = records[0].learning_rate
    tested = [row for row in found if row.scope != "all_pairs" and row.sd_diff]
    assert len({row.interval_over for row in tested}) == 2
    for row in tested:
        drawn = row.interval_over == "seeds and images"
        assert drawn == (rate not in row.learning_rates and row.metric != "drift.gini_pct")
        if not drawn:
            assert (row.n_images, row.image_se, row.interval_over) == (None, None, "seeds")
            old = seeds[row.metric, row.scope, row.learning_rate]
            for field in ("ci_low", "ci_high", "t", "p_t"):
                assert getattr(row, field) == pytest.approx(getattr(old, field), rel=1e-12)
        said = "single images are not recorded: no error from images"
        assert (row.reason == said) == (not drawn and row.metric != "drift.gini_pct")


@pytest.mark.parametrize(
    ("there", "seeds", "rates"),
    [
        ([[1, 1, 1], [1, 1, 1]], [1, 1], [1, 1, 1]),
        ([[1, 1, 1], [1, 1, 0], [1, 1, 1]], [1, 1, 1], [1, 1, 0]),  # more seeds
        ([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]], [1, 1, 1], [1, 1, 1, 0]),
        ([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]], [1, 1, 1], [0, 0, 1, 1]),
        ([[1, 0], [0, 1]], [0, 1], [0, 1]),
        ([[0, 0], [0, 0]], [0, 0], [0, 0]),
    ],
)
def test_the_largest_part_of_the_grid_without_a_gap(
    there: list[list[int]], seeds: list[int], rates: list[int]
) -> None:
    found = whole_grid(np.array(there, dtype=bool))
    size = found[0].sum() * found[1].sum()
    assert np.array(there)[np.ix_(*found)].all()
    assert size == sum(seeds) * sum(rates)
    if sum(map(sum, there)) != 2:  # the two single pairs are as good
        assert ([int(x) for x in found[0]], [int(x) for x in found[1]]) == (seeds, rates)


def test_where_both_fit_other_rates_have_no_say() -> None:
    frame = made_up_runs(targets=("eurosat",))
    fitting = {"full_ft": (1e-6, 5e-6, 1e-5), "lora": (5e-6, 1e-5, 5e-5)}
    fits = [
        rate in fitting[m] for m, rate in zip(frame["method"], frame["learning_rate"], strict=True)
    ]
    frame["test_accuracy"] = np.where(fits, 0.9, 0.5)
    rows = {r.scope: r for r in paired.rows(frame, metrics=[RETENTION])}
    assert rows["both_fit"].learning_rates == [5e-6, 1e-5]
    assert rows["grid_mean"].learning_rates == [1e-6, 5e-6, 1e-5, 5e-5]
    part = paired.rows(frame[frame["learning_rate"].isin([5e-6, 1e-5])], metrics=[RETENTION])
    alone = next(r for r in part if r.scope == "grid_mean")
    for field in ("n_pairs", "mean_diff", "ci_low", "ci_high", "p_t", "run_ids"):
        assert getattr(rows["both_fit"], field) == getattr(alone, field)


def test_where_both_fit_nowhere_or_nobody_knows_there_is_a_reason() -> None:
    frame = made_up_runs(targets=("eurosat",))
    frame["test_accuracy"] = np.where(frame["method"] == "lora", 0.5, 0.9)
    for told, reason in (
        (frame, "both methods fit at none of the 4 rates"),
        (
            frame.assign(test_accuracy=np.nan, val_accuracy=np.nan),
            "no target accuracy: whether the methods fit is not known",
        ),
    ):
        rows = [r for r in paired.rows(told, metrics=[RETENTION]) if r.scope == "both_fit"]
        assert [(r.reason, r.mean_diff, r.n_pairs) for r in rows] == [(reason, None, 0)]


@pytest.mark.parametrize("df", [2, 3, 4, 11, 40])
def test_hedges_factor_makes_dz_unbiased(df: int) -> None:
    """E[t] of a noncentral t with noncentrality delta sqrt(n) is sqrt(n) delta / J(df)."""
    n = df + 1
    expected = stats.nct.mean(df, 0.7 * math.sqrt(n)) / math.sqrt(n)
    assert paired.hedges_factor(df) * expected == pytest.approx(0.7, rel=1e-9)


def sign_patterns(d: np.ndarray[Any, Any]) -> float:
    """Two-sided p over all 2^n sign patterns, written out."""
    d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))
    observed = ranks[d > 0].sum()
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product([False, True], repeat=len(d))
    ]
    below = sum(total <= observed for total in sums)
    above = sum(total >= observed for total in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


@pytest.mark.parametrize(
    "d",
    [
        [1.0],
        [1.0, -1.0],
        [0.5, 0.5, 0.5],
        [1.0, 1.0, -2.0, 2.0, 3.0],
        [0.0, 1.0, -2.0, 3.0, 0.0],
        [1.0, -1.0, 1.0, -1.0, 2.0, 2.0, 2.0, -5.0],
    ],
)
def test_wilcoxon_with_ties_and_zeros_is_exact(d: list[float]) -> None:
    assert signed_rank(np.array(d)) == pytest.approx(sign_patterns(np.array(d)), rel=1e-12)


def test_wilcoxon_of_many_pairs_is_the_normal_approximation() -> None:
    d = np.round(np.random.default_rng(0).normal(0.2, 1, size=MAX_EXACT + 30), 1)
    expected = stats.wilcoxon(d, method="asymptotic", correction=False).pvalue
    assert signed_rank(d) == pytest.approx(expected, rel=1e-9)


def test_wilcoxon_takes_rounding_for_ties() -> None:
    # Equal differences of accuracies, unequal only because decimals are not binary.
    d = np.array([0.99 - 0.98, -(0.94 - 0.93), 0.03])
    assert abs(d[0]) > abs(d[1])
    assert signed_rank(d) == 0.5
    assert signed_rank(d, rounding=1e-13) == sign_patterns(np.array([1.0, -1.0, 3.0])) == 0.75


def test_wilcoxon_of_no_difference_is_undefined() -> None:
    assert signed_rank(np.zeros(4)) is None


def test_equivalence_agrees_with_statsmodels() -> None:
    frame = made_up_runs()
    rows = [row for row in equivalence.rows(frame) if row.metric == RETENTION]
    assert len(rows) == 12
    rates = {(r.target, r.scope, r.learning_rate): r.learning_rates for r in paired.rows(frame)}
    for row in rows:
        key = (row.target, row.scope, row.learning_rate)
        a, b = (by_scope(frame, row, m, rates[key]) for m in ("full_ft", "lora"))
        p = ttost_paired(a, b, -2.0, 2.0)[0]
        assert row.p_tost == pytest.approx(p, rel=1e-9)
        low, high = stats.ttest_rel(a, b).confidence_interval(0.9)
        assert (row.ci_low, row.ci_high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize(
    ("gap", "result"), [(0.0, "equivalent"), (0.05, "different"), (0.01, "inconclusive")]
)
def test_equivalence_has_three_results(gap: float, result: str) -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,))
    first = frame["method"] == "full_ft"
    jitter = dict(zip(SEEDS, (0.001, -0.001, 0.0005, -0.0005, 0.0), strict=True))
    frame["test_accuracy"] = 0.9 + np.where(first, gap + frame["seed"].map(jitter), 0.0)
    rows = equivalence.rows(frame, margins={"test_accuracy": 0.01})
    assert [(row.scope, row.result) for row in rows] == [
        ("per_lr", result),
        ("grid_mean", result),
        ("both_fit", result),
    ]


def test_zero_variance_is_null_with_a_reason() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,))
    frame["test_accuracy"] = np.where(frame["method"] == "full_ft", 0.93, 0.90)
    row = next(r for r in paired.rows(frame) if r.metric == "test_accuracy")
    assert row.mean_diff == pytest.approx(0.03)
    undefined = ("ci_low", "ci_high", "cohen_dz", "hedges_gz", "t", "p_t", "p_holm")
    assert [getattr(row, key) for key in undefined] == [None] * 7
    assert row.reason == "the differences do not vary: no t test"
    assert row.p_wilcoxon == 2 / 32
    tost = next(r for r in equivalence.rows(frame) if r.metric == "test_accuracy")
    assert (tost.p_tost, tost.result) == (None, None)


def test_differences_equal_but_for_rounding_have_no_variance() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,))
    base = frame["seed"].map(dict(zip(SEEDS, (0.80, 0.81, 0.9, 0.7, 0.6), strict=True)))
    frame["test_accuracy"] = base + np.where(frame["method"] == "full_ft", 0.01, 0.0)
    row = next(r for r in paired.rows(frame) if r.metric == "test_accuracy")
    assert (row.t, row.sd_diff) == (None, 0.0)


def test_missing_seeds_drop_the_pair() -> None:
    frame = made_up_runs(targets=("eurosat",))
    gone = (frame["method"] == "lora") & (frame["seed"] == 7) & (frame["learning_rate"] == 1e-5)
    rows = [r for r in paired.rows(frame[~gone]) if r.metric == RETENTION]
    by_lr = {row.learning_rate: row for row in rows if row.scope in ("per_lr", "grid_mean")}
    assert (by_lr[1e-5].n_pairs, by_lr[1e-6].n_pairs) == (4, 5)
    assert (by_lr[None].n_pairs, by_lr[None].n_seeds) == (16, 4)
    a = values(frame, "eurosat", "full_ft", 1e-5, RETENTION)[1:]
    b = values(frame, "eurosat", "lora", 1e-5, RETENTION)[1:]
    assert by_lr[1e-5].t == pytest.approx(stats.ttest_rel(a, b).statistic, rel=1e-9)


def test_undefined_values_drop_the_pair_for_that_metric_only() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,))
    frame.loc[frame.index[0], RETENTION] = np.nan
    frame.loc[frame.index[1], RETENTION] = np.inf
    rows = {row.metric: row for row in paired.rows(frame) if row.scope == "per_lr"}
    assert rows[RETENTION].n_pairs == 3
    assert rows["test_accuracy"].n_pairs == 5


@pytest.mark.parametrize(("varied", "n_pairs"), [((), 2), (("head_init",), 3)])
def test_runs_under_different_conditions_are_not_paired(
    make_records: Callable[..., list[RunRecord]], varied: tuple[str, ...], n_pairs: int
) -> None:
    records = make_records(targets=("landcover",), rates=(1e-5,))
    records[0].fingerprints["head_init"] = "other"
    del records[1].fingerprints["data"]  # unknown is not different
    frame = runs_frame(records)
    (pairs,) = matched_pairs(frame, varied)
    assert len(pairs.first) == n_pairs
    row = next(r for r in paired.rows(frame, varied=varied) if r.scope == "per_lr")
    assert row.n_pairs == n_pairs
    assert [drop.why for drop in pairs.dropped] == ([] if varied else ["different head_init"])


def test_one_pair_two_pairs_and_one_method() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,), seeds=(7,))
    (row,) = (r for r in paired.rows(frame, metrics=[RETENTION]) if r.scope == "per_lr")
    assert (row.n_pairs, row.t, row.reason) == (1, None, "one seed: no spread")
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,), seeds=(7, 11))
    (row,) = (r for r in paired.rows(frame, metrics=[RETENTION]) if r.scope == "per_lr")
    assert row.t is not None
    assert (row.hedges_gz, row.reason) == (
        None,
        "two seeds: Hedges' correction is undefined",
    )
    assert paired.rows(frame[frame["method"] == "lora"]) == []


def test_metric_that_nobody_measured_has_no_usable_pair() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-5,)).assign(test_accuracy=np.nan)
    for answer in (paired.rows, equivalence.rows):
        for row in answer(frame):
            if row.metric == "test_accuracy" and row.scope != "both_fit":
                assert (row.n_pairs, row.mean_diff) == (0, None)
                assert row.reason == "no usable pair"


def test_backbones_and_references_are_never_paired() -> None:
    one, other = made_up_runs(backbone="b32"), made_up_runs(backbone="b16", rng_seed=5)
    reference = made_up_runs(methods=("linear_probe",)).assign(role="reference", backbone="b32")
    rows = paired.rows(pd.concat([one, other, reference], ignore_index=True))
    assert {row.backbone for row in rows} == {"b16", "b32"}
    assert {(row.method_a, row.method_b) for row in rows} == {("full_ft", "lora")}
    alone = {(r.target, r.metric, r.scope, r.learning_rate): r.t for r in paired.rows(one)}
    pooled_with = {
        (r.target, r.metric, r.scope, r.learning_rate): r.t for r in rows if r.backbone == "b32"
    }
    assert alone == pooled_with


def test_order_of_rows_changes_nothing() -> None:
    frame = made_up_runs()
    assert paired.rows(shuffled(frame)) == paired.rows(frame)
    assert equivalence.rows(shuffled(frame)) == equivalence.rows(frame)
