"""What the update of each weight matrix looks like beside the weight that it changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipdrift.probes.drift import Value
from clipdrift.probes.spectra import (
    Floats,
    Spectrum,
    are_intruders,
    energy_within,
    entropy_rank,
    spectrum,
    stable_rank,
    update_values,
)

LEADING = 10
"""Leading singular vectors that are looked at for intruders and angles."""
A_TENTH = 10
"""The top and the bottom tenth of an untouched weight's singular directions."""
IN_BLOCK = re.compile(r"encoder\.layers\.(\d+)\..*weight")


@dataclass(frozen=True, kw_only=True)
class WeightUpdate:
    """One weight matrix [m, n] of a block. None: undefined, as the rank of an update of zeros.

    block: from 1, at the image side
    stable_rank, effective_rank: of the update, 1 to its rank
    top_energy, bottom_energy: share of the update's squared norm between the top, the bottom tenth
        of the untouched weight's singular directions; of a random update 0.01 where m = n
    intruder_dimensions: of the 10 leading left singular vectors of the adapted weight
    angles_deg: principal angles between the spans of the 10 leading left singular vectors, adapted
        and untouched, smallest first
    """

    weight: str
    block: int
    stable_rank: float | None = None
    effective_rank: float | None = None
    top_energy: float | None = None
    bottom_energy: float | None = None
    intruder_dimensions: int | None = None
    angles_deg: tuple[float, ...] | None = None

    @property
    def leading_angle_deg(self) -> float | None:
        """Mean of the principal angles."""
        return None if self.angles_deg is None else float(np.mean(self.angles_deg))


def weight_updates(
    adapted: Mapping[str, Tensor],
    baseline: Mapping[str, Tensor],
    known: MutableMapping[str, Spectrum] | None = None,
) -> list[WeightUpdate]:
    """The update of every weight matrix in the blocks of a tower, block by block.

    Exact, by `spectra`; on as many threads as torch has here.

    Args:
        adapted, baseline: a tower's plain weights by name, adapters merged.
        known: what was found before of this baseline's weights, which is taken from it and added
            to it: as much memory as these weights take in float32.

    Returns:
        One for each matrix; of one that did not move ranks and energies are None, intruders and
        angles exactly 0. All None where a weight is not finite.
    """
    from threadpoolctl import threadpool_limits

    names = [name for name, w in baseline.items() if IN_BLOCK.fullmatch(name) and w.ndim == 2]
    spectra: MutableMapping[str, Spectrum] = {} if known is None else known

    def read(name: str) -> WeightUpdate:
        return _update(name, adapted[name], baseline[name], spectra)

    # One thread a matrix: they are many and small.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return sorted(pool.map(read, names), key=lambda one: one.block)


def _update(
    name: str, adapted: Tensor, baseline: Tensor, known: MutableMapping[str, Spectrum]
) -> WeightUpdate:
    found = IN_BLOCK.fullmatch(name)
    assert found is not None
    block = int(found[1]) + 1
    now, before = (w.detach().cpu().float().numpy() for w in (adapted, baseline))
    few = min(LEADING, *now.shape)
    if np.array_equal(now, before):
        angles = (0.0,) * few
        return WeightUpdate(weight=name, block=block, intruder_dimensions=0, angles_deg=angles)
    if not np.isfinite(now).all():
        return WeightUpdate(weight=name, block=block)
    if name not in known:
        known[name] = spectrum(before)
    return _moved(name, block, now.astype(np.float64), known[name], few)


def _moved(name: str, block: int, now: Floats, untouched: Spectrum, few: int) -> WeightUpdate:
    from scipy.linalg import subspace_angles

    before = untouched.weight.astype(np.float64)
    update, values, leading = now - before, update_values(now, before), spectrum(now, few).left()
    tenth = max(1, min(now.shape) // A_TENTH)
    top, bottom = slice(0, tenth), slice(-tenth, None)
    angles = np.rad2deg(np.sort(subspace_angles(leading, untouched.left(slice(few)))))
    return WeightUpdate(
        weight=name,
        block=block,
        stable_rank=stable_rank(values),
        effective_rank=entropy_rank(values),
        top_energy=energy_within(update, untouched.left(top), untouched.right(top)),
        bottom_energy=energy_within(update, untouched.left(bottom), untouched.right(bottom)),
        intruder_dimensions=int(are_intruders(leading, untouched).sum()),
        angles_deg=tuple(angles.tolist()),
    )


OF_UPDATES = {
    "update_stable_rank": "stable_rank",
    "update_effective_rank": "effective_rank",
    "update_top_energy": "top_energy",
    "update_bottom_energy": "bottom_energy",
    "intruder_dimensions": "intruder_dimensions",
    "leading_angle_deg": "leading_angle_deg",
}
"""Drift signal -> what it is of each weight: the mean over matrices; of intruders the sum."""


def over_weights(updates: Sequence[WeightUpdate] | None, n_blocks: int) -> dict[str, Value]:
    """The signals of `OF_UPDATES` of a tower, and of each block under `<name>_per_block`.

    Means are over the matrices in which a quantity is defined: ranks and energies over those that
    moved. None where there is none.

    Args:
        updates: None where no plain weights amount to the model.
    """
    out: dict[str, Value] = {}
    for name, field in OF_UPDATES.items():
        blocks: list[list[float]] = [[] for _ in range(n_blocks)]
        for one in updates or ():
            if (value := getattr(one, field)) is not None:
                blocks[one.block - 1].append(float(value))
        together = np.sum if field == "intruder_dimensions" else np.mean
        every = [value for block in blocks for value in block]
        out[name] = float(together(every)) if every else None
        out[f"{name}_per_block"] = [float(together(own)) if own else None for own in blocks]
    return out
