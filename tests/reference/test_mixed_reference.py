"""The model of the whole grid against statsmodels' formula interface and closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from run_frames import SEEDS, made_up_runs, shuffled
from scipy import stats

from clipdrift.analysis import mixed
from clipdrift.analysis.seed_variance import Likelihood

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


def test_mixed_model_agrees_with_the_formula_interface() -> None:
    frame = with_seed_effect(made_up_runs(), 6.0)
    rows = {row["term"]: row for row in mixed.rows(frame, metrics=[RETENTION])}
    model = smf.mixedlm(FORMULA, for_formula(frame), groups="seed").fit(reml=True, method="powell")
    assert len(rows) == 8
    for term, name in TERMS.items():
        row = rows[term]
        assert (row["model"], row["model_reason"], row["n"], row["n_seeds"]) == (
            "mixedlm",
            None,
            80,
            5,
        )
        # Two optimisers stop within 1e-4 of the same seed variance, which the errors inherit.
        assert row["estimate"] == pytest.approx(model.fe_params[name], rel=1e-6, abs=1e-8)
        assert row["se"] == pytest.approx(model.bse_fe[name], rel=1e-3)
    assert rows["log10_lr"]["seed_sd"] == pytest.approx(model.cov_re.iloc[0, 0] ** 0.5, rel=1e-3)
    row = rows[INTERACTION]
    assert row["p"] == pytest.approx(2 * stats.norm.sf(abs(row["statistic"])), rel=1e-9)
    assert row["ci_high"] == pytest.approx(
        row["estimate"] + 1.959963984540054 * row["se"], rel=1e-9
    )


def test_balanced_seed_variance_has_a_closed_form() -> None:
    """Balanced one-way layout: REML equals the ANOVA estimator (MSB / MSW - 1) / m."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 8)
    y = rng.normal(size=48) + np.repeat(rng.normal(size=6), 8)
    table = y.reshape(6, 8)
    between = 8 * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    found = Likelihood(np.ones((48, 1)), y, groups).best_ratio()
    assert found == pytest.approx((between / within - 1) / 8, rel=1e-5)  # line search


def test_fallback_without_seed_variance_is_least_squares_with_cluster_errors() -> None:
    frame = made_up_runs()
    # Seeds sum to the same in every cell: less variance between seeds than chance would give.
    frame[RETENTION] -= frame.groupby("seed")[RETENTION].transform("mean")
    rows = {row["term"]: row for row in mixed.rows(frame, metrics=[RETENTION])}
    data = for_formula(frame)
    codes = np.unique(data["seed"], return_inverse=True)[1]
    model = smf.ols(FORMULA, data).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    for term in ("log10_lr", INTERACTION):
        row, name = rows[term], TERMS[term]
        assert row["model"] == "ols_cluster"
        assert row["model_reason"] == "no variance between seeds beyond that within them"
        assert (row["df"], row["seed_sd"]) == (4, None)
        assert row["estimate"] == pytest.approx(model.params[name], rel=1e-9)
        assert row["se"] == pytest.approx(model.bse[name], rel=1e-9)
        assert row["p"] == pytest.approx(2 * stats.t.sf(abs(row["statistic"]), 4), rel=1e-9)


def test_metrics_of_any_unit_give_the_same_tests() -> None:
    frame = with_seed_effect(made_up_runs(), 6.0)
    small = frame.assign(**{RETENTION: frame[RETENTION] * 1e-6})
    for a, b in zip(
        mixed.rows(frame, metrics=[RETENTION]), mixed.rows(small, metrics=[RETENTION]), strict=True
    ):
        assert b["estimate"] == pytest.approx(a["estimate"] * 1e-6, rel=1e-6)
        assert b["statistic"] == pytest.approx(a["statistic"], rel=1e-4)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (made_up_runs(seeds=(7,)), "one seed: nothing to tell differences from noise"),
        (made_up_runs().assign(**{RETENTION: 50.0}), "the metric does not vary"),
        (made_up_runs().assign(**{RETENTION: np.nan}), "no value in these records"),
        (small().query("(learning_rate < 5e-6) == (seed == 7)"), "4 runs for 4 terms"),
        (
            small().query("method == 'full_ft' or learning_rate < 5e-6"),
            "the grid has gaps: some terms cannot be told apart",
        ),
    ],
)
def test_what_cannot_be_fitted_is_null_with_a_reason(frame: pd.DataFrame, reason: str) -> None:
    (row,) = mixed.rows(frame, metrics=[RETENTION])
    assert (row["reason"], row["term"], row["estimate"], row["model"]) == (reason, None, None, None)


def test_metric_fixed_by_the_design_leaves_nothing_to_test() -> None:
    frame = made_up_runs()
    frame[RETENTION] = 100 + 20 * np.log10(frame["learning_rate"])
    (row,) = mixed.rows(frame, metrics=[RETENTION])
    assert row["reason"].startswith("method, learning rate and target determine the metric")


def test_one_method_and_one_rate_leave_out_their_terms() -> None:
    terms = {
        row["term"] for row in mixed.rows(made_up_runs(methods=("lora",)), metrics=[RETENTION])
    }
    assert terms == {"intercept", "target[eurosat]", "log10_lr", "log10_lr:target[eurosat]"}
    terms = {row["term"] for row in mixed.rows(made_up_runs(rates=(1e-5,)), metrics=[RETENTION])}
    assert terms == {"intercept", "target[eurosat]", "method[lora]", "method[lora]:target[eurosat]"}


def test_order_changes_nothing_and_backbones_stay_apart() -> None:
    one = with_seed_effect(made_up_runs(backbone="b32"), 6.0)
    both = pd.concat([one, made_up_runs(backbone="b16", rng_seed=9)], ignore_index=True)
    rows = mixed.rows(both)
    assert mixed.rows(shuffled(both)) == rows
    assert [row for row in rows if row["backbone"] == "b32"] == mixed.rows(one)
