"""How far the weights moved."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from clipdrift.machine.devices import for_float64


def weight_drift_rel(adapted: Mapping[str, Tensor], baseline: Mapping[str, Tensor]) -> float | None:
    """Size of the update against the size of the weights it was made to.

    ||W - W_0||_2 / ||W_0||_2 over all given tensors together, accumulated in float64.

    Args:
        adapted: name -> tensor of the weights in effect; for LoRA W_0 + (alpha / r) B A.
        baseline: the same names and shapes in the untouched backbone.

    Returns:
        0 or more, without unit; exactly 0 for equal tensors. None (undefined) if the baseline is
        all zero or empty, or a weight is not finite.

    Raises:
        ValueError: if names or shapes differ; names the difference.

    >>> import torch
    >>> weight_drift_rel({"w": torch.tensor([3.0, 4.5])}, {"w": torch.tensor([3.0, 4.0])})
    0.1
    """
    _require_same(adapted, baseline)
    moved = size = 0.0
    for name, before in baseline.items():
        # detach: an update is measured, never trained on.
        start = for_float64(before.detach()).double()
        step = adapted[name].detach().to(start.device).double() - start
        moved += step.square().sum().item()
        size += start.square().sum().item()
    ratio = math.sqrt(moved / size) if size > 0 else math.nan
    return ratio if math.isfinite(ratio) else None


def _require_same(adapted: Mapping[str, Tensor], baseline: Mapping[str, Tensor]) -> None:
    wrong = [f"{name!r} only in adapted" for name in sorted(adapted.keys() - baseline.keys())]
    wrong += [f"{name!r} only in baseline" for name in sorted(baseline.keys() - adapted.keys())]
    wrong += [
        f"{name!r} {list(adapted[name].shape)} against {list(baseline[name].shape)}"
        for name in sorted(adapted.keys() & baseline.keys())
        if adapted[name].shape != baseline[name].shape
    ]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(
            f"weight_drift_rel: expected the same names and shapes, got {shown}. "
            "Compare weights in effect under the baseline's names."
        )
