"""Which part of an encoder carries a loss: told only where it stands out from every other part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipdrift.analysis.questions.families import holm
from clipdrift.analysis.statistics.intervals import Floats, TTest, t_test

Place = tuple[int | None, str]
"""Block (from 1, at the image side) and kind of a part."""
ALPHA = 0.05
WHOLE = ("block", "embeddings", "projection", "text")
"""Kinds that share a model among themselves; the others lie inside blocks."""


@dataclass(frozen=True)
class Carrier:
    """The part that carries a loss, as far as it can be told.

    block, kind: null and None where no part stands out; kind "block" where the block does and no
    kind of module in it. share: of the loss that the part carries. p: the largest of the tests
    against the other parts, corrected by Holm's method. reason: why less is told.
    """

    block: int | None = None
    kind: str | None = None
    share: float | None = None
    p: float | None = None
    reason: str | None = None

    @property
    def words(self) -> str:
        """For people.

        >>> Carrier(3, "mlp").words, Carrier(3, "block").words, Carrier().words
        ('block 3, mlp', 'block 3', 'cannot tell')
        """
        if self.kind is None:
            return "cannot tell"
        if self.block is None:
            return self.kind
        return f"block {self.block}" + ("" if self.kind == "block" else f", {self.kind}")


def carrier(
    lost: Floats,
    parts: Mapping[Place, Floats],
    above: Mapping[Place, float | None],
    *,
    floor: float = 0.0,
) -> Carrier:
    """The block, and the kind of module in it, that carry a loss.

    A part carries half of what putting it back restores plus half of what it loses when it is moved
    alone. The block with the most is named if it carries more than every other one and putting it
    back does more than a random change of its size; then the kind inside it likewise. Differences
    are paired over the sample, tested by t at 5 %, and corrected by Holm's method over the parts.

    Args:
        lost: [n] percentage points, positive where accuracy fell; n seeds, or n images.
        parts: [n] each, what a part carries of it.
        above: change by putting a part back less that by random changes, percentage points.
        floor: least standard deviation, for samples that may not vary by chance.
    """
    fallen = _tested(lost, floor)
    if len(lost) < 2:
        return Carrier(reason="one seed: cannot tell")
    if fallen.value <= 0 or (fallen.p or 0.0) >= ALPHA or fallen.se is None:
        return Carrier(reason="no loss that stands out from its own spread")
    whole = {place: values for place, values in parts.items() if place[1] in WHOLE}
    best, p = _first(whole, floor)
    if best is None or p >= ALPHA:
        return Carrier(p=p, reason="no block stands out from the others")
    if (above.get(best) or 0.0) <= 0 and best[1] != "text":
        return Carrier(p=p, reason="a random change of the same size does as much")
    share = float(parts[best].mean()) / fallen.value
    inside = {at: v for at, v in parts.items() if at[0] == best[0] and at[1] not in WHOLE}
    if best[1] != "block":
        return Carrier(*best, share, p)
    if not inside:
        return Carrier(*best, share, p, "kinds of module in it were not read in every run")
    kind, p_kind = _first(inside, floor)
    if kind is None or p_kind >= ALPHA:
        return Carrier(*best, share, p, "no kind of module in it stands out from the others")
    return Carrier(*kind, float(parts[kind].mean()) / fallen.value, max(p, p_kind))


def _first(parts: Mapping[Place, Floats], floor: float) -> tuple[Place | None, float]:
    """The part that carries most, and the largest corrected p of its lead over the others."""
    if not parts:
        return None, 1.0
    best = max(parts, key=lambda place: float(parts[place].mean()))
    others = [parts[best] - values for place, values in parts.items() if place != best]
    tests = [_tested(lead, floor) for lead in others]
    if parts[best].mean() <= 0 or any(test.value <= 0 for test in tests):
        return None, 1.0
    if not tests:  # of one block alone: it is all there is
        tests = [_tested(parts[best], floor)]
    if any(test.p is None for test in tests):
        return None, 1.0
    return best, float(holm(np.array([test.p for test in tests])).max())


def _tested(values: Floats, floor: float) -> TTest:
    """Student's t with a standard deviation of at least `floor`."""
    found = t_test(values)
    least = floor / np.sqrt(len(values))
    if found.df and (found.se or 0.0) < least:
        return TTest(found.value, float(least), found.df)
    return found
