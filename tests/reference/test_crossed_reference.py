"""Errors over seeds and images against analysis of variance, closed forms and planted truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from synthetic_records import synthetic_records

from clipdrift.analysis.statistics.crossed import RIGHT_AND_WRONG, WON_AND_LOST, binomial, crossed
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import t_ci
from clipdrift.records import RunRecord
from clipdrift.records.correct import Correct
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading


def test_the_interval_is_that_of_the_mean_squares_of_a_two_way_table() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 1)) + 0.6 * rng.normal(size=(1, 9)) + 0.3 * rng.normal(size=(4, 9))
    long = pd.DataFrame([{"seed": g, "image": i, "z": z[g, i]} for g in range(4) for i in range(9)])
    table = anova_lm(ols("z ~ C(seed) + C(image)", data=long).fit())
    seeds, images, both = table["mean_sq"] / z.size
    found = crossed(z)
    assert found.mean == pytest.approx(z.mean(), rel=1e-12)
    assert (found.seed_se, found.image_se) == pytest.approx((seeds**0.5, images**0.5), rel=1e-9)
    a, b = stats.t.ppf(0.975, 3), stats.t.ppf(0.975, 8)
    half = (a**2 * seeds + b**2 * (images - both)) ** 0.5
    assert found.ci == pytest.approx((z.mean() - half, z.mean() + half), rel=1e-9)
    alone = t_ci(z.mean(axis=1))
    assert (found.ci.low or 0.0) < (alone.low or 0.0) < (alone.high or 0.0) < (found.ci.high or 0.0)


def test_one_seed_has_the_binomial_error_and_no_interval() -> None:
    hits = np.array([[1.0] * 90 + [0.0] * 10])
    found = crossed(hits)
    assert found.image_se == pytest.approx((0.9 * 0.1 / 99) ** 0.5, rel=1e-12)
    assert (found.seed_se, found.ci) == (None, (None, None))
    with_added = crossed(hits, RIGHT_AND_WRONG)
    assert with_added.image_se == pytest.approx((92 * 12 / 104**2 / 103) ** 0.5, rel=1e-12)
    assert binomial(np.array([0.9]), 100).image_se == pytest.approx(with_added.image_se, rel=1e-12)


def test_no_image_wrong_is_no_error_of_zero_and_equal_seeds_have_no_interval() -> None:
    found = crossed(np.ones((3, 50)), RIGHT_AND_WRONG)
    assert found.image_se == pytest.approx((52 * 2 / 54**2 / 53) ** 0.5, rel=1e-12)
    assert (found.mean, found.seed_se, found.ci) == (1.0, 0.0, (None, None))
    swapped = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # other images, as many of them
    assert crossed(swapped).ci == (None, None)
    assert crossed(np.array([[1.0], [0.0]]), RIGHT_AND_WRONG).ci == (None, None)


def test_counts_alone_are_taken_for_images_that_all_seeds_share() -> None:
    shared = np.tile(np.arange(200) < 150, (3, 1)).astype(float)
    shared[0, :6] = 0.0
    seeds = shared.mean(axis=1)
    known, alone = crossed(shared, RIGHT_AND_WRONG), binomial(seeds, 200)
    assert (alone.mean, alone.seed_se) == pytest.approx((known.mean, known.seed_se), rel=1e-12)
    assert alone.image_se >= known.image_se
    assert (alone.ci.low or 1.0) < (known.ci.low or 0.0)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_share", [0.0, 1.0, 3.0])
def test_95_percent_intervals_hold_the_truth(n_seeds: int, seed_share: float) -> None:
    """Normal values: seed_share is the error from seeds over that from images."""
    rng = np.random.default_rng([n_seeds, int(seed_share)])
    n, image, both = 40, 0.3, 0.2
    seed = seed_share * image * (n_seeds / n) ** 0.5
    held = 0
    for _ in range(1000):
        z = seed * rng.normal(size=(n_seeds, 1)) + image * rng.normal(size=(1, n))
        low, high = crossed(z + both * rng.normal(size=(n_seeds, n))).ci
        held += low is not None and high is not None and low <= 0 <= high
    assert held >= 935  # 950 expected at least, 3 standard errors are 21


def read_alike(
    hits: list[np.ndarray], before: np.ndarray, *, n_classes: int = 10
) -> list[RunRecord]:
    """Runs of one cell, a seed each, read on the same images as their baseline."""
    base = Correct.of(before)
    out = []
    for record, hit in zip(synthetic_records(rates=(1e-5,), seeds=(1, 2, 3)), hits, strict=False):
        now = Correct.of(hit)
        kept = 100 * now.accuracy / base.accuracy
        reading = TransferReading(
            accuracy=now.accuracy,
            baseline_accuracy=base.accuracy,
            retention_pct=kept,
            n_classes=n_classes,
            n_images=now.n,
        )
        out.append(
            record.model_copy(
                update={
                    "result": Result(
                        test_accuracy=now.accuracy,
                        extra={"interpolation.0.5.transfer.x.accuracy": now.accuracy},
                        transfer={"x": reading},
                        correct={
                            "test_accuracy": now,
                            "transfer.x.accuracy": now,
                            "transfer.x.baseline_accuracy": base,
                            "extra.interpolation.0.5.transfer.x.accuracy": now,
                        },
                    )
                }
            )
        )
    return out


RNG = np.random.default_rng(5)
BEFORE = RNG.random(60) < 0.7
HITS = [np.where(RNG.random(60) < 0.8, BEFORE, RNG.random(60) < 0.5) for _ in range(3)]
RECORDS = read_alike(HITS, BEFORE)
IDS = [record.run_id for record in RECORDS]


def jackknife(statistic: Callable[[np.ndarray], float]) -> float:
    """Standard error over images, every seed's image left out at once."""
    n = len(BEFORE)
    left = [statistic(np.delete(np.arange(n), i)) for i in range(n)]
    return float(((n - 1) / n * np.square(np.array(left) - np.mean(left)).sum()) ** 0.5)


@pytest.mark.parametrize(
    ("metric", "reference", "rel"),
    [
        ("transfer.x.accuracy", None, 1e-9),
        ("transfer.x.delta_accuracy_pp", None, 1e-9),
        ("transfer.x.retention_pct", 0.0, 0.02),
        ("extra.interpolation.0.5.transfer.x.retention_pct", 0.0, 0.02),
        ("transfer.x.chance_corrected_retention_pct", 0.1, 0.02),
    ],
)
def test_influence_gives_the_metric_and_the_jackknifes_error(
    metric: str, reference: float | None, rel: float
) -> None:
    def statistic(at: np.ndarray) -> float:
        now, base = np.array([hit[at].mean() for hit in HITS]), BEFORE[at].mean()
        if metric.endswith(".accuracy"):
            return float(now.mean())
        if reference is None:
            return float(100 * (now - base).mean())
        return float(100 * ((now - reference) / (base - reference)).mean())

    found = Images(RECORDS).influence(IDS, metric)
    assert found is not None
    rows = [statistic_of_one(hit, metric, reference) for hit in HITS]
    np.testing.assert_allclose(found.values.mean(axis=1), rows, rtol=1e-12)
    assert crossed(found.values).image_se == pytest.approx(jackknife(statistic), rel=rel)
    assert found.crossed().image_se > 0


def statistic_of_one(hit: np.ndarray, metric: str, reference: float | None) -> float:
    if metric.endswith(".accuracy"):
        return float(hit.mean())
    if reference is None:
        return float(100 * (hit.mean() - BEFORE.mean()))
    return float(100 * (hit.mean() - reference) / (BEFORE.mean() - reference))


def test_a_difference_of_two_methods_is_paired_over_images() -> None:
    images = Images(RECORDS)
    a = images.influence(IDS[:1], "transfer.x.retention_pct")
    b = images.influence(IDS[1:2], "transfer.x.retention_pct")
    assert a is not None
    assert b is not None
    apart = a.less(b)
    expected = 100 * (HITS[0].mean() - HITS[1].mean()) / BEFORE.mean()
    assert apart.values.mean() == pytest.approx(expected, rel=1e-12)
    error = jackknife(
        lambda at: 100 * (HITS[0][at].mean() - HITS[1][at].mean()) / BEFORE[at].mean()
    )
    assert crossed(apart.values).image_se == pytest.approx(error, rel=0.02)
    np.testing.assert_allclose(apart.added, 100 / BEFORE.mean() * np.array(WON_AND_LOST))


def test_what_was_read_otherwise_has_no_influence_and_a_count_where_it_is_known() -> None:
    shorter = read_alike([HITS[0][:40]], BEFORE[:40])
    other = shorter[0].model_copy(update={"run_id": "shorter"})
    plain = synthetic_records(seeds=(7,), rates=(1e-5,))[-1].model_copy(update={"run_id": "plain"})
    images = Images([*RECORDS, other, plain])
    for ids in ([IDS[0], "shorter"], [IDS[0], "plain"], ["unknown"]):
        assert images.influence(ids, "transfer.x.accuracy") is None
    assert images.influence(IDS, "drift.cka_mean") is None
    assert images.count(IDS, "transfer.x.retention_pct") == 60
    assert images.count(IDS, "extra.interpolation.0.5.transfer.x.accuracy") == 60
    assert images.count([IDS[0], "shorter"], "test_accuracy") is None
    assert images.count(["plain"], "transfer.cifar10.accuracy") == 1000
    assert images.count(["plain"], "drift.cka_mean") is None
