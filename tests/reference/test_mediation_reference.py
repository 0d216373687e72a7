"""Mediation against statsmodels OLS, on all seeds and without each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from run_frames import made_up_runs, shuffled, t_by_leaving_out, without_each_seed

from clipdrift.analysis.questions import mediation

OUTCOME = "transfer.cifar100.retention_pct"
MEDIATOR = "drift.cls_entropy_pct"


def pick(rows: Sequence[Any], target: str = "pets", mediator: str = MEDIATOR) -> Any:
    found = [
        row
        for row in rows
        if (row.target, row.mediator, row.outcome) == (target, mediator, OUTCOME)
    ]
    assert len(found) == 1
    return found[0]


def paths(frame: pd.DataFrame) -> dict[str, float]:
    """The three models fitted one by one."""
    data = pd.DataFrame(
        {
            "m": (frame["method"] == "lora").astype(float),
            "lr": np.log10(frame["learning_rate"]),
            "d": frame[MEDIATOR],
            "y": frame[OUTCOME],
        }
    )
    mediator = smf.ols("d ~ m + lr", data).fit()
    outcome = smf.ols("y ~ m + d + lr", data).fit()
    total = smf.ols("y ~ m + lr", data).fit()
    return {
        "direct": outcome.params["m"],
        "total": total.params["m"],
        "indirect": mediator.params["m"] * outcome.params["d"],
        "vanishing_rho": np.corrcoef(mediator.resid, total.resid)[0, 1],
    }


@pytest.mark.parametrize("target", ["eurosat", "pets"])
def test_paths_are_those_of_ols(target: str) -> None:
    frame = made_up_runs()
    row = pick(mediation.rows(frame), target)
    expected = paths(frame[frame["target"] == target])
    for key, value in expected.items():
        assert getattr(row, key) == pytest.approx(value, rel=1e-9), key
    assert row.total == pytest.approx(row.direct + row.indirect, rel=1e-12)
    assert (row.method_a, row.method_b) == ("full_ft", "lora")
    assert (row.n, row.n_seeds, row.reason) == (40, 5, None)


def test_intervals_are_those_of_models_without_each_seed() -> None:
    frame = made_up_runs(targets=("pets",))
    row = pick(mediation.rows(frame))
    whole, *left = (paths(part) for part in (frame, *without_each_seed(frame)))
    for key in ("indirect", "direct"):
        low, high, _ = t_by_leaving_out(whole[key], [one[key] for one in left])
        ends = [getattr(row, f"{key}_ci_{end}") for end in ("low", "high")]
        assert ends == pytest.approx([low, high], rel=1e-9)


def test_an_effect_known_by_construction_is_found() -> None:
    frame = made_up_runs(targets=("pets",), seeds=tuple(range(8)))
    lora = (frame["method"] == "lora").to_numpy(dtype=float)
    rng = np.random.default_rng(2)
    frame[MEDIATOR] = 2 * lora + rng.normal(size=len(frame)) * 0.1
    frame[OUTCOME] = 80 - 5 * frame[MEDIATOR] + 3 * lora + rng.normal(size=len(frame)) * 0.1
    row = pick(mediation.rows(frame))
    assert row.direct == pytest.approx(3, abs=1)
    assert row.indirect_ci_low < -10 < row.indirect_ci_high


def test_the_sensitivity_figure_zeroes_theorem_4_of_imai_and_others() -> None:
    frame = made_up_runs(targets=("pets",))
    row = pick(mediation.rows(frame))
    data = pd.DataFrame(
        {
            "m": (frame["method"] == "lora").astype(float),
            "lr": np.log10(frame["learning_rate"]),
            "d": frame[MEDIATOR],
            "y": frame[OUTCOME],
        }
    )
    total, mediator = (smf.ols(f"{name} ~ m + lr", data).fit() for name in "yd")
    sigma1, sigma2 = total.resid.std(), mediator.resid.std()
    tilde = np.corrcoef(total.resid, mediator.resid)[0, 1]

    def indirect(rho: float) -> float:
        shrink = np.sqrt((1 - tilde**2) / (1 - rho**2))
        return float(mediator.params["m"] * sigma1 / sigma2 * (tilde - rho * shrink))

    assert indirect(0.0) == pytest.approx(row.indirect, rel=1e-9)
    assert indirect(row.vanishing_rho) == pytest.approx(0, abs=1e-12 * abs(row.indirect))


def test_units_of_the_mediator_do_not_matter() -> None:
    frame = made_up_runs(targets=("pets",))
    row = pick(mediation.rows(frame))
    frame[MEDIATOR] = frame[MEDIATOR] * 1e-9 + 1e-3
    scaled = pick(mediation.rows(frame))
    for key in ("indirect", "indirect_ci_low", "indirect_ci_high", "direct", "vanishing_rho"):
        # Nine digits of the mediator are spent on its offset; the rest is what is left of float64.
        assert getattr(scaled, key) == pytest.approx(getattr(row, key), rel=1e-6), key


def test_the_order_of_the_rows_changes_no_digit() -> None:
    frame = made_up_runs()
    ours = mediation.rows(frame)
    assert mediation.rows(shuffled(frame)) == ours


def test_one_method_has_no_mediation() -> None:
    assert mediation.rows(made_up_runs(methods=("lora",))) == []


def test_one_learning_rate_drops_the_covariate() -> None:
    frame = made_up_runs(targets=("pets",), rates=(1e-5,))
    row = pick(mediation.rows(frame))
    lora = (frame["method"] == "lora").astype(float)
    expected = frame.loc[lora == 1, OUTCOME].mean() - frame.loc[lora == 0, OUTCOME].mean()
    assert row.total == pytest.approx(expected, rel=1e-9)
    assert row.n == 10


def test_one_seed_has_no_interval() -> None:
    row = pick(mediation.rows(made_up_runs(seeds=(7,))))
    assert row.indirect is not None
    assert (row.indirect_ci_low, row.reason) == (None, "one seed: no interval")


def test_a_mediator_that_method_and_rate_determine_is_null_with_a_reason() -> None:
    frame = made_up_runs(targets=("pets",))
    frame[MEDIATOR] = np.where(frame["method"] == "lora", 0.1, 0.3)
    row = pick(mediation.rows(frame))
    assert (row.indirect, row.vanishing_rho) == (None, None)
    assert row.total is not None
    assert row.reason == "mediator or outcome is determined by method and learning rate"


def test_too_few_runs_and_no_common_rate() -> None:
    frame = made_up_runs(targets=("pets",), rates=(1e-5, 1e-4), seeds=(7,))
    reason = "4 runs of the two methods do not determine the model"
    assert pick(mediation.rows(frame)).reason == reason
    frame.loc[frame["method"] == "lora", "learning_rate"] *= 2
    row = pick(mediation.rows(frame))
    assert (row.n, row.indirect) == (0, None)


def test_runs_without_the_mediator_are_left_out_of_its_models_only() -> None:
    frame = made_up_runs(targets=("pets",))
    whole = mediation.rows(frame)
    frame.loc[[0, 1], MEDIATOR] = [np.nan, np.inf]
    rows = mediation.rows(frame)
    expected = paths(frame.drop(index=[0, 1]))
    assert pick(rows).n == 38
    assert pick(rows).indirect == pytest.approx(expected["indirect"], rel=1e-9)
    other = "drift.cka_mean"
    assert pick(rows, mediator=other) == pick(whole, mediator=other)
