"""Published figures beside ours, on a study made from the published figures themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import RATES, SEEDS, shuffled

from clipdrift.analysis import reproduction

# Typed from the table of the paper, in per cent: accuracy, entropy change, CIFAR-100.
EUROSAT_FULL_FT = ([98.82, 99.11, 99.13, 98.79], [1.83, 0.41, -0.12, -3.99])
PETS_LORA_CIFAR = [60.24, 60.57, 59.34, 51.91]
BLOCKS = [("eurosat", "full_ft"), ("eurosat", "lora"), ("pets", "full_ft"), ("pets", "lora")]


def study(offset: float = 0.0) -> pd.DataFrame:
    """80 runs whose cell means are the published ones plus an offset in accuracy."""
    rows = []
    for target, method, rate, test, entropy, cifar in reproduction.published()["paper-80"]["cells"]:
        for i, seed in enumerate(SEEDS):
            noise = 0.001 * (i - 2)  # cancels over the seeds
            rows.append(
                {
                    "run_id": f"{target}-{method}-{rate}-{seed}",
                    "backbone": "clip",
                    "target": target,
                    "method": method,
                    "role": "matched",
                    "learning_rate": rate,
                    "seed": seed,
                    "test_accuracy": test + offset + noise,
                    "drift.cls_entropy_pct": entropy + noise,
                    "transfer.cifar100.accuracy": cifar + noise,
                    "transfer.cifar100.baseline_accuracy": 0.61,
                }
            )
    return pd.DataFrame(rows)


def pick(rows: list[dict[str, Any]], **wanted: Any) -> Any:
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_the_packaged_table_is_the_published_one() -> None:
    cells = reproduction.published()["paper-80"]["cells"]
    assert [(cell[0], cell[1], cell[2]) for cell in cells] == [
        (target, method, rate) for target, method in BLOCKS for rate in RATES
    ]
    assert [100 * cell[3] for cell in cells[:4]] == pytest.approx(EUROSAT_FULL_FT[0], rel=1e-12)
    assert [cell[4] for cell in cells[:4]] == EUROSAT_FULL_FT[1]
    assert [100 * cell[5] for cell in cells[-4:]] == pytest.approx(PETS_LORA_CIFAR, rel=1e-12)


def test_the_published_grid_means_follow_from_the_published_cells() -> None:
    rows = reproduction.rows(study(), "paper-80")
    means = [row for row in rows if row["kind"] == "grid_mean"]
    assert len(means) == 4
    for row in means:
        assert row["ours"] == pytest.approx(row["theirs"], abs=5.1e-5)  # printed to two digits
        assert (row["n"], row["within"], row["lr"]) == (20, True, None)


def test_a_study_of_the_published_means_is_within_tolerance() -> None:
    rows = reproduction.rows(study(), "paper-80")
    cells = [r for r in rows if r["kind"] == "cell" and r["metric"] != "drift.cls_entropy_last_pct"]
    assert len(cells) == 48
    for row in cells:
        assert row["diff"] == pytest.approx(0, abs=1e-12)
        assert (row["within"], row["n"], row["reason"]) == (True, 5, None)


def test_differences_are_ours_less_theirs_and_judged_by_the_stated_tolerance() -> None:
    wanted = {"target": "pets", "method": "lora", "lr": 1e-6, "metric": "test_accuracy"}
    low = pick(reproduction.rows(study(offset=-0.02), "paper-80"), **wanted)
    assert low["diff"] == pytest.approx(-0.02, rel=1e-9)
    assert (low["tolerance"], low["within"]) == (0.01, False)
    wide = reproduction.rows(study(offset=-0.02), "paper-80", {"test_accuracy": 0.03})
    assert pick(wide, **wanted)["within"] is True
    assert pick(wide, **wanted)["tolerance"] == 0.03


def test_the_untouched_model() -> None:
    rows = reproduction.rows(study(), "paper-80")
    row = pick(rows, kind="untouched", metric="transfer.cifar100.baseline_accuracy")
    assert (row["theirs"], row["n"], row["within"]) == (0.6022, 80, True)
    assert row["diff"] == pytest.approx(0.0078, rel=1e-9)


def test_supporting_figures_are_those_of_the_paper() -> None:
    rows = reproduction.rows(study(), "paper-80")
    theirs = {
        (row["target"], row["method"], row["metric"]): row["theirs"]
        for row in rows
        if row["kind"] in {"nearest_cell", "untouched", "upper_bound"}
    }
    assert theirs == {
        ("eurosat", "full_ft", "levels.rollout_entropy_bits"): 5.593,
        ("eurosat", "lora", "levels.rollout_entropy_bits"): 5.605,
        ("eurosat", "full_ft", "levels.patch_entropy_bits"): 4.721,
        ("eurosat", "lora", "levels.patch_entropy_bits"): 4.794,
        ("eurosat", "full_ft", "drift.cka_mean"): 0.694,
        ("eurosat", "lora", "drift.cka_mean"): 0.815,
        (None, None, "transfer.cifar100.baseline_accuracy"): 0.6022,
        ("eurosat", None, "untouched.cls_entropy_nats"): 3.683,
        ("eurosat", None, "untouched.erf95"): 0.863,
        ("eurosat", None, "untouched.gini"): 0.309,
        ("eurosat", None, "untouched.head_diversity_paper"): 0.075,
        ("eurosat", None, "probe_cv.cls_entropy_nats"): 0.001,
    }


def test_cells_we_do_not_have_are_null_with_a_reason() -> None:
    frame = study()
    frame = frame[~((frame["target"] == "pets") & (frame["learning_rate"] == 1e-6))]
    frame = frame.drop(columns="transfer.cifar100.baseline_accuracy")
    frame["test_accuracy"] = np.nan
    rows = reproduction.rows(frame, "paper-80")
    cell = pick(rows, kind="cell", target="pets", method="lora", lr=1e-6, metric="test_accuracy")
    assert (cell["ours"], cell["diff"], cell["within"], cell["n"]) == (None, None, None, 0)
    assert cell["reason"] == "no such cell"
    mean = pick(rows, kind="grid_mean", target="pets", method="lora")
    assert (mean["ours"], mean["reason"]) == (None, "3 of 4 cells")
    accuracy = "transfer.cifar100.baseline_accuracy"
    missing = f"no {accuracy} in these records"
    assert pick(rows, kind="untouched", metric=accuracy)["reason"] == missing
    layer = "drift.cls_entropy_last_pct"
    row = pick(rows, method="lora", metric=layer)
    assert (row["theirs"], row["reason"]) == (-11.53, f"no {layer} in these records")


def test_rates_written_otherwise_are_the_same_rate() -> None:
    frame = study()
    frame["learning_rate"] *= 1 + 1e-12
    assert all(
        row["within"] for row in reproduction.rows(frame, "paper-80") if row["n"] and row["lr"]
    )


def test_an_unknown_preset_has_no_rows_and_row_order_does_not_matter() -> None:
    assert reproduction.rows(study(), "my-study") == []
    assert reproduction.rows(shuffled(study()), "paper-80") == reproduction.rows(
        study(), "paper-80"
    )
