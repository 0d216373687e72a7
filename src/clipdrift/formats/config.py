"""What open_clip's `model_cfg` says of a model, as transformers' config.json says it, and back.

Nothing is guessed: a key that is not known here, or has a value that transformers' CLIP or SigLIP
cannot have, is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clipdrift.errors import BackboneError, Fault, brief, first_faults

BPE_SIZE, BPE_END = 49408, 49407
"""Tokens of OpenAI's vocabulary, and its end-of-text, the highest of them."""

VISION: dict[str, Any] = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
}
VISION |= {"image_size": 224, "act_kwargs": None, "norm_kwargs": None, "timm_model_name": None}
TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
}
TEXT |= {"mlp_ratio": 4.0, "act_kwargs": None, "norm_kwargs": None, "eos_id": 2}
TEXT |= {"no_causal_mask": False, "proj_bias": False, "pool_type": "argmax"}
"""Keys that are followed, with the values that open_clip takes where they are left out."""

BLOCKS: dict[str, Any] = dict.fromkeys(
    ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"), False
)
BLOCKS |= {"scale_attn": False, "scale_fc": False, "ls_init_value": None}
ONLY_VISION: dict[str, Any] = {
    **BLOCKS,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pool_type": "tok",
}
ONLY_VISION |= {"final_ln_after_pool": False}
ONLY_TEXT = {**BLOCKS, "embed_cls": False, "final_ln_after_pool": False, "proj_type": "linear"}
ONLY_TEXT |= {"hf_model_name": None}
"""Keys that may have this one value: with another, the model is one that transformers has not."""

UNSEEN = {
    *("patch_dropout", "output_tokens", "pos_embed_type", "attn_pooler_queries", "pad_id"),
    *("attn_pooler_heads", "timm_model_pretrained", "timm_proj_bias", "timm_drop", "block_type"),
    *("timm_drop_path", "timm_pool", "timm_proj", "hf_model_pretrained", "hf_proj_type"),
    *("hf_pooler_type", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"),
}
"""Keys that change nothing of embeddings where the others are as they must be. How a fixed table of
positions came about is one of them; tokens are seen to elsewhere."""

TOP = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}
TOP |= {"init_logit_bias", "nonscalar_logit_scale"}

TRUNK = re.compile(r"vit_([a-z0-9]+)_patch(\d{1,3})_siglip_(\d{1,4})")
TRUNKS = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
"""timm's ViTs of SigLIP: width, blocks, heads, width of the MLP."""
TANH = {"base_patch32_256", "large_patch16_512", "so400m_patch16_256", "so400m_patch16_384"}
TANH |= {"so400m_patch16_512", "giantopt_patch16_256", "giantopt_patch16_384"}
"""Those of them that timm computes with GELU by its tanh; the others with GELU itself."""

MISSING = "transformers has no CLIP with such a tower; read one whose towers are plain ViTs"


def to_transformers(model_cfg: Any, where: str) -> dict[str, Any]:
    """The content of config.json for a `model_cfg`.

    Args:
        where: what faults call it.

    Raises:
        BackboneError: of what transformers' CLIP and SigLIP are not, by the names of the keys.
    """
    if not isinstance(model_cfg, Mapping) or not all(
        isinstance(model_cfg.get(part), Mapping) for part in ("vision_cfg", "text_cfg")
    ):
        expected = "a mapping with embed_dim, vision_cfg and text_cfg"
        raise BackboneError(Fault(where, expected, brief(model_cfg), "Restore the file"))
    if faults := first_faults(_unlike(model_cfg, where), where):
        raise BackboneError(faults)
    vision, text = {**VISION, **model_cfg["vision_cfg"]}, {**TEXT, **model_cfg["text_cfg"]}
    if faults := list(_unfit_sizes(model_cfg, vision, text, where)):
        raise BackboneError(faults)
    return (_siglip if vision["timm_model_name"] else _clip)(model_cfg, vision, text)


def _unlike(cfg: Mapping[str, Any], where: str) -> Iterator[Fault]:
    """Keys that no CLIP or SigLIP of transformers can follow."""
    for key in sorted(set(map(str, cfg)) - TOP):
        got = f"{key}: {brief(cfg[key])}"
        yield Fault(where, "an image and a text tower alone", got, MISSING)
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    for part, given, followed, only in (
        ("vision_cfg", vision, VISION, ONLY_VISION),
        ("text_cfg", text, TEXT, ONLY_TEXT),
    ):
        for key in sorted(map(str, given)):
            place, value = f"{where} {part}.{key}", given.get(key)
            if key in only and value != only[key]:
                rule = "none" if only[key] is None else brief(only[key])
                yield Fault(place, rule, brief(value), MISSING)
            elif key not in {*only, *followed, *UNSEEN}:
                yield Fault(place, "a key that is known here", brief(value), MISSING)
    yield from _unlike_kind({**VISION, **vision}, {**TEXT, **text}, cfg, where)


def _unlike_kind(
    vision: Mapping[str, Any], text: Mapping[str, Any], cfg: Mapping[str, Any], where: str
) -> Iterator[Fault]:
    """What a CLIP, or a SigLIP where the image tower is timm's, has otherwise."""
    name = vision["timm_model_name"]
    rules: dict[str, Any] = {"no_causal_mask": False, "proj_bias": False}
    if name:
        match = TRUNK.fullmatch(str(name))
        if not match or match[1] not in TRUNKS:
            expected = "a ViT of SigLIP's (vit_base_patch16_siglip_224, ...), or none"
            yield Fault(f"{where} vision_cfg.timm_model_name", expected, brief(name), MISSING)
            return
        if cfg.get("quick_gelu"):
            got = "true, which timm does not follow"
            yield Fault(f"{where} quick_gelu", "false for a tower of timm's", got, MISSING)
        for key, only in (("timm_pool", "map"), ("timm_proj", "none")):
            if vision.get(key) != only:
                yield Fault(f"{where} vision_cfg.{key}", only, brief(vision.get(key)), MISSING)
        if vision["image_size"] not in (int(match[3]), [int(match[3])] * 2):
            got = brief(vision["image_size"])
            yield Fault(
                f"{where} vision_cfg.image_size", f"{match[3]}, as timm has it", got, MISSING
            )
        rules |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    else:
        if isinstance(vision["layers"], (list, tuple)):
            got = f"{brief(vision['layers'])}: a convolutional tower"
            yield Fault(f"{where} vision_cfg.layers", "a number of blocks", got, MISSING)
        if text["pool_type"] == "eos" and text["eos_id"] == 2:
            got = "eos with eos_id 2, by which transformers means the highest token"
            yield Fault(f"{where} text_cfg.pool_type", "argmax, or another eos_id", got, MISSING)
        elif text["pool_type"] not in ("argmax", "eos"):
            got = brief(text["pool_type"])
            yield Fault(f"{where} text_cfg.pool_type", "argmax or eos", got, MISSING)
    for key, rule in rules.items():
        if text[key] != rule:
            yield Fault(f"{where} text_cfg.{key}", brief(rule), brief(text[key]), MISSING)
    for part, given in (("vision_cfg", vision), ("text_cfg", text)):
        act, quick = given["act_kwargs"] or {}, bool(cfg.get("quick_gelu"))
        if act not in ({}, {"approximate": "none"}, {"approximate": "tanh"}) or (quick and act):
            expected = "approximate: tanh or none, without quick_gelu"
            yield Fault(f"{where} {part}.act_kwargs", expected, brief(act), MISSING)
        norm = given["norm_kwargs"] or {}
        if not isinstance(norm, Mapping) or set(norm) - {"eps"}:
            yield Fault(f"{where} {part}.norm_kwargs", "eps alone", brief(norm), MISSING)


def _unfit_sizes(
    cfg: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], where: str
) -> Iterator[Fault]:
    """Sizes that are none; what weights can fill is looked at where they are loaded."""
    places: dict[str, Any] = {"embed_dim": cfg.get("embed_dim")}
    if not vision["timm_model_name"]:
        for key in ("layers", "width", "head_width", "patch_size"):
            places[f"vision_cfg.{key}"] = vision[key]
        size = vision["image_size"]
        square = isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]
        places["vision_cfg.image_size"] = size[0] if square else size
    for key in ("layers", "width", "heads", "context_length", "vocab_size"):
        places[f"text_cfg.{key}"] = text[key]
    if text["pool_type"] == "eos":
        places["text_cfg.eos_id"] = text["eos_id"]
    if type(quick := cfg.get("quick_gelu", False)) is not bool:
        yield Fault(f"{where} quick_gelu", "true or false", brief(quick), "Restore the file")
    for place, value in places.items():
        if type(value) is not int or not 0 < value < 2**31:
            expected = "a whole number above 0"
            yield Fault(f"{where} {place}", expected, brief(value), "Restore the file")
    for part, given, key in (("vision_cfg", vision, "head_width"), ("text_cfg", text, "heads")):
        width, by = given["width"], given[key]
        if type(width) is int and type(by) is int and by > 0 and width % by:
            rule, got = f"a divisor of the width {width}", brief(by)
            yield Fault(f"{where} {part}.{key}", rule, got, "Restore the file")
    for part, given in (("vision_cfg", vision), ("text_cfg", text)):
        ratio, eps = given["mlp_ratio"], (given["norm_kwargs"] or {}).get("eps", 1e-5)
        for key, number in (("mlp_ratio", ratio), ("norm_kwargs.eps", eps)):
            if not isinstance(number, (int, float)) or not 0 < number < 1e3:
                got = brief(number)
                yield Fault(f"{where} {part}.{key}", "a number above 0", got, "Restore the file")


def _clip(
    cfg: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]
) -> dict[str, Any]:
    size, quick = vision["image_size"], bool(cfg.get("quick_gelu"))
    image = _tower(vision, vision["width"] // vision["head_width"], cfg["embed_dim"], quick)
    image |= {"patch_size": vision["patch_size"]}
    image |= {"image_size": size if isinstance(size, int) else size[0]}
    words = _tower(text, text["heads"], cfg["embed_dim"], quick) | _texts(text)
    if text["vocab_size"] == BPE_SIZE and text["pool_type"] == "argmax":
        words |= {"bos_token_id": BPE_END - 1, "eos_token_id": BPE_END, "pad_token_id": BPE_END}
    else:
        # To transformers, 2 means what open_clip calls argmax: the place of the highest token.
        end = 2 if text["pool_type"] == "argmax" else text["eos_id"]
        words |= {"bos_token_id": None, "eos_token_id": end, "pad_token_id": None}
    towers = {"vision_config": image, "text_config": words}
    kind = {"architectures": ["CLIPModel"], "model_type": "clip"}
    return {**kind, "projection_dim": cfg["embed_dim"], **towers}


def _siglip(
    cfg: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]
) -> dict[str, Any]:
    match = TRUNK.fullmatch(vision["timm_model_name"])
    assert match  # seen to before
    width, blocks, heads, hidden = TRUNKS[match[1]]
    image: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
    }
    image |= {"intermediate_size": hidden, "layer_norm_eps": 1e-6}
    image |= {"patch_size": int(match[2]), "image_size": int(match[3])}
    image |= {"hidden_act": trunk_act(match)}
    words = _tower(text, text["heads"], None, quick=False) | _texts(text)
    words |= {"projection_size": cfg["embed_dim"]}
    words |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    towers = {"vision_config": image, "text_config": words}
    return {"architectures": ["SiglipModel"], "model_type": "siglip", **towers}


def trunk_act(match: re.Match[str]) -> str:
    """The activation with which timm computes a ViT of SigLIP's."""
    tanh = f"{match[1]}_patch{match[2]}_{match[3]}" in TANH
    return "gelu_pytorch_tanh" if tanh else "gelu"


def _tower(
    part: Mapping[str, Any], heads: int, projection: int | None, quick: bool
) -> dict[str, Any]:
    tanh = (part["act_kwargs"] or {}).get("approximate") == "tanh"
    found = {
        "hidden_size": part["width"],
        "intermediate_size": int(part["width"] * part["mlp_ratio"]),
        "num_hidden_layers": part["layers"],
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu" if quick else "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": (part["norm_kwargs"] or {}).get("eps", 1e-5),
    }
    return found if projection is None else {**found, "projection_dim": projection}


def _texts(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "max_position_embeddings": text["context_length"],
        "vocab_size": text["vocab_size"],
    }
