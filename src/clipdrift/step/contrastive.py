"""Contrastive losses between images and texts, over all of a batch.

A CLIP learned by softmax over the texts of a batch, a SigLIP by a sigmoid of each pair; each is
trained on by the loss that it learned by.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clipdrift.methods.class_texts import ClassTexts


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, positives: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE over a batch, in nats.

    With f, t at unit length, l_ij = scale f_i . t_j and P(i) the texts that are right for image i:
    L = 1/2 mean_i [-log sum_{p in P(i)} softmax_j(l_ij)_p] + the same of texts against images.

    Args:
        images: [B, E] embeddings, any length.
        texts: [B, E] embedding of a text of each image, likewise.
        scale: what cosines are multiplied with.
        positives: bool [B, B], symmetric, true on the diagonal: which images and texts belong
            together. Default: each image with its own text alone; k images of one class then cannot
            come below ln k for them.

    Returns:
        A scalar, 0 or more.

    Reference: Radford et al. 2021, figure 3; Goyal et al. 2023, "Finetune like you pretrain",
    equation 1 with the prompts of section 3, which keeps same-class pairs as negatives; with
    `positives` Miech et al. 2020, "End-to-end learning of visual representations from uncurated
    instructional videos" (MIL-NCE), equation 1. A mean over P(i) outside of the logarithm would be
    no other loss where texts are equal: it leaves them among the negatives.

    >>> contrastive_loss(torch.eye(2), torch.eye(2), torch.tensor(0.0)).item()  # ln 2
    0.6931471824645996
    """
    logits = scale * _cosines(images, texts)
    if positives is None:
        own = torch.arange(len(logits), device=logits.device)
        each = [nn.functional.cross_entropy(rows, own) for rows in (logits, logits.T)]
    else:
        wrong = ~positives
        each = [
            (rows.logsumexp(1) - rows.masked_fill(wrong, -torch.inf).logsumexp(1)).mean()
            for rows in (logits, logits.T)
        ]
    return (each[0] + each[1]) / 2


def sigmoid_loss(
    images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, positives: Tensor | None = None
) -> Tensor:
    """-1/B sum_ij log sigmoid(z_ij (scale f_i . t_j + bias)), z_ij = 1 where i and j belong
    together, else -1; in nats.

    Args:
        images, texts, scale, positives: as for `contrastive_loss`.
        bias: what is added to every logit; SigLIP starts it at -10, as most pairs are wrong.

    Reference: Zhai et al. 2023, "Sigmoid loss for language image pre-training", equation 1.

    >>> zero = torch.tensor(0.0)
    >>> sigmoid_loss(torch.eye(2), torch.eye(2), zero, zero).item()  # 2 ln 2
    1.3862943649291992
    """
    logits = scale * _cosines(images, texts) + bias
    right = torch.eye(len(logits), device=logits.device) if positives is None else positives
    return -nn.functional.logsigmoid((2 * right.float() - 1) * logits).sum() / len(logits)


def _cosines(images: Tensor, texts: Tensor) -> Tensor:
    image, text = (nn.functional.normalize(v.float(), dim=-1) for v in (images, texts))
    product: Tensor = image @ text.T
    return product


class AgainstTexts:
    """Embeddings of images and the numbers of their texts -> the contrastive loss.

    Each text of the batch passes the text tower once, however many images bear it: the same
    result but for dropout, whose draw images of one text then share.
    """

    def __init__(
        self,
        texts: ClassTexts,
        autocast: Callable[[], AbstractContextManager[object]],
        positives: str = "pair",
    ) -> None:
        """positives: as in `MethodBase`."""
        self._texts, self._autocast, self._positives = texts, autocast, positives

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Images [B, E], numbers [B] of `ClassTexts` -> a scalar, in float32."""
        distinct, place = torch.unique(numbers, return_inverse=True)
        return self.compare(images, self.read(distinct), place, numbers)

    def read(self, distinct: Tensor) -> Tensor:
        """Texts by number [U] -> their embeddings [U, E], with their gradient."""
        with self._autocast():
            found: Tensor = self._texts(distinct)
            return found

    def compare(self, images: Tensor, texts: Tensor, place: Tensor, numbers: Tensor) -> Tensor:
        """The loss of images [B, E] and texts [U, E], of which image i bears `place[i]`."""
        scale, bias = self._texts.log_scale.exp(), self._texts.bias
        of_images, right = texts.float()[place], self._right(numbers)
        if bias is None:
            return contrastive_loss(images, of_images, scale, right)
        return sigmoid_loss(images, of_images, scale, bias, right)

    def _right(self, numbers: Tensor) -> Tensor | None:
        if self._positives == "pair":
            return None
        same = numbers
        if self._positives == "class":
            same = torch.div(numbers, self._texts.n_templates, rounding_mode="floor")
        equal: Tensor = same[:, None] == same[None, :]
        return equal
