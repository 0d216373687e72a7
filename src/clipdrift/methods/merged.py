"""Merged weights, those that a plain tower would hold, and what is made of them.

Means over seeds, movements scaled, mixtures with the untouched ones: the same arithmetic for every
method that has plain weights.

References: Wortsman et al. (2022), "Model soups", uniform soup; Ilharco et al. (2023), "Editing
models with task arithmetic", for scaling what training moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.class_texts import Prompts, untouched_beside
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.methods.weights_file import assign
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import FullFtSpec

Tensors = Mapping[str, Tensor]
Rescaling = Callable[[Tensors, Tensors], dict[str, Tensor]]
"""A tower's untouched and adapted tensors -> those of the rescaled one."""
TOWER = "tower."


@dataclass(frozen=True)
class Merged:
    """Tower and projection as a plain model holds them, and the head.

    text: of a contrastive loss, what is its own on the text side: `log_scale`, `bias` of a SigLIP,
    and of a text tower that is adapted `tower.*` and `projection.*`.
    """

    tower: Tensors
    projection: Tensors
    head: Tensors
    text: Tensors = field(default_factory=dict)


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
    tower, text = model.vision_state(), model.text_state()
    if tower is None or (text is None and model.text is not None):
        return None
    return Merged(
        {name: value.clone() for name, value in tower.items()},
        {name: value.clone() for name, value in model.projection_state().items()},
        {name: value.detach().clone() for name, value in model.head.state_dict().items()},
        {name: value.clone() for name, value in _text_side(model, text or {}).items()},
    )


def _text_side(model: AdaptedModel, tower: Tensors) -> dict[str, Tensor]:
    if model.texts is None:
        return {}
    named = in_encoder(tower, model.text_projection_state())
    return {**named, **model.texts.beside()}


def untouched_text(backbone: Backbone, text: Tensors) -> dict[str, Tensor]:
    """The backbone's own values of the tensors of a text side."""
    whole = in_encoder(backbone.text_state(), backbone.text_projection_state())
    whole |= untouched_beside(backbone)
    return {name: whole[name] for name in text}


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
        _mean([part.text for part in parts]),
    )


def _mean(parts: Sequence[Tensors]) -> dict[str, Tensor]:
    return {
        name: torch.stack([part[name].double() for part in parts]).mean(dim=0).to(value.dtype)
        for name, value in parts[0].items()
    }


def scaled(part: Merged, backbone: Backbone, scale: float) -> Merged:
    """theta_0 + scale (theta_1 - theta_0) on adapted towers; all else as it was trained.

    For a linear adapter this is its alpha times `scale`. Up to 1 it differs from interpolated
    weights in leaving the projection alone; above 1 it goes on beyond what training reached.
    """
    return rescaled(part, backbone, lambda before, now: between(before, now, scale))


def rescaled(part: Merged, backbone: Backbone, rule: Rescaling) -> Merged:
    """The image tower, and an adapted text tower, by one rule; all else as it was trained."""
    tower = rule(backbone.vision_state(), part.tower)
    side = {name: value for name, value in part.text.items() if name.startswith(TOWER)}
    before = {_in_tower(n): v for n, v in untouched_text(backbone, side).items()}
    moved = rule(before, {_in_tower(n): v for n, v in side.items()}) if side else {}
    text = {**part.text, **{f"{TOWER}{name}": value for name, value in moved.items()}}
    return replace(part, tower=tower, text=text)


def _in_tower(name: str) -> str:
    return name.removeprefix(TOWER)


def as_model(
    weights: Merged, backbone: Backbone, method: MethodBase, prompts: Prompts | None = None
) -> AdaptedModel:
    """A plain model that holds the weights, as full fine-tuning would have left it.

    Args:
        prompts: of each class, needed for a contrastive loss, whose classes are read anew.
    """
    spec = FullFtSpec(
        kind="full_ft",
        name=method.name,
        loss=method.loss,
        tower=method.tower,
        logit_scale=method.logit_scale,
        head=method.head,
        head_init=method.head_init,
    )
    n_classes = len(weights.head["weight"])
    model = build(backbone, spec, n_classes, seed=0, text_features=None, prompts=prompts)
    tower = {name: p.data for name, p in model.encoder.tower.named_parameters()}
    projection = {name: p.data for name, p in model.encoder.projection.named_parameters()}
    assign(tower, weights.tower, where="merged tower")
    assign(projection, weights.projection, where="merged projection")
    model.head.load_state_dict(dict(weights.head))
    if model.texts is not None:
        inside = {n: p.data for n, p in model.texts.named_parameters()}
        assign(inside, {_inside(n): v for n, v in weights.text.items()}, where="merged text side")
        model.read_texts()
    return model.eval()


def _inside(name: str) -> str:
    """The name that a tensor of a text side has in `ClassTexts`."""
    return f"encoder.{name}" if "." in name else name
