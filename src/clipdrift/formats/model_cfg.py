"""What transformers' config.json says of a CLIP or SigLIP, as open_clip's `model_cfg` says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clipdrift.errors import BackboneError, Fault
from clipdrift.formats.config import BPE_END, BPE_SIZE, TRUNK, TRUNKS, trunk_act

NO_SUCH = "open_clip has no such model; keep it in transformers format"
EPS = 1e-5
"""Of open_clip's layer norms where `norm_kwargs` does not say another."""


def to_open_clip(config: Any, where: str) -> dict[str, Any]:
    """The `model_cfg` of a model, without what names its tokenizer.

    Args:
        config: transformers' CLIPConfig or SiglipConfig.
        where: what faults call it.

    Raises:
        BackboneError: of what open_clip cannot build so that it gives the same embeddings.
    """
    siglip = config.model_type == "siglip"
    faults = list(_siglip_faults(config, where) if siglip else _clip_faults(config, where))
    if faults:
        raise BackboneError(faults)
    return _siglip(config) if siglip else _clip(config)


def _clip_faults(config: Any, where: str) -> Iterator[Fault]:
    image, text = config.vision_config, config.text_config
    acts = [image.hidden_act, text.hidden_act]
    known = {"quick_gelu", "gelu", "gelu_pytorch_tanh"}
    if set(acts) - known or (acts[0] != acts[1] and "quick_gelu" in acts):
        expected = f"{', '.join(sorted(known))}, quick_gelu for both towers or neither"
        yield Fault(f"{where} hidden_act", expected, " and ".join(map(str, acts)), NO_SUCH)
    if image.hidden_size % image.num_attention_heads:
        got = f"{image.hidden_size} for {image.num_attention_heads} heads"
        yield Fault(f"{where} hidden_size", "a multiple of the heads", got, NO_SUCH)


def _clip(config: Any) -> dict[str, Any]:
    image, text = config.vision_config, config.text_config
    quick = image.hidden_act == "quick_gelu"
    vision_cfg = {"image_size": image.image_size, "patch_size": image.patch_size}
    vision_cfg |= {"head_width": image.hidden_size // image.num_attention_heads}
    text_cfg: dict[str, Any] = _of_text(text)
    end = text.eos_token_id
    if end != 2 and (text.vocab_size, end) != (BPE_SIZE, BPE_END):
        text_cfg |= {"pool_type": "eos", "eos_id": end}
    return {
        "embed_dim": config.projection_dim,
        **({"quick_gelu": True} if quick else {}),
        "vision_cfg": {**_of_tower(image), **vision_cfg},
        "text_cfg": text_cfg,
    }


def _siglip_faults(config: Any, where: str) -> Iterator[Fault]:
    image, text = config.vision_config, config.text_config
    name = _trunk(image)
    if name is None:
        got = f"width {image.hidden_size}, {image.num_hidden_layers} blocks"
        expected = f"the sizes of a ViT that timm has for SigLIP ({', '.join(TRUNKS)})"
        yield Fault(f"{where} vision_config", expected, got, NO_SUCH)
        return
    match = TRUNK.fullmatch(name)
    assert match
    if image.hidden_act != (act := trunk_act(match)):
        expected = f"{act}, which timm computes {name} with"
        yield Fault(f"{where} vision_config.hidden_act", expected, image.hidden_act, NO_SUCH)
    if image.layer_norm_eps != 1e-6:
        expected, got = "1e-6, as timm has it", str(image.layer_norm_eps)
        yield Fault(f"{where} vision_config.layer_norm_eps", expected, got, NO_SUCH)
    if text.hidden_act not in ("gelu", "gelu_pytorch_tanh"):
        expected, got = "gelu or gelu_pytorch_tanh", str(text.hidden_act)
        yield Fault(f"{where} text_config.hidden_act", expected, got, NO_SUCH)


def _trunk(image: Any) -> str | None:
    """timm's name of a ViT of SigLIP's sizes."""
    sizes = (image.hidden_size, image.num_hidden_layers, image.num_attention_heads)
    for name, known in TRUNKS.items():
        if known == (*sizes, image.intermediate_size):
            return f"vit_{name}_patch{image.patch_size}_siglip_{image.image_size}"
    return None


def _siglip(config: Any) -> dict[str, Any]:
    image, text = config.vision_config, config.text_config
    vision_cfg = {"image_size": image.image_size, "timm_model_name": _trunk(image)}
    vision_cfg |= {"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
    text_cfg = {**_of_text(text), "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    top = {"embed_dim": text.projection_size, "init_logit_bias": -10, "custom_text": True}
    return {**top, "vision_cfg": vision_cfg, "text_cfg": text_cfg}


def _of_text(text: Any) -> dict[str, Any]:
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
        **_of_tower(text),
    }


def _of_tower(part: Any) -> dict[str, Any]:
    width, hidden = part.hidden_size, part.intermediate_size
    ratio = hidden / width
    found = {"layers": part.num_hidden_layers, "width": width}
    # open_clip rounds the product down; a quotient that falls a bit short would lose a row.
    found["mlp_ratio"] = ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
    if part.hidden_act == "gelu_pytorch_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    if part.layer_norm_eps != EPS:
        found["norm_kwargs"] = {"eps": part.layer_norm_eps}
    return found
