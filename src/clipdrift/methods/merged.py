"""Merged weights, those that a plain tower would hold, and what is made of them.

Means over seeds, movements scaled, mixtures with the untouched ones: the same arithmetic for every
method that has plain weights.

References: Wortsman et al. (2022), "Model soups", uniform soup; Ilharco et al. (2023), "Editing
models with task arithmetic", for scaling what training moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.weights_file import assign
from clipdrift.spec.methods import FullFtSpec, MethodBase

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Merged:
    """Tower and projection as a plain model holds them, and the head."""

    tower: Tensors
    projection: Tensors
    head: Tensors


def between(
    untouched: Mapping[str, Tensor], adapted: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """theta(a) = (1 - a) theta_0 + a theta_1 for every tensor; bit-equal at a = 0 and a = 1.

    Args:
        untouched, adapted: the same names and shapes.
        alpha: 0 (untouched) to 1 (adapted).

    >>> zero, one = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    >>> between(zero, one, 0.25)["w"].tolist()
    [1.5, 2.0]
    """
    return {
        name: torch.lerp(untouched[name].to(value.device), value, alpha)
        for name, value in adapted.items()
    }


def merged(model: AdaptedModel) -> Merged | None:
    """The weights of a model; None for a method whose tower no plain weights amount to."""
    tower = model.vision_state()
    if tower is None:
        return None
    return Merged(
        {name: value.clone() for name, value in tower.items()},
        {name: value.clone() for name, value in model.projection_state().items()},
        {name: value.detach().clone() for name, value in model.head.state_dict().items()},
    )


def soup(parts: Sequence[Merged]) -> Merged:
    """The uniform mean of tower, projection and head, summed in float64.

    The head is linear on labelled classes, so the mean of heads gives the mean of their logits on
    the same embedding, whatever they began with. Equal weights have themselves as their mean, bit
    by bit.
    """
    return Merged(
        _mean([part.tower for part in parts]),
        _mean([part.projection for part in parts]),
        _mean([part.head for part in parts]),
    )


def _mean(parts: Sequence[Tensors]) -> dict[str, Tensor]:
    return {
        name: torch.stack([part[name].double() for part in parts]).mean(dim=0).to(value.dtype)
        for name, value in parts[0].items()
    }


def scaled(part: Merged, backbone: Backbone, scale: float) -> Merged:
    """theta_0 + scale (theta_1 - theta_0) on the tower; projection and head as they were trained.

    For a linear adapter this is its alpha times `scale`. Up to 1 it differs from interpolated
    weights in leaving the projection alone; above 1 it goes on beyond what training reached.
    """
    return Merged(between(backbone.vision_state(), part.tower, scale), part.projection, part.head)


def as_model(weights: Merged, backbone: Backbone, method: MethodBase) -> AdaptedModel:
    """A plain model that holds the weights, as full fine-tuning would have left it."""
    spec = FullFtSpec(
        kind="full_ft", name=method.name, head=method.head, head_init=method.head_init
    )
    n_classes = len(weights.head["weight"])
    model = build(backbone, spec, n_classes, seed=0, text_features=None)
    tower = {name: p.data for name, p in model.encoder.tower.named_parameters()}
    projection = {name: p.data for name, p in model.encoder.projection.named_parameters()}
    assign(tower, weights.tower, where="merged tower")
    assign(projection, weights.projection, where="merged projection")
    model.head.load_state_dict(dict(weights.head))
    return model.eval()


__all__ = ["Merged", "as_model", "between", "merged", "scaled", "soup"]
