"""A short ramp of learning rates: from where a method learns at all to where it breaks.

Reference: Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3, the
range test. Here the rate rises in steps, and the head stands still: what falls is what the encoder
has learned. A head that is probed first in the run is not probed here: with it the loss has hardly
far to fall, and the lowest is one of chance. Optimal rates of ten methods differ by orders of
magnitude, so each is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from clipdrift.materials import Materials
from clipdrift.spec import RunConfig
from clipdrift.study.trial import built
from clipdrift.training.loop import Diverged, train

LADDER = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STEPS = 5
"""Batches at each rate."""
BROKEN = 1.5
"""A loss this many times the lowest one ends a ramp."""
BELOW = 2
"""Rates of the ladder to try below the one at which the loss was lowest; a race adds more."""
OWN_BELOW = 3
"""The same for a method with rates of its own, to which no race adds."""
LONG = 1000
"""Epochs of a schedule whose rate stays nearly as it is over a few steps."""

Ramp = list[tuple[float, float]]
"""Learning rates, rising, with the mean loss in nats over the steps at each."""


def ramp(run: RunConfig, materials: Materials, device: str) -> Ramp:
    """Train one model with rising rates until it breaks; the run's own rate has no part."""
    images = materials.targets[run.target.name].train
    model, _ = built(run, materials, device)
    steps = {"epochs": LONG, "max_steps": STEPS, "warmup_fraction": 0.0}
    schedule = run.schedule.model_copy(update=steps)
    found: Ramp = []
    for seed, rate in enumerate(LADDER):  # other images at each rate
        loss = math.inf
        with suppress(Diverged):
            for done in train(
                model, images, schedule=schedule, learning_rate=rate, head_rate=0.0, seed=seed,
                precision=run.precision,
            ):  # fmt: skip
                loss = done.train_loss
        if loss > BROKEN * min((other for _, other in found), default=math.inf):
            break
        found.append((rate, loss))
    return found


def ramps(
    runs: Iterable[RunConfig],
    materials: Materials,
    device: str,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Ramp]:
    """The ramp of every method, on the first target of each.

    Methods that differ in their penalties alone have one ramp, without them.
    """
    found: dict[str, Ramp] = {}
    known: dict[str, Ramp] = {}
    for run in runs:
        if run.method.name in found:
            continue
        bare = run.method.model_copy(update={"penalties": []})
        kind = bare.model_dump_json(exclude={"name"})
        if kind not in known:
            say(f"finding the range of learning rates: {run.method.name}")
            known[kind] = ramp(run.model_copy(update={"method": bare}), materials, device)
        found[run.method.name] = known[kind]
    return found


def rates_of(found: Sequence[Ramp], below: int = BELOW) -> list[float]:
    """Rates that reach from some rungs below each ramp's best one to that rung itself, rising.

    The best rung is that of the lowest loss. What lies between the ranges of two methods is in:
    one grid for all.

    Args:
        below: rungs to try below the best.

    >>> rates_of([[(1e-4, 2.0), (3e-4, 1.0), (1e-3, 1.4)], [(3e-4, 2.0), (1e-3, 1.0)]])
    [3e-05, 0.0001, 0.0003, 0.001]
    """
    best = [LADDER.index(min(one, key=lambda rung: rung[1])[0]) for one in found if one]
    if not best:
        return [LADDER[4], LADDER[6]]
    return list(LADDER[max(0, min(best) - below) : max(best) + 1])
