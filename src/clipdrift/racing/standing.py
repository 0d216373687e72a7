"""Who leads, how surely, and which cells could still change the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.questions.budget import DEFAULT, Budget
from clipdrift.analysis.questions.draws import Means
from clipdrift.analysis.questions.judged import verdict
from clipdrift.racing.imputed import Floats, Numbers, imputed

N_DRAWS = 400
EDGE = 1e-9
TINY = 1e-300
UNABLE = -1.0
"""Accuracy and retention below any there can be, of what is no candidate."""


@dataclass(frozen=True)
class Question:
    """What the race is to decide, and how surely.

    margin_pp: an answer is right that misses the floors by at most so many percentage points more
    than the best, and has at most so many less of what decides. probability: that it is right.
    """

    budget: Budget = DEFAULT
    margin_pp: float = 1.0
    probability: float = 0.95


class Standing(NamedTuple):
    """How a race stands.

    leader: cell and alpha (indices) that is most surely right; of cells with a finished run if
    there is one. probability: that it is right of the whole grid. worth: (C,) the share of draws in
    which the leader is wrong that a cell stands for: each is divided between the cell that holds
    the answer and the leader's, by how much of their difference is open because of either.
    """

    leader: tuple[int, int]
    probability: float
    worth: Floats


def standing(known: Numbers, question: Question, rng: np.random.Generator) -> Standing:
    """How the race stands, from `N_DRAWS` draws of the whole grid."""
    means = imputed(known, N_DRAWS, rng)
    n_cells, n_alphas = means.shape[:2]
    means[~known.able] = UNABLE
    flat = means.reshape(n_cells * n_alphas, *means.shape[2:])
    right, answer = judged(Means(flat[:, 0], flat[:, 1:].min(axis=1)), question)
    share = right.mean(axis=1)
    begun = np.isfinite(known.final[..., 0]).any(axis=1).ravel()
    leader = int(np.where(begun, share, share - 1).argmax())
    wrong = answer[~right[leader]]
    cell, alpha = divmod(leader, n_alphas)
    opened = (100 * flat[:, 0]).var(axis=-1) + flat[:, 1:].min(axis=1).var(axis=-1)
    own = opened[leader] / np.maximum(opened[leader] + opened[wrong], TINY)
    worth = np.bincount(wrong // n_alphas, 1 - own, minlength=n_cells) / N_DRAWS
    worth[cell] += own.sum() / N_DRAWS
    return Standing((cell, alpha), float(share[leader]), worth)


def judged(means: Means, question: Question) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Per candidate and draw whether it is right, (N, n_draws); per draw which one is best.

    >>> means = Means(np.array([[0.9], [0.895], [0.8]]), np.array([[96.0], [99.0], [99.5]]))
    >>> right, best = judged(means, Question(Budget(min_retention_pct=95.0)))
    >>> right[:, 0].tolist(), best.tolist()
    ([True, True, False], [0])
    """
    missing = verdict(means, question.budget).shortfall_pp
    least = missing.min(axis=0)
    first, second = 100 * means.accuracy, means.kept
    if question.budget.decides == "retention":
        first, second = second, first
    able = missing <= least + EDGE
    most = np.where(able, first, -np.inf).max(axis=0)
    best = np.where(able & (first >= most - EDGE), second, -np.inf).argmax(axis=0)
    margin = question.margin_pp + EDGE
    # Where none meets the floors, the nearest miss is the answer, whatever else it has.
    right = (missing <= least + margin) & ((first >= most - margin) | (least > 0))
    return right, best
