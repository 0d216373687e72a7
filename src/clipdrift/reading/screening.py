"""Predicted classes at nearly the price of bfloat16, as float32 predicts them.

Every image is scored in bfloat16. Where the two largest scores are so close that rounding could
have changed their order, the image is scored again in float32 and that decides. How close is too
close is measured on the same images with the model as it is: see `Predictor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone, n_tokens
from clipdrift.data.images import Images
from clipdrift.probes.attention_maps import tower_blocks
from clipdrift.probes.zero_shot import largest
from clipdrift.records.correct import Correct
from clipdrift.step.engine import autocast
from clipdrift.training.loop import in_batches

Score = Callable[[Tensor], Tensor]
"""uint8 [B, S, S, 3] -> a score for each class [B, C], through the live model."""

SAMPLE = 64
"""Images whose bfloat16 error is measured first, spread evenly over the set."""

SAFETY = 2.0
"""A margin decides where it exceeds this many times the largest error seen."""

WORTH_SCREENING = 1e9
"""Multiply-adds per image from which it pays: below, overheads that both precisions share weigh
more than the products."""


@dataclass
class Predictor:
    """Predicts classes with one batch size and one rule, and counts what it settled in float32.

    The rule, where `screened`: with s the bfloat16 scores, t the float32 scores and c the class of
    the largest s, an image's error is max_k |(s_c - s_k) - (t_c - t_k)|. An image is settled by s
    if s_c exceeds every other score by more than SAFETY times the largest error seen so far, and by
    t otherwise. Errors are seen on SAMPLE images, then on every image that is settled by t, until
    no further image falls within the bound. So t decides every call that an error of twice the
    largest one among hundreds of images could have changed. Scores that are not finite are settled
    by t.

    images: predicted under the rule so far. settled: how many of them float32 decided.
    """

    batch_size: int
    screened: bool = False
    images: int = 0
    settled: int = 0

    @property
    def settled_fraction(self) -> float | None:
        """Part of the images under the rule that float32 decided; None if there were none."""
        return self.settled / self.images if self.images else None

    @torch.inference_mode()
    def classes(self, score: Score, images: Images, device: torch.device) -> Tensor:
        """Predicted classes [N] int64 on the CPU; -1 where float32 scores are not finite."""
        if not self.screened or len(images) <= 2 * SAMPLE:
            return largest(self._scores(score, images, device, "float32"))
        rough = self._scores(score, images, device, "bfloat16")
        margin = _margin(rough)
        predicted, open_ = largest(rough), torch.ones(len(images), dtype=torch.bool)
        close = torch.linspace(0, len(images) - 1, SAMPLE).long()
        bound = 0.0
        while len(close):
            exact = self._scores(score, images.select(close.numpy()), device, "float32")
            predicted[close], open_[close] = largest(exact), False
            bound = max(bound, SAFETY * _largest_error(rough[close], exact))
            close = (open_ & ~(margin > bound)).nonzero().squeeze(1)
        self.images += len(images)
        self.settled += len(images) - int(open_.sum())
        return predicted

    def correct(self, score: Score, images: Images, device: torch.device) -> Correct:
        """The images whose predicted class is their label."""
        return Correct.of(self.classes(score, images, device).numpy() == images.labels)

    def _scores(self, score: Score, images: Images, device: torch.device, precision: str) -> Tensor:
        with autocast(device, precision):
            parts = [score(b.to(device)).float() for b in in_batches(images, self.batch_size)]
        return torch.cat(parts).cpu()


def _margin(scores: Tensor) -> Tensor:
    """[N] largest less second largest score; zero where one is not finite or there is but one."""
    first, *second = scores.topk(min(2, scores.shape[1])).values.T
    margin = first - second[0] if second else torch.zeros_like(first)
    return torch.where(scores.isfinite().all(dim=1), margin, 0.0)


def _largest_error(rough: Tensor, exact: Tensor) -> float:
    """Largest error of a difference to the top class; infinite if float32 itself is not finite."""
    top = rough.argmax(dim=1, keepdim=True)
    error = (rough.gather(1, top) - rough) - (exact.gather(1, top) - exact)
    error = error[rough.isfinite().all(dim=1)].abs()  # the others are settled in any case
    return float(error.nan_to_num(nan=math.inf).max()) if len(error) else 0.0


def worth_screening(backbone: Backbone, precision: str) -> bool:
    """Whether a run in this precision should screen: bfloat16, and enough work per image."""
    tower: Any = backbone.model.vision_model
    weights = sum(p.numel() for block in tower_blocks(tower) for p in block.parameters())
    return precision == "bfloat16" and weights * n_tokens(tower) >= WORTH_SCREENING
