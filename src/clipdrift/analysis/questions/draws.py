"""Means of candidates as they are, and over seeds and images drawn again: the pigeonhole bootstrap.

Reference: Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from clipdrift.analysis.questions.candidates import Candidate
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.influence import Images

AT_ONCE = 4_000_000
"""Image weights that exist at a time: 32 MB."""


class Means(NamedTuple):
    """Means over seeds, once per draw: accuracy and retention, (n_candidates, n_draws).

    Retention is that of the transfer dataset on which a candidate keeps least in the draw.
    with_images: whether images were drawn too, on every set.
    """

    accuracy: Floats
    kept: Floats
    with_images: bool = False


def observed(candidates: Sequence[Candidate]) -> Means:
    """The means over the seeds as they are, n_draws = 1."""
    accuracy = [one.chosen_by.mean() for one in candidates]
    kept = [one.kept.mean(axis=0).min() for one in candidates]
    return Means(np.array(accuracy)[:, None], np.array(kept)[:, None])


def resampled(candidates: Sequence[Candidate], images: Images, n_draws: int, seed: int) -> Means:
    """The means over seeds and images drawn again with replacement, as many as there are.

    A draw has one set of seeds for all candidates with the same seeds, because their runs are
    matched, and one set of images per dataset for all of them. Where single images of a candidate
    are not known on a dataset, seeds alone are drawn there. A soup has no seeds to draw.
    """
    groups = sorted({one.seeds for one in candidates})
    weights = {
        seeds: _counts(np.random.default_rng([seed, i]), len(seeds), n_draws) / len(seeds)
        for i, seeds in enumerate(groups)
    }
    drawn, known = [], []
    for k in range(1 + candidates[0].kept.shape[1]):
        rows = _over_images(candidates, k, images, np.random.default_rng([seed, k, 1]), n_draws)
        known.append(rows is not None)
        values = rows or (_values(one, k)[:, None] for one in candidates)
        drawn.append(
            np.array(
                [
                    (value * weights[one.seeds]).sum(axis=0)
                    for one, value in zip(candidates, values, strict=True)
                ]
            )
        )
    return Means(drawn[0], np.min(drawn[1:], axis=0), all(known))


def _values(one: Candidate, k: int) -> Floats:
    return one.chosen_by if k == 0 else one.kept[:, k - 1]


def _over_images(
    candidates: Sequence[Candidate],
    k: int,
    images: Images,
    rng: np.random.Generator,
    n_draws: int,
) -> list[Floats] | None:
    """Per candidate its seeds' means over drawn images, (G, n_draws); None where not known."""
    found = [images.influence(one.ids, one.names[k]) for one in candidates]
    values = [one.values for one in found if one is not None]
    if len(values) < len(candidates) or len({value.shape[1] for value in values}) > 1:
        return None
    table = np.concatenate(values)
    n = table.shape[1]
    means = np.hstack([table @ counts / n for counts in _image_counts(rng, n, n_draws)])
    return np.split(means, np.cumsum([len(value) for value in values])[:-1])


def _image_counts(rng: np.random.Generator, n: int, n_draws: int) -> Iterator[Floats]:
    at_once = max(1, AT_ONCE // n)
    for start in range(0, n_draws, at_once):
        yield _counts(rng, n, min(at_once, n_draws - start))


def _counts(rng: np.random.Generator, n: int, n_draws: int) -> Floats:
    """How often each of n is in a draw of n with replacement, (n, n_draws)."""
    drawn = rng.integers(0, n, (n_draws, n)) + n * np.arange(n_draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n * n_draws).reshape(n_draws, n)
    return counts.T.astype(np.float64)
