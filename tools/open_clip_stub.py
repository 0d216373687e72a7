"""To be imported before open_clip: it imports torchvision, whose package does not load beside a
torch for CPUs because two operators are missing. They are declared here, and never called.
"""

from __future__ import annotations

import torch
from torch import library as operators

KEPT = operators.Library("torchvision", "DEF")
"""Its declarations last as long as it does."""

if not hasattr(torch.ops.torchvision, "nms"):
    KEPT.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402

__all__ = ["open_clip"]
