"""Mean and worst over transfer sets: values by hand, errors by strata, coverage by simulation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import SUITE, runs_frame
from clipdrift.analysis.questions import cell_metrics, paired
from clipdrift.analysis.statistics.influence import Images
from clipdrift.records import RunRecord
from clipdrift.records.correct import Correct
from clipdrift.records.transfer import TransferReading

MEAN = f"{SUITE}mean_retention_pct"
SIZES = {"large": 1200, "middle": 400, "small": 150}


def read(correct: np.ndarray, before: np.ndarray) -> TransferReading:
    now, was = float(correct.mean()), float(before.mean())
    return TransferReading(
        accuracy=now,
        baseline_accuracy=was,
        retention_pct=100 * now / was,
        chance_corrected_retention_pct=100 * (now - 0.1) / (was - 0.1),
        n_images=len(correct),
        n_classes=10,
        chance=0.1,
    )


def drawn(rng: np.random.Generator, seeds: tuple[int, ...]) -> Iterator[RunRecord]:
    """Runs of one cell whose sets have a true retention of 90, 80 and 70 % of 0.6."""
    untouched = {name: rng.random(n) for name, n in SIZES.items()}
    for record in synthetic_records(
        targets=("digits",), methods=("lora",), rates=(1e-4,), seeds=seeds
    ):
        moved = 0.01 * rng.normal()
        record.result.transfer, record.result.correct = {}, {}
        for name, kept in zip(SIZES, (0.9, 0.8, 0.7), strict=True):
            hard = untouched[name]
            before = hard < 0.6
            own = 0.5 * hard + 0.5 * rng.random(len(hard))  # half of what decides is the image's
            cut = np.quantile(0.5 * rng.random(40000) + 0.5 * rng.random(40000), 0.6 * kept)
            now = own < cut + moved
            record.result.transfer[name] = read(now, before)
            place = f"transfer.{name}"
            record.result.correct[f"{place}.accuracy"] = Correct.of(now)
            record.result.correct[f"{place}.baseline_accuracy"] = Correct.of(before)
        yield record


def of_cell(records: list[RunRecord], metric: str) -> cell_metrics.CellMetric:
    rows = cell_metrics.rows(runs_frame(records), images=Images(records))
    return next(row for row in rows if row.metric == metric)


def test_mean_and_worst_are_those_of_the_sets_of_each_run() -> None:
    records = [with_images(r, 300) for r in synthetic_records(targets=("digits",))]
    frame = runs_frame(records).set_index("run_id")
    for record in records:
        kept = [one.retention_pct or 0.0 for one in record.result.transfer.values()]
        above = [
            one.chance_corrected_retention_pct or 0.0 for one in record.result.transfer.values()
        ]
        row = frame.loc[record.run_id]
        assert row[MEAN] == pytest.approx(sum(kept) / 2)
        assert row[f"{SUITE}worst_retention_pct"] == min(kept)
        assert row[f"{SUITE}mean_chance_corrected_retention_pct"] == pytest.approx(sum(above) / 2)


def test_one_set_alone_has_no_mean_over_sets() -> None:
    records = synthetic_records(targets=("digits",), rates=(1e-4,))
    for record in records:
        record.result.transfer.pop("cifar10")
    assert not [name for name in runs_frame(records) if str(name).startswith(SUITE)]


def test_the_error_from_images_is_that_of_strata() -> None:
    """Var of a mean of K means of their own images: sum of var_k / n_k, over K^2."""
    (record,) = drawn(np.random.default_rng(1), (7,))
    variance = 0.0
    for name, n in SIZES.items():
        now, before = (
            record.result.correct[f"transfer.{name}.{kind}"].hits.astype(float)
            for kind in ("accuracy", "baseline_accuracy")
        )
        kept = now.mean() / before.mean()
        parts = 100 * (now - kept * before) / before.mean()  # delta method
        variance += parts.var(ddof=1) / n / len(SIZES) ** 2
    row = of_cell([record], MEAN)
    assert row.n_images == sum(SIZES.values())
    assert row.image_se == pytest.approx(variance**0.5, rel=0.02)  # it adds two images a set


@pytest.mark.slow
def test_the_interval_over_seeds_and_images_holds_the_truth() -> None:
    rng, held, n = np.random.default_rng(2), 0, 150
    for _ in range(n):
        row = of_cell(list(drawn(rng, (7, 11, 19))), MEAN)
        assert row.interval_over == "seeds and images"
        assert row.ci_low is not None
        assert row.ci_high is not None
        held += row.ci_low <= 80.0 <= row.ci_high
    assert held / n >= 0.9  # 95 % promised; two standard errors of 150 studies are 3.6 points


def test_two_methods_are_compared_over_all_sets_by_seeds_and_images() -> None:
    records = [with_images(r, 300) for r in synthetic_records(targets=("digits",))]
    rows = paired.rows(runs_frame(records), images=Images(records))
    own = [row for row in rows if row.metric == MEAN and row.scope == "per_lr"]
    assert len(own) == 4
    assert {row.interval_over for row in own} == {"seeds and images"}
    frame = runs_frame(records).set_index(["method", "learning_rate", "seed"])[MEAN]
    for row in own:
        gaps = frame[row.method_a, row.learning_rate] - frame[row.method_b, row.learning_rate]
        assert row.mean_diff == pytest.approx(gaps.mean())
