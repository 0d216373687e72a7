"""Pooled studies: statsmodels' meta-analysis, a published example, studies joined or kept apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

import clipdrift
from clipdrift.analysis.pooled import StudyEffect, join, pool
from clipdrift.analysis.pooled.effects import effects
from clipdrift.analysis.pooled.join import Joined, Study
from clipdrift.analysis.statistics.meta import random_effects
from clipdrift.errors import SpecError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write

Make = Callable[..., list[RunRecord]]


def test_mean_tau_weights_and_interval_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    for k in (3, 6, 20):
        effect, error = rng.normal(0, 2, k), rng.uniform(0.8, 1.6, k)
        theirs = combine_effects(
            effect, error**2, method_re="iterated", use_t=True, atol=1e-14, maxiter=10_000
        )
        assert theirs.scale_hksj_re == pytest.approx(1)  # else their iteration gave up
        ours = random_effects(effect.tolist(), error.tolist())
        assert ours.tau == pytest.approx(math.sqrt(theirs.tau2), rel=1e-6, abs=1e-9)
        assert ours.mean == pytest.approx(theirs.mean_effect_re, rel=1e-6)
        assert ours.weights == pytest.approx(theirs.weights_rel_re, rel=1e-6)
        assert ours.i2 == pytest.approx(max(0.0, theirs.i2), rel=1e-9)
        half = stats.t.ppf(0.975, k - 1) * theirs.sd_eff_w_re_hksj
        assert ours.ci == pytest.approx((ours.mean - half, ours.mean + half), rel=1e-6)


def test_two_studies_by_hand() -> None:
    found = random_effects([1.0, 7.0], [0.5, 2.0])
    assert found.tau == pytest.approx(math.sqrt(6**2 / 2 - (0.5**2 + 2**2) / 2))
    assert found.ci.low is not None
    assert found.prediction.low is not None
    assert found.prediction.low <= found.ci.low  # that of one study, never surer than the mean


def test_equal_errors_have_a_closed_form() -> None:
    """Then tau^2 = s^2 - se^2, and the interval is Student's."""
    effect = np.array([0.5, 2.5, 4.0, 9.0])
    found = random_effects(effect.tolist(), [0.5] * 4)
    assert found.mean == pytest.approx(effect.mean())
    assert found.tau == pytest.approx(math.sqrt(effect.var(ddof=1) - 0.25))
    half = stats.t.ppf(0.975, 3) * effect.std(ddof=1) / 2
    assert found.ci == pytest.approx((effect.mean() - half, effect.mean() + half))
    # Over the chi-squared of Q a new study is a t on k - 1 degrees of freedom, but for tau's floor.
    reach = stats.t.ppf(0.975, 3) * effect.std(ddof=1) * math.sqrt(1 + 1 / 4)
    assert found.prediction.high - found.mean == pytest.approx(reach, rel=0.02)


def test_errors_of_few_seeds_borrow_from_all() -> None:
    effect, error = [1.0, 2.0, 4.0], [0.1, 1.0, 1.0]
    known, few = random_effects(effect, error), random_effects(effect, error, [3, 3, 3])
    lent = [math.sqrt((2 * e**2 + 4 * 0.67) / 6) for e in error]
    again = random_effects(effect, lent)
    assert (few.mean, few.tau) == pytest.approx((again.mean, again.tau))
    assert few.weights[0] < known.weights[0]
    assert random_effects([1.0, 1.0], [1.0, 1.0]).tau == 0


def marked(records: list[RunRecord], **other: str) -> list[RunRecord]:
    """Fingerprints as runs have them: of a seed where they are of one, else of the target alone."""
    return [
        record.model_copy(
            update={
                "fingerprints": {
                    "data_split": f"split of {record.target}",
                    "image_order": f"order {record.seed}",
                    **other,
                }
            }
        )
        for record in records
    ]


def test_studies_of_one_grid_are_joined_and_others_say_why_not(make_records: Make) -> None:
    one = Study("one", marked(make_records(seeds=(1, 2), targets=("digits",))), None)
    more = Study("more", marked(make_records(seeds=(2, 3), targets=("digits",))), None)
    longer = Study("longer", marked(one.records, schedule="9 epochs"), None)
    short = Study("short", marked(one.records, schedule="1 epoch"), None)
    away = Study("away", marked(make_records(targets=("land-cover",))), None)
    bare = [r.model_copy(update={"fingerprints": {}}) for r in one.records]
    found = join([one, more, away, Study("bare", bare, None)])
    assert [group.name for group in found] == ["one + more", "away", "bare"]
    assert found[0].repeated == len(one.records) // 2  # seed 2
    assert {record.seed for record in found[0].records} == {1, 2, 3}
    assert found[1].apart == {"one + more": "they share no backbone and target"}
    assert found[2].apart["one + more"] == "on digits with mini-clip runs have no fingerprints"
    assert join([longer, short])[1].apart == {
        "longer": "on digits with mini-clip they differ in schedule"
    }


def test_an_effect_is_that_of_paired_runs_by_hand(make_records: Make) -> None:
    records = marked(make_records(targets=("digits",), seeds=(1, 2, 3, 4)))
    rows = {row.question: row for row in effects(Joined([Study("s", records, None)]))}
    reached = rows["accuracy_at_best_rates"]
    at: dict[str, dict[int, float]] = {}
    for method in ("full_ft", "lora"):
        cells: dict[float, list[RunRecord]] = {}
        for record in records:
            if record.method == method:
                cells.setdefault(record.learning_rate, []).append(record)
        best = max(cells.values(), key=lambda own: np.mean([r.result.val_accuracy for r in own]))
        at[method] = {r.seed: 100 * float(r.result.test_accuracy or 0) for r in best}
    gaps = np.array([at["full_ft"][seed] - at["lora"][seed] for seed in (1, 2, 3, 4)])
    assert (reached.method_a, reached.method_b) == ("full_ft", "lora")
    assert reached.diff_pp == pytest.approx(gaps.mean())
    # Leaving out a seed may move the best rate; where it does not this is the error of a mean.
    assert reached.se_pp == pytest.approx(gaps.std(ddof=1) / 2, rel=1e-9)
    assert (reached.n_seeds, reached.n_places) == (4, 1)
    kept = rows["retention_at_equal_accuracy"]
    assert kept.diff_pp is not None
    assert kept.diff_pp < 0  # lora moves less


def folder(path: Path, records: list[RunRecord]) -> Path:
    own = StudyFolder(path)
    own.create()
    for record in records:
        atomic_write(own.record_path(record.run_id), record.to_json())
    return path


def test_the_command_joins_pools_and_writes(make_records: Make, tmp_path: Path) -> None:
    names = ("digits", "land-cover")
    a, b, c = (
        folder(
            tmp_path / name,
            marked(make_records(targets=(target,), seeds=seeds, blocks=1, rng_seed=i), head=target),
        )
        for i, (name, target, seeds) in enumerate(
            [("a$b", names[0], (1, 2, 3)), ("b", names[0], (4, 5)), ("c", names[1], (1, 2, 3))]
        )
    )
    clipdrift.bundle(c, tmp_path / "c.tar.xz", title="C")
    out = tmp_path / "out"
    found = clipdrift.pool(a, b, tmp_path / "c.tar.xz", out=out)
    assert [group.name for group in found.studies] == ["a$b + b", "C"]
    told = json.loads((out / "pooled.json").read_text())
    row = next(r for r in told["pooled"] if r["question"] == "accuracy_at_best_rates")
    own = [r for r in told["effects"] if r["question"] == "accuracy_at_best_rates"]
    values = [[r[key] for r in own] for key in ("diff_pp", "se_pp", "n_seeds")]
    again = random_effects(*values)
    assert (row["studies"], row["diff_pp"], row["tau_pp"]) == (2, again.mean, again.tau)
    assert sum(r["weight"] for r in own) == pytest.approx(1)
    assert row["remark"].startswith("what full_ft was is not known of imported runs")
    assert len(list((out / "figures").glob("forest-*.png"))) == len(told["pooled"])
    joined = StudyFolder(found.folders[0])
    assert len(joined.records()[0]) == len(StudyFolder(a).records()[0]) * 5 // 3
    with pytest.raises(StudyFolderError, match="a pool is no study folder"):
        clipdrift.pool(a, c, out=b)
    with pytest.raises(SpecError, match=r"got 'lor'. Did you mean 'lora'"):
        clipdrift.pool(a, c, out=tmp_path / "d", methods=["lor"])
    with pytest.raises(SpecError, match="two or more, got 1"):
        clipdrift.pool(a, out=tmp_path / "d")


def test_what_one_study_alone_has_is_not_pooled(make_records: Make) -> None:
    first = Joined([Study("a", marked(make_records(targets=("digits",))), None)])
    rows, pooled = pool([first])
    assert pooled == []
    assert all(isinstance(row, StudyEffect) and row.weight is None for row in rows)
