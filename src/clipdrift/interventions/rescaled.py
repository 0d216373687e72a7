"""What training moved, scaled by depth, by direction or by head: candidates made without training.

Projection and head stay as they were trained. A tower of the text side that trained is scaled with
the image side, but for attention, whose entropy is read on images.

References: Wang et al. (2024), "LiNeS", arXiv 2410.17146, equation 4; Shuttleworth et al. (2024),
"LoRA vs full fine-tuning", arXiv 2410.21228, section 5, for intruder dimensions scaled down.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.data.images import Images
from clipdrift.errors import Fault, MethodError
from clipdrift.interventions.walk import Stages, Walk
from clipdrift.machine.devices import for_float64
from clipdrift.methods.merged import Merged, Tensors, between, rescaled
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.probes.spectra import are_intruders, spectrum
from clipdrift.probes.weight_updates import LEADING

IN_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.")
BEHIND = ("post_layernorm.", "final_layer_norm.", "head.")
SPAN, HALVINGS = 16.0, 40
"""Attention is made at most so much sharper or flatter; the factor is found by halving."""


def lines(part: Merged, backbone: Backbone, first: float) -> Merged:
    """The movement of block l of L times first + (1 - first) (l - 1) / (L - 1), as LiNeS.

    What comes before the blocks moves as the first one, what comes behind them as it was trained.

    Args:
        first: factor of the first block, 0 to 1.
    """

    def by_depth(untouched: Tensors, adapted: Tensors) -> dict[str, Tensor]:
        last = max(int(found[1]) for name in adapted if (found := IN_BLOCK.match(name)))
        out: dict[str, Tensor] = {}
        for name, value in adapted.items():
            found = IN_BLOCK.match(name)
            depth = int(found[1]) / last if found and last else float(name.startswith(BEHIND))
            scale = first + (1 - first) * depth
            out |= between({name: untouched[name]}, {name: value}, scale)
        return out

    return rescaled(part, backbone, by_depth)


def damped(part: Merged, backbone: Backbone, factor: float) -> Merged:
    """Intruder dimensions of every weight matrix of the blocks, times `factor`.

    W = sum_i s_i u_i v_i' becomes W - (1 - factor) sum_j s_j u_j v_j' over those j of the 10
    largest s whose u_j has |cosine| < 0.5 with every left singular vector of the untouched weight.

    Args:
        factor: 0 (removed) to 1 (as trained).
    """

    def by_direction(untouched: Tensors, adapted: Tensors) -> dict[str, Tensor]:
        return {
            name: _damped(untouched[name], value, factor)
            if IN_BLOCK.match(name) and value.ndim == 2
            else value
            for name, value in adapted.items()
        }

    return rescaled(part, backbone, by_direction)


def _damped(untouched: Tensor, adapted: Tensor, factor: float) -> Tensor:
    if torch.equal(untouched.to(adapted.device), adapted):
        return adapted
    before, now = (w.cpu().double().numpy() for w in (untouched, adapted))
    own = spectrum(now, LEADING)
    out = are_intruders(own.left(), spectrum(before))
    removed = (own.left()[:, out] * own.values[out]) @ own.right()[:, out].T
    return torch.from_numpy(now - (1 - factor) * removed).to(adapted)


def tempered(part: Merged, backbone: Backbone, probe: Images, strength: float) -> Merged:
    """Each head's attention from CLS made as spread out as the untouched model's is.

    Block by block queries are multiplied by t^strength, where t gives the mean entropy over the
    probe images of softmax(t logits) the untouched value. Of entropies that no t between 1/16 and
    16 reaches, the nearest one is taken.

    Args:
        probe: images on which entropies are read, as drift is.
        strength: 0 (as trained) to 1 (the untouched entropy).

    Raises:
        MethodError: of a model without a CLS token.
    """
    walk = Walk(backbone.encoder())
    if not walk.has_cls:
        got, step = "a SigLIP, whose tower has none", "Leave --temper away"
        raise MethodError(Fault(f"backbone {backbone.name}", "a CLS token", got, step))
    untouched = walk.staged(in_encoder(backbone.vision_state(), backbone.projection_state()))
    tower = {name: value.clone() for name, value in part.tower.items()}
    with torch.inference_mode():
        pixels = list(walk.batches(probe))
        states = [walk.enter(untouched, some) for some in pixels]
        own = _staged(walk, tower, part)
        adapted = [walk.enter(own, some) for some in pixels]
        for number in range(1, walk.n_blocks + 1):
            wanted = _entropy(_from_cls(walk, number, untouched, states), None)
            factor = _factor(_from_cls(walk, number, own, adapted), wanted) ** strength
            for kind in ("weight", "bias"):
                name = f"encoder.layers.{number - 1}.self_attn.q_proj.{kind}"
                rows = tower[name].reshape(len(factor), -1)
                tower[name] = (rows * factor[:, None].to(rows)).reshape(tower[name].shape)
            own = _staged(walk, tower, part)
            states = [walk.block(number, untouched, hidden) for hidden in states]
            adapted = [walk.block(number, own, hidden) for hidden in adapted]
    return replace(part, tower=tower)


def _staged(walk: Walk, tower: Tensors, part: Merged) -> Stages:
    device = walk.encoder.mean.device
    named = in_encoder(tower, part.projection)
    return walk.staged({name: value.to(device) for name, value in named.items()})


def _from_cls(walk: Walk, number: int, weights: Stages, states: list[Tensor]) -> Tensor:
    """Log attention of CLS, [N, H, T] float64."""
    rows = [for_float64(walk.pattern(number, weights, hidden)[:, :, 0]) for hidden in states]
    return torch.cat(rows).double().clamp_min(torch.finfo(torch.float32).tiny).log()


def _entropy(log_attention: Tensor, factor: Tensor | None) -> Tensor:
    """Mean entropy by head in nats, [H], of softmax(factor * log attention)."""
    sharper = log_attention if factor is None else log_attention * factor[:, None]
    log_p = sharper.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean(dim=0)


def _factor(log_attention: Tensor, wanted: Tensor) -> Tensor:
    """By head, [H]: what logits are multiplied by for the wanted entropy, which falls with it."""
    low = torch.full_like(wanted, 1 / SPAN)
    high = torch.full_like(wanted, SPAN)
    for _ in range(HALVINGS):
        middle = (low * high).sqrt()
        flatter = _entropy(log_attention, middle) > wanted
        low, high = torch.where(flatter, middle, low), torch.where(flatter, high, middle)
    return (low * high).sqrt()
