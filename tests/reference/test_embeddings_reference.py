"""Calibration, geometry and read-outs of embeddings against scikit-learn, scipy and plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.special import log_softmax
from scipy.stats import entropy
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from clipdrift.probes import calibration, geometry, readout

RNG = np.random.default_rng(3)
N, C, E = 157, 6, 12
LABELS = RNG.integers(0, C, N)
LOGITS = 2 * RNG.normal(size=(N, C)) + 2.5 * np.eye(C)[LABELS]
TEXTS = geometry.unit(RNG.normal(size=(C, E)))
IMAGES = geometry.unit(0.5 * RNG.normal(size=(N, E)) + TEXTS[LABELS])
EXACT = {"rel": 1e-9, "abs": 1e-12}


def test_probabilities_and_proper_scores() -> None:
    for temperature in (0.3, 1.0, 4.0):
        log_p = calibration.log_probabilities(LOGITS, temperature)
        np.testing.assert_allclose(log_p, log_softmax(LOGITS / temperature, axis=1), rtol=1e-12)
    assert calibration.negative_log_likelihood(log_p, LABELS) == pytest.approx(
        log_loss(LABELS, np.exp(log_p), labels=range(C)), **EXACT
    )
    by_hand = [
        sum((p - (c == label)) ** 2 for c, p in enumerate(row))
        for row, label in zip(np.exp(log_p), LABELS, strict=True)
    ]
    assert calibration.brier_score(log_p, LABELS) == pytest.approx(sum(by_hand) / N, **EXACT)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibration_error_is_the_weighted_gap_of_fifteen_bins(equal_mass: bool) -> None:
    log_p = log_softmax(LOGITS, axis=1)
    rows = sorted(
        (max(map(math.exp, row)), int(row.argmax() == y))
        for row, y in zip(log_p, LABELS, strict=True)
    )
    if equal_mass:
        sizes = [N // 15 + (i < N % 15) for i in range(15)]
        bins = [rows[a:b] for a, b in pairwise(np.cumsum([0, *sizes]))]
    else:
        bins = [[r for r in rows if i / 15 < r[0] <= (i + 1) / 15] for i in range(15)]
    expected = 0.0
    for one in filter(None, bins):
        accuracy, confidence = (sum(column) / len(one) for column in zip(*one, strict=True))
        expected += len(one) / N * abs(accuracy - confidence)
    found = calibration.calibration_error(log_p, LABELS, equal_mass=equal_mass)
    assert found == pytest.approx(expected, **EXACT)


def test_the_best_temperature_is_where_the_slope_of_the_likelihood_is_zero() -> None:
    """d NLL / d(1/T) = E_p[logit] - logit of the label, on the mean over images."""
    t = calibration.best_temperature(LOGITS, LABELS)
    p = np.exp(log_softmax(LOGITS / t, axis=1))
    slope = ((p * LOGITS).sum(axis=1) - LOGITS[np.arange(N), LABELS]).mean()
    assert abs(slope) < 1e-4 * np.abs(LOGITS).mean()
    assert 1 < calibration.best_temperature(10 * LOGITS, LABELS) / t < 11


def test_geometry_by_plain_distances() -> None:
    own = TEXTS[LABELS]
    assert geometry.modality_gap(IMAGES, own) == pytest.approx(
        math.dist(IMAGES.mean(axis=0), own.mean(axis=0)), **EXACT
    )
    assert geometry.alignment(IMAGES, own) == pytest.approx(
        np.mean([math.dist(a, b) ** 2 for a, b in zip(IMAGES, own, strict=True)]), **EXACT
    )
    pairs = pdist(IMAGES, "sqeuclidean")
    assert geometry.uniformity(IMAGES) == pytest.approx(np.log(np.exp(-2 * pairs).mean()), **EXACT)
    terms = (cdist(IMAGES, own).mean(), cdist(IMAGES, IMAGES).mean(), cdist(own, own).mean())
    expected = 2 * terms[0] - terms[1] - terms[2]
    found = geometry.energy_distance(IMAGES, TEXTS, LABELS)
    assert found == pytest.approx(expected, rel=1e-7)  # cdist rounds distances of equal vectors
    singular = np.sqrt(np.maximum(0, np.linalg.eigvalsh(np.cov(IMAGES.T))))
    assert geometry.effective_rank(IMAGES) == pytest.approx(np.exp(entropy(singular)), rel=1e-9)
    cosines = IMAGES @ TEXTS.T
    margins = [
        row[y] - max(value for c, value in enumerate(row) if c != y)
        for row, y in zip(cosines, LABELS, strict=True)
    ]
    np.testing.assert_allclose(geometry.margins(cosines, LABELS), margins, rtol=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = geometry.uniformity(IMAGES), geometry.energy_distance(IMAGES, TEXTS, LABELS)
    monkeypatch.setattr(geometry, "ROWS", 10)
    parts = geometry.uniformity(IMAGES), geometry.energy_distance(IMAGES, TEXTS, LABELS)
    assert parts == pytest.approx(whole, **EXACT)


def test_ridge_is_scikit_learns() -> None:
    train, test = slice(0, 100), slice(100, N)
    centred = IMAGES[train] - IMAGES[train].mean(axis=0)
    penalty = readout.RIDGE * np.square(centred).sum() / E
    model = Ridge(alpha=penalty).fit(IMAGES[train], np.eye(C)[LABELS[train]])
    expected = model.predict(IMAGES[test]).argmax(axis=1)
    found = readout.ridge_classes(IMAGES[train], LABELS[train], IMAGES[test])
    assert found.tolist() == expected.tolist()
    assert 0.5 < (found == LABELS[test]).mean() < 1


def test_neighbours_are_scikit_learns() -> None:
    train, test = slice(0, 100), slice(100, N)

    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / readout.NEAR)

    model = KNeighborsClassifier(readout.NEIGHBOURS, metric="cosine", weights=votes)
    expected = model.fit(IMAGES[train], LABELS[train]).predict(IMAGES[test])
    found = readout.neighbour_classes(IMAGES[train], LABELS[train], IMAGES[test])
    assert found.tolist() == expected.tolist()


def test_each_half_is_read_by_a_fit_to_the_other_one() -> None:
    first = readout.halves(LABELS)
    for label in range(C):
        own = first[label == LABELS]
        assert own.sum() == (len(own) + 1) // 2
    found = readout.crossed(readout.ridge_classes, IMAGES, LABELS)
    direct = readout.ridge_classes(IMAGES[~first], LABELS[~first], IMAGES[first])
    assert (found[first] == direct).all()
    shuffled = RNG.permutation(LABELS)
    at_chance = (readout.crossed(readout.ridge_classes, IMAGES, shuffled) == shuffled).mean()
    assert at_chance < 0.35  # of 1/6: it does not see the labels that it reads
