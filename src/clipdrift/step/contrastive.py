"""The contrastive loss of CLIP between images and the prompts of their classes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clipdrift.methods.class_texts import ClassTexts


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over a batch, in nats.

    With f, t at unit length and l_ij = scale f_i . t_j:
    L = 1/2 mean_i [-log softmax_j(l_ij)]_ii + 1/2 mean_j [-log softmax_i(l_ij)]_jj.

    Args:
        images: [B, E] embeddings, any length.
        texts: [B, E] embedding of the prompt of each image's class, likewise.
        scale: what cosines are multiplied with.

    Returns:
        A scalar, 0 or more. An image of the same class elsewhere in the batch counts as a negative,
        so k images of one class cannot come below ln k for them.

    Reference: Radford et al. 2021, figure 3; Goyal et al. 2023, "Finetune like you pretrain",
    equation 1 with the prompts of section 3, which keeps same-class pairs as negatives.

    >>> contrastive_loss(torch.eye(2), torch.eye(2), torch.tensor(0.0)).item()  # ln 2
    0.6931471824645996
    """
    image, text = (nn.functional.normalize(v.float(), dim=-1) for v in (images, texts))
    logits = scale * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    each = [nn.functional.cross_entropy(rows, own) for rows in (logits, logits.T)]
    return (each[0] + each[1]) / 2


class AgainstTexts:
    """Embeddings of images and the numbers of their prompts -> the contrastive loss.

    Each prompt of the batch passes the text tower once, however many images bear it: the same
    result but for dropout, whose draw images of one class then share.
    """

    def __init__(
        self, texts: ClassTexts, autocast: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._texts, self._autocast = texts, autocast

    def __call__(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Images [B, E], numbers [B] of `ClassTexts` -> a scalar, in float32."""
        distinct, place = torch.unique(prompts, return_inverse=True)
        with self._autocast():
            read = self._texts(distinct)
        return contrastive_loss(images, read.float()[place], self._texts.log_scale.exp())


__all__ = ["AgainstTexts", "contrastive_loss"]
