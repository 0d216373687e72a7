"""The model of the whole grid against fits per seed, its definition, and simulated nulls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from run_frames import SEEDS, made_up_runs, shuffled
from scipy import stats
from scipy.linalg import fractional_matrix_power

from clipdrift.analysis.questions import mixed

RETENTION = "transfer.cifar100.retention_pct"
INTERACTION = "method[lora]:log10_lr"


def with_seed_effect(frame: pd.DataFrame, size: float) -> pd.DataFrame:
    shift = dict(zip(SEEDS, size * np.array([-1.5, -0.5, 0.0, 0.7, 1.3]), strict=True))
    return frame.assign(**{RETENTION: frame[RETENTION] + frame["seed"].map(shift)})


def small() -> pd.DataFrame:
    return made_up_runs(targets=("eurosat",), seeds=(7, 11), rates=(1e-6, 1e-5))


def for_formula(frame: pd.DataFrame) -> pd.DataFrame:
    rate = np.log10(frame["learning_rate"])
    centred = rate - (rate.min() + rate.max()) / 2
    return pd.DataFrame(
        {
            "y": frame[RETENTION],
            "rate": centred,
            "method": frame["method"],
            "target": frame["target"],
            "seed": frame["seed"],
        }
    )


FORMULA = "y ~ method * rate * C(target, Sum)"
TERMS = {
    "intercept": "Intercept",
    "target[eurosat]": "C(target, Sum)[S.eurosat]",
    "log10_lr": "rate",
    "method[lora]": "method[T.lora]",
    INTERACTION: "method[T.lora]:rate",
    "method[lora]:log10_lr:target[eurosat]": "method[T.lora]:rate:C(target, Sum)[S.eurosat]",
}


def test_every_seed_has_its_own_coefficients_and_seeds_are_the_sample() -> None:
    """The same by hand: a least-squares fit per seed, then a one-sample t test of each term."""
    frame = with_seed_effect(made_up_runs(), 6.0)
    rows = {row.term: row for row in mixed.rows(frame, metrics=[RETENTION])}
    data = for_formula(frame)
    own = pd.DataFrame([smf.ols(FORMULA, part).fit().params for _, part in data.groupby("seed")])
    assert len(rows) == 8
    for term, name in TERMS.items():
        row = rows[term]
        found = (row.model, row.model_reason, row.n, row.n_seeds, row.df)
        assert found == ("random_coefficients", None, 80, 5, 4)
        test = stats.ttest_1samp(own[name], 0)
        assert row.estimate == pytest.approx(own[name].mean(), rel=1e-9)
        assert row.estimate / row.se == pytest.approx(test.statistic, rel=1e-9)
        assert row.p == pytest.approx(test.pvalue, rel=1e-9)
        ends = test.confidence_interval(0.95)
        assert (row.ci_low, row.ci_high) == pytest.approx(tuple(ends), rel=1e-9)
    # With the same runs for every seed, the mixed model's generalised least squares is this too.
    model = smf.mixedlm(FORMULA, data, groups="seed").fit(reml=True, method="powell")
    estimates = {term: row.estimate for term, row in rows.items() if term in TERMS}
    expected = {term: model.fe_params[name] for term, name in TERMS.items()}
    assert estimates == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_seeds_with_gaps_have_cr2_errors_and_satterthwaite_df() -> None:
    """The definition of Bell & McCaffrey with whole n x n matrices."""
    frame = made_up_runs(targets=("eurosat",))
    gone = (frame["seed"] == 7) & (frame["learning_rate"] > 1e-5)
    gone |= (frame["seed"] == 11) & (frame["method"] == "lora") & (frame["learning_rate"] < 2e-6)
    frame = frame[~gone].reset_index(drop=True)
    rows = {row.term: row for row in mixed.rows(frame, metrics=[RETENTION])}
    data = for_formula(frame)
    ols = smf.ols("y ~ method * rate", data).fit()
    x, seeds = ols.model.exog, data["seed"].to_numpy()
    inverse = np.linalg.inv(x.T @ x)
    rest = np.eye(len(x)) - x @ inverse @ x.T
    for name, term in (("rate", "log10_lr"), ("method[T.lora]:rate", INTERACTION)):
        c = np.array(ols.model.exog_names) == name
        variance, spans = 0.0, []
        for seed in sorted(set(seeds)):
            at = seeds == seed
            half = fractional_matrix_power(rest[np.ix_(at, at)], -0.5)
            variance += float(c @ inverse @ x[at].T @ half @ ols.resid[at]) ** 2
            spans.append(rest[:, at] @ half @ x[at] @ inverse @ c)
        values = np.linalg.eigvalsh(np.array(spans) @ np.array(spans).T)
        row = rows[term]
        assert row.model == "ols_cr2"
        assert row.model_reason == "seeds differ in the runs they have"
        assert row.estimate == pytest.approx(ols.params[name], rel=1e-9)
        assert row.se == pytest.approx(variance**0.5, rel=1e-9)
        assert row.df == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)
        assert row.p == pytest.approx(2 * stats.t.sf(abs(row.estimate) / row.se, row.df), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("shared", ["nothing", "intercept", "difference"])
@pytest.mark.parametrize("gap", [False, True])
def test_under_the_null_one_test_in_twenty_rejects(n_seeds: int, shared: str, gap: bool) -> None:
    """2,000 simulated studies of equal methods, 4 rates, as so many metrics of one design.

    Whatever a seed's runs have in common: nothing, their level, or how its two methods differ,
    which a random intercept would take for four replicates.
    """
    rng = np.random.default_rng(3)
    frame = made_up_runs(targets=("eurosat",), seeds=tuple(range(n_seeds)))
    if gap:
        lost = (frame["seed"] == 1) & (frame["learning_rate"] > 1e-5) & (frame["method"] == "lora")
        frame = frame[~lost].reset_index(drop=True)
    seeds = frame["seed"].to_numpy()
    y = rng.normal(size=(len(frame), 2_000)) - 20 * np.log10(frame[["learning_rate"]].to_numpy())
    if shared != "nothing":
        side = np.where(frame["method"] == "lora", 1.0, 0.0 if shared == "difference" else 1.0)
        y += 2 * side[:, None] * rng.normal(size=(n_seeds, 2_000))[seeds]
    names = [f"drift.null_{i}" for i in range(y.shape[1])]
    runs = pd.concat([frame, pd.DataFrame(y, columns=names)], axis=1)
    rows = [r for r in mixed.rows(runs, metrics=names) if str(r.term).startswith("method")]
    for term in ("method[lora]", INTERACTION):
        p = np.array([row.p for row in rows if row.term == term])
        assert len(p) == 2_000
        assert 0.03 < (p < 0.05).mean() < 0.07, term  # Monte Carlo error 0.005


def test_metrics_of_any_unit_give_the_same_tests() -> None:
    frame = with_seed_effect(made_up_runs(), 6.0)
    small = frame.assign(**{RETENTION: frame[RETENTION] * 1e-6})
    for a, b in zip(
        mixed.rows(frame, metrics=[RETENTION]), mixed.rows(small, metrics=[RETENTION]), strict=True
    ):
        assert b.estimate == pytest.approx(a.estimate * 1e-6, rel=1e-6)
        assert b.p == pytest.approx(a.p, rel=1e-3)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (made_up_runs(seeds=(7,)), "one seed: nothing to tell differences from noise"),
        (made_up_runs().assign(**{RETENTION: 50.0}), "the metric does not vary"),
        (made_up_runs().assign(**{RETENTION: np.nan}), "no value in these records"),
        (small().query("(learning_rate < 5e-6) == (seed == 7)"), "4 runs for 4 terms"),
        (
            small().query("method == 'full_ft' or learning_rate < 5e-6"),
            "the grid has gaps: some terms cannot be separated",
        ),
    ],
)
def test_what_cannot_be_fitted_is_null_with_a_reason(frame: pd.DataFrame, reason: str) -> None:
    (row,) = mixed.rows(frame, metrics=[RETENTION])
    assert (row.reason, row.term, row.estimate, row.model) == (reason, None, None, None)


def test_metric_fixed_by_the_design_leaves_nothing_to_test() -> None:
    frame = made_up_runs()
    frame[RETENTION] = 100 + 20 * np.log10(frame["learning_rate"])
    (row,) = mixed.rows(frame, metrics=[RETENTION])
    assert row.reason.startswith("method, learning rate and target determine the metric")


def test_one_method_and_one_rate_leave_out_their_terms() -> None:
    terms = {row.term for row in mixed.rows(made_up_runs(methods=("lora",)), metrics=[RETENTION])}
    assert terms == {"intercept", "target[eurosat]", "log10_lr", "log10_lr:target[eurosat]"}
    terms = {row.term for row in mixed.rows(made_up_runs(rates=(1e-5,)), metrics=[RETENTION])}
    assert terms == {"intercept", "target[eurosat]", "method[lora]", "method[lora]:target[eurosat]"}


def test_order_changes_nothing_and_backbones_stay_apart() -> None:
    one = with_seed_effect(made_up_runs(backbone="b32"), 6.0)
    both = pd.concat([one, made_up_runs(backbone="b16", rng_seed=9)], ignore_index=True)
    rows = mixed.rows(both)
    assert mixed.rows(shuffled(both)) == rows
    assert [row for row in rows if row.backbone == "b32"] == mixed.rows(one)
