"""Published figures beside ours, on a study made from the published figures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import RATES, SEEDS, shuffled
from scipy import stats

from clipdrift.analysis.questions import reproduction
from clipdrift.analysis.statistics.tolerance import Theirs, tolerance

# Typed from the table of the paper, in per cent: accuracy, entropy change, CIFAR-100.
EUROSAT_FULL_FT = ([98.82, 99.11, 99.13, 98.79], [1.83, 0.41, -0.12, -3.99])
PETS_LORA_CIFAR = [60.24, 60.57, 59.34, 51.91]
BLOCKS = [("eurosat", "full_ft"), ("eurosat", "lora"), ("pets", "full_ft"), ("pets", "lora")]


def study(preset: str = "paper-80", *, scatter: float = 1.0, moved: float = 1.0) -> pd.DataFrame:
    """Runs whose cell means are the published ones: seeds scatter as published, or by a little.

    moved: 0 for runs of a model that no training moved, with its readings in place of the means.
    """
    known = reproduction.published()[preset]
    seeds = SEEDS[: known["seeds"]]
    steps = np.arange(len(seeds)) - (len(seeds) - 1) / 2
    steps /= np.std(steps, ddof=1)
    rows = []
    for target, method, rate, *cells in known["cells"]:
        for i, seed in enumerate(seeds):
            row = {
                "run_id": f"{target}-{method}-{rate}-{seed}",
                "backbone": "clip",
                "target": target,
                "method": method,
                "role": "matched" if method in {"full_ft", "lora"} else "reference",
                "learning_rate": rate,
                "seed": seed,
            }
            for metric, cell in zip(known["metrics"], cells, strict=True):
                mean, sd = (
                    cell if isinstance(cell, list) else (cell, 0.02 if "pct" in metric else 0.001)
                )
                before = untouched(preset, target, metric)
                row[metric] = before + moved * (mean - before) + scatter * sd * steps[i]
            for name, value in BEFORE[preset].items():
                row[f"transfer.{name}.baseline_accuracy"] = value
            rows.append(row)
    return pd.DataFrame(rows)


# Typed from the pages of the two studies: zero-shot accuracy of the untouched model.
BEFORE = {
    "paper-80": {"cifar100": 0.6022},
    "leakage-free-66": {"cifar100": 0.6133, "cifar10": 0.8740},
    "leakage-free-b16": {"cifar100": 0.6620, "cifar10": 0.9050},
}


def untouched(preset: str, target: str, metric: str) -> float:
    """What a model reads that was not trained: chance, no drift, its own zero-shot accuracy."""
    if metric == "test_accuracy":
        return {"eurosat": 1 / 10, "pets": 1 / 37}[target]
    if metric.startswith("transfer."):
        return BEFORE[preset][metric.split(".")[1]]
    return 1.0 if metric == "drift.cka_mean" else 0.0


def pick(rows: Sequence[Any], **wanted: Any) -> Any:
    found = [
        row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())
    ]
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


def test_the_follow_ups_cells_are_those_of_its_page() -> None:
    """Typed from the digest that its author publishes, as rounded there."""
    page = {
        ("eurosat", "full_ft", 1e-5): (97.19, 0.33, 0.99, 0.17, 0.802, 0.0042),
        ("eurosat", "last_block", 1e-4): (94.38, 0.48, -0.39, 0.04, 0.952, 0.0109),
        ("eurosat", "lora", 3e-6): (45.54, 0.80, 0.01, 0.02, 0.999, 0.0003),
        ("eurosat", "lora_frozen_projection", 1e-5): (22.63, 5.69, 0.05, 0.10, 0.983, 0.0010),
        ("pets", "full_ft", 1e-4): (79.10, 0.49, -3.23, 0.20, 0.561, 0.0251),
        ("pets", "linear_probe", 1e-3): (80.50, 1.25, 0.0, 0.0, 1.0, 0.0),
        ("pets", "lora", 1e-4): (89.88, 0.47, -0.35, 0.08, 0.935, 0.0049),
    }
    retention = [41.2, 83.8, 99.6, 98.6, 9.2, 100.0, 97.7]
    cells = reproduction.published()["leakage-free-66"]["cells"]
    assert len(cells) == 22
    found = {tuple(cell[:3]): cell[3:] for cell in cells}
    for (key, (test, test_sd, entropy, entropy_sd, cka, moved)), kept in zip(
        page.items(), retention, strict=True
    ):
        ours = found[key]
        assert [100 * v for v in ours[0]] == pytest.approx([test, test_sd], abs=0.0101)
        assert ours[1] == pytest.approx([entropy, entropy_sd], abs=0.0051)
        assert 100 * ours[2][0] / 0.6133 == pytest.approx(kept, abs=0.06)
        assert (ours[4][0], ours[5][0]) == pytest.approx((cka, moved), abs=0.00051)


def test_the_published_grid_means_follow_from_the_published_cells() -> None:
    rows = reproduction.rows(study(), "paper-80")
    means = [row for row in rows if row.kind == "grid_mean"]
    assert len(means) == 4
    for row in means:
        assert row.ours == pytest.approx(row.theirs, abs=5.1e-5)  # printed to two digits
        assert (row.n, row.learning_rate) == (20, None)
    # LoRA on Pets keeps 58.01 of 60.22 % over its grid, and more than that lies within errors.
    assert [row.within for row in means] == [True] * 4


PRESETS = ["paper-80", "leakage-free-66", "leakage-free-b16"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scatter", [0.0, 1.0])
def test_records_with_the_published_means_pass(preset: str, scatter: float) -> None:
    rows = reproduction.rows(study(preset, scatter=scatter), preset)
    read = [row for row in rows if row.diff is not None]
    cells = [row for row in read if row.kind == "cell"]
    known = reproduction.published()[preset]
    assert len(cells) == len(known["cells"]) * len(known["metrics"])
    assert {row.within for row in read} <= {True, None}
    assert sum(row.within is True for row in cells) > 0.7 * len(cells)
    for row in cells:
        assert row.diff == pytest.approx(0, abs=1e-12)
        assert (row.within is None) == (row.reason is not None)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scatter", [0.0, 1.0])
def test_an_untouched_model_fails_every_cell_where_training_moved_anything(
    preset: str, scatter: float
) -> None:
    rows = reproduction.rows(study(preset, scatter=scatter, moved=0.0), preset)
    trained = [row for row in rows if row.kind in {"cell", "grid_mean"} and row.n]
    for row in trained:
        before = untouched(preset, row.target, row.metric.removeprefix("last_epoch."))
        assert row.untouched == pytest.approx(before, abs=1e-12)
        assert row.ours == pytest.approx(before, abs=1e-12)
        told_apart = abs(row.theirs - before) > row.tolerance
        assert row.within is (False if told_apart else None)
    failed = sum(row.within is False for row in trained)
    assert failed > 0.7 * len(trained)
    # What is published of the untouched model itself is right.
    assert all(row.within for row in rows if row.kind == "untouched" and row.diff == 0)


def test_a_tolerance_is_made_of_the_errors_of_both_means() -> None:
    """Without a published SD: ours for both, and the binomial error of 2,700 images."""
    frame = study()
    wanted = {
        "target": "eurosat",
        "method": "lora",
        "learning_rate": 1e-6,
        "metric": "test_accuracy",
    }
    row = pick(reproduction.rows(frame, "paper-80"), **wanted)
    t4, z = stats.t.ppf(0.975, 4), stats.norm.ppf(0.975)
    seeds = t4**2 * 0.001**2 * (1 / 5 + 1 / 5)
    images = z**2 * 0.9207 * (1 - 0.9207) / 2700
    assert row.tolerance == pytest.approx(np.sqrt(seeds + images) + 0.00005, rel=1e-9)
    entropy = {**wanted, "metric": "last_epoch.drift.cls_entropy_pct"}
    row = pick(reproduction.rows(frame, "paper-80"), **entropy)
    assert row.tolerance == pytest.approx(t4 * 0.02 * np.sqrt(2 / 5) + 0.005, rel=1e-9)
    mean = pick(
        reproduction.rows(frame, "paper-80"), kind="grid_mean", target="pets", method="lora"
    )
    seeds = 4 * t4**2 * 0.001**2 * (2 / 5) / 4**2
    images = z**2 * 0.5801 * (1 - 0.5801) / 10_000
    assert mean.tolerance == pytest.approx(np.sqrt(seeds + images) + 0.00005, rel=1e-9)


def test_a_published_sd_is_the_error_of_theirs_whatever_ours_is() -> None:
    frame = study("leakage-free-66", scatter=0.5)
    wanted = {
        "target": "pets",
        "method": "full_ft",
        "learning_rate": 1e-5,
        "metric": "test_accuracy",
    }
    t2 = stats.t.ppf(0.975, 2)
    row = pick(reproduction.rows(frame, "leakage-free-66"), **wanted)
    both = t2 * 0.00201 * np.sqrt(1 / 3 + 0.5**2 / 3)
    assert row.tolerance == pytest.approx(both + 0.00005, rel=1e-9)
    # One run of ours scatters as theirs did.
    row = pick(reproduction.rows(frame[frame["seed"] == SEEDS[0]], "leakage-free-66"), **wanted)
    one = t2 * 0.00201 * np.sqrt(1 / 3 + 1)
    assert row.tolerance == pytest.approx(one + 0.00005, rel=1e-9)


def test_one_seed_and_no_published_sd_cannot_tell() -> None:
    frame = study()
    rows = reproduction.rows(frame[frame["seed"] == SEEDS[0]], "paper-80")
    cells = [row for row in rows if row.kind == "cell" and row.n]
    assert {row.within for row in cells} == {None}
    assert {row.reason for row in cells} == {
        "cannot tell: one seed here and no SD published: nothing says how far seeds scatter"
    }


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("theirs", "ours"), [(3, 3), (5, 5), (5, 3), (3, 10)])
def test_two_samples_of_one_thing_are_within_at_least_as_often_as_said(
    known: bool, theirs: int, ours: int
) -> None:
    rng = np.random.default_rng([theirs, ours, known])
    first, second = rng.normal(size=(4000, theirs)), rng.normal(size=(4000, ours))
    hits = 0
    for a, b in zip(first, second, strict=True):
        sd = float(a.std(ddof=1)) if known else None
        allowed = tolerance(Theirs(float(a.mean()), theirs, sd, None, 9), [b])
        assert allowed is not None
        hits += abs(a.mean() - b.mean()) <= allowed
    # Where theirs is taken to scatter as ours, the two parts are one error: 95 %, no more.
    assert hits / 4000 > (0.95 if known else 0.94)


def test_the_untouched_model() -> None:
    frame = study()
    frame["transfer.cifar100.baseline_accuracy"] = 0.6122
    frame["untouched.cls_entropy_nats"] = 3.690
    frame["probe_cv.cls_entropy_nats"] = 0.002
    frame["untouched.gini"] = 0.309
    rows = reproduction.rows(frame, "paper-80")
    row = pick(rows, kind="untouched", metric="transfer.cifar100.baseline_accuracy")
    binomial = stats.norm.ppf(0.975) * np.sqrt(0.6022 * 0.3978 / 10_000)
    assert row.tolerance == pytest.approx(binomial + 0.00005, rel=1e-9)
    assert (row.theirs, row.n, row.within, row.untouched) == (0.6022, 80, False, None)
    row = pick(rows, kind="untouched", metric="untouched.cls_entropy_nats")
    parts = stats.t.ppf(0.975, 4) * 0.002 * 3.683 / np.sqrt(5)
    assert row.tolerance == pytest.approx(parts + 0.0005, rel=1e-9)
    assert row.within is True
    row = pick(rows, kind="untouched", metric="untouched.gini")
    assert (row.within, row.reason) == (None, "cannot tell: no readings image by image")


def test_supporting_figures_are_those_of_the_paper() -> None:
    rows = reproduction.rows(study(), "paper-80")
    theirs = {
        (row.target, row.method, row.metric): row.theirs
        for row in rows
        if row.kind in {"nearest_cell", "untouched", "upper_bound"}
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
    cell = pick(
        rows, kind="cell", target="pets", method="lora", learning_rate=1e-6, metric="test_accuracy"
    )
    assert (cell.ours, cell.diff, cell.within, cell.n) == (None, None, None, 0)
    assert cell.reason == "no such cell"
    mean = pick(rows, kind="grid_mean", target="pets", method="lora")
    assert (mean.ours, mean.reason) == (None, "3 of 4 cells")
    accuracy = "transfer.cifar100.baseline_accuracy"
    missing = f"no {accuracy} in these records"
    assert pick(rows, kind="untouched", metric=accuracy).reason == missing
    layer = "last_epoch.drift.cls_entropy_last_pct"
    row = pick(rows, method="lora", metric=layer)
    assert (row.theirs, row.reason) == (-11.53, f"no {layer} in these records")


def test_rates_written_otherwise_are_the_same_rate() -> None:
    frame = study()
    frame["learning_rate"] *= 1 + 1e-12
    rows = reproduction.rows(frame, "paper-80")
    cells = [row for row in rows if row.kind == "cell" and "last_pct" not in row.metric]
    assert {row.n for row in cells} == {5}


def test_the_nearest_cell_is_one_configuration_and_held_against_our_untouched_level() -> None:
    frame = study()
    rates = frame["learning_rate"].map(dict(zip(RATES, (0.0, 0.01, 0.03, 0.06), strict=True)))
    frame["levels.rollout_entropy_bits"] = 5.602 + rates + 0.001 * (frame["seed"] - 7) / 4
    wanted = {"method": "lora", "metric": "levels.rollout_entropy_bits"}
    row = pick(reproduction.rows(frame, "paper-80"), **wanted)
    assert (row.learning_rate, row.n) == (RATES[0], 5)
    assert row.reason == "cannot tell: the untouched model was not read"
    own = frame[(frame["target"] == "eurosat") & (frame["method"] == "lora")]
    sd = own[own.learning_rate == RATES[0]]["levels.rollout_entropy_bits"].std()
    expected = stats.t.ppf(0.975, 4) * sd * np.sqrt(1 / 5 + 1) + 0.0005
    assert row.tolerance == pytest.approx(expected, rel=1e-9)
    frame["untouched.rollout_entropy_bits"] = 5.7
    row = pick(reproduction.rows(frame, "paper-80"), **wanted)
    assert (row.untouched, row.within) == (5.7, True)
    frame["untouched.rollout_entropy_bits"] = 5.61
    assert pick(reproduction.rows(frame, "paper-80"), **wanted).within is None


def test_an_unknown_preset_has_no_rows_and_row_order_does_not_matter() -> None:
    assert reproduction.rows(study(), "my-study") == []
    assert reproduction.rows(shuffled(study()), "paper-80") == reproduction.rows(
        study(), "paper-80"
    )
