"""The models and pretrained weights that open_clip knows by name.

`assets/open_clip.json` holds them, as `tools/open_clip_names.py` wrote it from the library.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from clipdrift.errors import BackboneError, Fault, did_you_mean

PREFIX = "open_clip:"
QUICK = "-quickgelu"


@dataclass(frozen=True)
class Known:
    """model_cfg: of the model. preprocess_cfg: of the weights, or what all weights of the model
    have. hub: repository that holds the weights; None of a model without a tag.
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    hub: str | None = None


@cache
def _names() -> dict[str, Any]:
    path = files("clipdrift").joinpath("assets", "open_clip.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def model(name: str, where: str = "--model") -> Known:
    """A model by open_clip's name, such as ViT-B-32 or ViT-B-32-quickgelu.

    Raises:
        BackboneError: no such model.
    """
    models, name = _names()["models"], name.replace("/", "-")
    if name not in models:
        step = did_you_mean(name, models, "open_clip.list_models() lists them")
        raise BackboneError(Fault(where, "a model that open_clip has", repr(name)[:80], step))
    shown = list(_names()["tags"].get(name.removesuffix(QUICK), {}).values())
    alike = [one["preprocess"] for one in shown]
    same = bool(alike) and all(one == alike[0] for one in alike)
    return Known(models[name], alike[0] if same else {})


def is_model(name: str) -> bool:
    """Whether open_clip has a model of this name; MODEL/TAG names weights."""
    return name.replace("/", "-") in _names()["models"]


def is_tagged(name: str) -> bool:
    """Whether an id names weights of open_clip's: by the prefix, or as a known MODEL/TAG."""
    known, _, tag = name.partition("/")
    return name.startswith(PREFIX) or bool(tag and known in _names()["models"])


def tagged(name: str) -> Known:
    """Pretrained weights, such as open_clip:ViT-B-32/laion2b_s34b_b79k.

    Weights that were trained with QuickGELU say so by their tag: they get it whatever the name of
    the model or its repository says.

    Raises:
        BackboneError: no such model or tag.
    """
    where = f"backbone {name}"
    known, _, tag = name.removeprefix(PREFIX).partition("/")
    found, tags = model(known, where), _names()["tags"].get(known.removesuffix(QUICK), {})
    tag = tag.lower().replace("-", "_")
    if tag not in tags:
        step = did_you_mean(tag, tags, f"It has {', '.join(tags)}" if tags else "Name another")
        raise BackboneError(Fault(where, f"a tag of {known}'s", repr(tag)[:80], step))
    quick = bool(tags[tag].get("quick_gelu"))
    if known.endswith(QUICK) and not quick:
        step = f"Name {known.removesuffix(QUICK)}/{tag}"
        raise BackboneError(Fault(where, "weights trained with QuickGELU", "others", step))
    cfg = {**found.model_cfg, **({"quick_gelu": True} if quick else {})}
    return Known(cfg, tags[tag]["preprocess"], tags[tag]["hub"])
