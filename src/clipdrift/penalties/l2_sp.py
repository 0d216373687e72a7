"""L2-SP: stay near the starting point in weight space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def l2_sp(trained: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance of the weights from their starting point.

    1/2 sum_i ||w_i - w_i^0||_2^2 over the encoder's trained tensors i, projection included.

    Args:
        trained: name -> tensor as it is now, with its gradient.
        start: the same names and shapes at step 0. For LoRA that is B = 0 and A as it was drawn:
            the distance is one of the factors, not of their product.

    Returns:
        A scalar, 0 or more.

    Reference: Li, Grandvalet & Davoine 2018, "Explicit inductive bias for transfer learning with
    convolutional networks", equation 2; their second term, an L2 penalty on the new head, is left
    to the schedule's weight decay, which pulls every trained tensor towards zero as well.

    >>> l2_sp({"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])}).item()
    2.0
    """
    return (
        0.5 * torch.stack([(w - start[name]).square().sum() for name, w in trained.items()]).sum()
    )
