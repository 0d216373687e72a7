"""Penalties: what a method adds to the loss so that the encoder stays near the untouched one.

Each is one pure function of what a batch showed, and a mean over its images or independent of them,
so that parts of a batch add up to the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipdrift import plugins
from clipdrift.penalties.attention import attention_divergence, entropy_shortfall
from clipdrift.penalties.features import feature_distance
from clipdrift.penalties.l2_sp import l2_sp
from clipdrift.penalties.seen import Seen
from clipdrift.spec.penalties import PenaltySpec


@dataclass(frozen=True)
class Compared:
    """The live encoder in one step beside the untouched one on the same pixels.

    trained, start: the encoder's trained tensors by name, now and at step 0.
    """

    live: Seen
    untouched: Seen
    trained: Mapping[str, Tensor]
    start: Mapping[str, Tensor]


@dataclass(frozen=True)
class Penalty:
    """value: (its spec, what was compared) -> a scalar. What it looks at, and so costs."""

    value: Callable[[Any, Compared], Tensor]
    images: bool = True
    attention: bool = False


PENALTIES: dict[str, Penalty] = {
    "l2_sp": Penalty(lambda spec, c: l2_sp(c.trained, c.start), images=False),
    "feature_distillation": Penalty(
        lambda spec, c: feature_distance(
            c.live.embeddings, c.untouched.embeddings, normalised=spec.normalised
        )
    ),
    "attention_preservation": Penalty(
        lambda spec, c: attention_divergence(
            c.live.cls_log_attention, c.untouched.cls_log_attention
        ),
        attention=True,
    ),
    "entropy_floor": Penalty(
        lambda spec, c: entropy_shortfall(c.live.cls_log_attention, c.untouched.cls_log_attention),
        attention=True,
    ),
}


def penalty_of(spec: PenaltySpec, where: str) -> Penalty:
    """The penalty of a spec, ours or that of another package.

    Args:
        where: what a fault is to name.

    Raises:
        PluginError: if a package's is not there, cannot be imported or is none.
    """
    if spec.kind != "plugin":
        return PENALTIES[spec.kind]
    plugin = plugins.find("penalties", spec.type, where, ours=PENALTIES)
    found = plugins.load(plugin, where)
    if not isinstance(found, Penalty):
        raise plugins.wrong_type(plugin, where, "a clipdrift.penalties.Penalty", found)
    return found


__all__ = ["Compared", "Penalty", "penalty_of"]
