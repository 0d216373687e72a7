"""Adapters of CLIP-LoRA (Zanella & Ben Ayed 2024, github.com/MaxZanella/CLIP-LoRA), merged.

Its files hold factors by the number of an attention layer and words on which layers these are. An
update is alpha / sqrt(r) times B A: by the root of the rank, and not by the rank as in peft.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clipdrift.errors import BackboneError, Fault, brief

PROJECTIONS = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "proj": "out_proj"}
"""Its names of what attention projects by, and transformers'."""
LAST = {"top": 1, "top1": 1, "top2": 2, "top3": 3}
"""Blocks at the end of a tower, by its words for them."""
STEP = "Name the model that it was trained on (--model, --baseline), or restore the file"


def is_clip_lora(content: Any) -> bool:
    """Whether what a file holds has the form of CLIP-LoRA's."""
    return (
        isinstance(content, Mapping)
        and isinstance(content.get("metadata"), Mapping)
        and isinstance(content.get("weights"), Mapping)
        and any(str(key).startswith("layer_") for key in content["weights"])
    )


def merged_state(
    content: Mapping[str, Any], whole: Mapping[str, Tensor], config: Mapping[str, Any], where: str
) -> tuple[dict[str, Tensor], str]:
    """A model's weights with the updates added, by transformers' names; and a word on them.

    Args:
        whole, config: of the model, as transformers names them.

    Raises:
        BackboneError: if it does not fit the model layer by layer.
    """
    said = content["metadata"]
    rank, alpha = said.get("r"), said.get("alpha")
    sane = isinstance(alpha, (int, float)) and abs(alpha) < 1e6
    if type(rank) is not int or not 0 < rank < 10_000 or not sane:
        got = f"r {brief(rank)}, alpha {brief(alpha)}"
        raise BackboneError(Fault(f"{where} metadata", "a rank and an alpha", got, STEP))
    blocks = list(_blocks(said, config, where))
    layers = {key: content["weights"].get(key) for key in map(str, content["weights"])}
    expected = [f"layer_{i}" for i in range(len(blocks))]
    if sorted(layers) != sorted(expected):
        got = f"{len(layers)} layers"
        rule = f"{len(blocks)} layers, as its encoder and position say"
        raise BackboneError(Fault(f"{where} weights", rule, got, STEP))
    state = {name: t.detach().float() for name, t in whole.items()}
    for key, block in zip(expected, blocks, strict=True):
        for name, update in _updates(layers[key], f"{where} {key}"):
            own = f"{block}.self_attn.{name}.weight"
            if update.shape != state[own].shape:
                rule, got = f"{tuple(state[own].shape)}", str(tuple(update.shape))
                raise BackboneError(Fault(f"{where} {key} {name}", rule, got, STEP))
            state[own] = state[own] + alpha / math.sqrt(rank) * update.to(state[own].device)
    named = f"rank {rank}, alpha {alpha:g} / sqrt(rank), {len(blocks)} layers"
    return state, f"an adapter of CLIP-LoRA's, merged ({named})"


def _blocks(said: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Iterator[str]:
    """The blocks that its layers lie in, in its order: text first."""
    towers = {"text": ["text"], "vision": ["vision"], "both": ["text", "vision"]}
    encoder, position = str(said.get("encoder")), str(said.get("position"))
    for tower in towers.get(encoder, []):
        n = config[f"{tower}_config"]["num_hidden_layers"]
        third = n // 3
        places = {
            "all": range(n),
            "bottom": range(third),
            "mid": range(third, 2 * third),
            "up": range(2 * third, n),
            "half-up": range(n // 2, n),
            "half-bottom": range(n // 2),
            **{word: range(n - k, n) for word, k in LAST.items()},
        }
        if position not in places:
            break
        yield from (f"{tower}_model.encoder.layers.{i}" for i in places[position])
    else:
        if encoder in towers:
            return
    got = f"{brief(encoder)}, {brief(position)}"
    raise BackboneError(
        Fault(f"{where} metadata", "an encoder and a position of its own", got, STEP)
    )


def _updates(layer: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    """B A of each projection of a layer, in float32."""
    names = set(layer) if isinstance(layer, Mapping) else {None}
    if not names <= set(PROJECTIONS):
        got = brief(sorted(map(str, names)))
        raise BackboneError(Fault(where, f"{', '.join(PROJECTIONS)} alone", got, STEP))
    for name, factors in layer.items():
        a, b = (
            factors.get(f"w_lora_{which}") if isinstance(factors, Mapping) else None
            for which in "AB"
        )
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or b.shape[1:] != a.shape[:1]:
            rule = "w_lora_A [r, in] and w_lora_B [out, r]"
            raise BackboneError(Fault(f"{where} {name}", rule, "none that fit", STEP))
        if a.ndim != 2 or b.ndim != 2:
            raise BackboneError(Fault(f"{where} {name}", "two matrices", f"{a.ndim} axes", STEP))
        yield PROJECTIONS[name], b.float() @ a.float()
