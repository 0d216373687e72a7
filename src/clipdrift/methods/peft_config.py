"""peft's configuration of a type, from a study: names, types and layers held to what peft takes."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from clipdrift.errors import Fault, did_you_mean
from clipdrift.methods.targets import BLOCKS, Targets, find_targets, rank_faults
from clipdrift.spec.methods import PeftSpec

TOKENS = "it puts tokens into the input of a language model"
TRAINER = "it has to be told of every step by a training loop of its own"
OTHER_START = "its first step does not start at the baseline: both of its factors are drawn"
REFUSED = {
    **dict.fromkeys(("adaption_prompt", "cartridge", "cpt", "multitask_prompt_tuning"), TOKENS),
    **dict.fromkeys(("p_tuning", "prefix_tuning", "prompt_tuning"), TOKENS),
    "adalora": TRAINER,
    "poly": "it mixes adapters by a task number that images do not come with",
    "shadow": "it is made for decoders of language models",
    "trainable_tokens": "it trains embeddings of words",
    "unilora": OTHER_START,
    "vblora": OTHER_START,
    "xlora": "it mixes adapters that were trained before",
}
"""Types of peft that cannot be trained here, and why; all others are tried as they come."""

BY_OPTION = {
    "bone": "type: miss",
    "dora": "type: lora, options: {use_dora: true}",
    "olora": "type: lora, options: {init_lora_weights: olora}",
    "pissa": "type: lora, options: {init_lora_weights: pissa}",
    "rslora": "type: lora, options: {use_rslora: true}",
}
"""Names under which variants are known, and how peft has them."""

PLACED = {
    **dict.fromkeys(("target_modules", "exclude_modules", "feedforward_modules"), "modules"),
    **dict.fromkeys(("layers_to_transform", "layers_pattern"), "layers"),
}
BESIDE = {
    *("bias", "ensure_weight_tying", "fan_in_fan_out", "megatron_core", "modules_to_save"),
    *("qalora_group_size", "use_qalora"),
}
"""Options that train something beside adapters, or are for other kinds of layers."""

START_AT_BASELINE: dict[str, dict[str, Any]] = {
    "c3a": {"init_weights": True},
    "fourierft": {"init_weights": True},
    "frod": {"progressbar": False},
}
"""Where peft's own default starts elsewhere, or draws on the terminal."""

NEEDS_DATA = {"corda", "eva", "loftq", "lora_ga"}
BOUNDED = {"deft", "delora", "hira", "hra", "loha", "lora", "peanut"}
"""Types whose `r` is the rank of an update."""

FEED_FORWARD = "fc2"
"""IA3 scales what goes into it, the activations of the MLP, and what comes out of all others."""


@dataclass(frozen=True)
class Configured:
    """A configuration of peft, where its adapters go, and what was wrong; then config is None."""

    config: Any
    targets: Targets | None
    faults: list[Fault]


def configure(tower: nn.Module, spec: PeftSpec) -> Configured:
    """What peft is to be told. Neither the tower nor the spec is changed."""
    where = f"method {spec.name}"
    if fault := _type_fault(spec.type, f"{where} type"):
        return Configured(None, None, [fault])
    config_class = _types()[spec.type]
    targets = find_targets(tower, _modules(tower, spec), spec.layers, _kinds(spec), where=where)
    faults = [*targets.faults, *_option_faults(config_class, spec, f"{where} options")]
    rank = spec.options.get("r", _default(config_class, "r"))
    if spec.type in BOUNDED and type(rank) is int:
        faults += rank_faults(targets, rank, where=f"{where} options.r")
    if faults:
        return Configured(None, targets, faults)
    options: dict[str, Any] = {"target_modules": targets.pattern}
    if spec.type == "ia3":
        last = {n: m for n, m in targets.layers.items() if n.endswith(f".{FEED_FORWARD}")}
        options["feedforward_modules"] = Targets(last, []).pattern or []
    options |= START_AT_BASELINE.get(spec.type, {}) | spec.options
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Configured(config_class(**options), targets, [])
    except Exception as error:
        return Configured(None, targets, [refused_by_peft(spec, error)])


def refused_by_peft(spec: PeftSpec, error: Exception) -> Fault:
    """peft's many errors as one that a user can mend."""
    said = " ".join(str(error).split())[:200]
    return Fault(
        f"method {spec.name}",
        f"options and modules that peft can make {spec.type} of on this backbone",
        f"{type(error).__name__}: {said}",
        "Correct options or modules",
    )


def _types() -> dict[str, Any]:
    """Lower-case name -> class of configuration, of the peft that is installed."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {key.value.lower(): value for key, value in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def usable_types() -> list[str]:
    """Names of the types that a study may ask for."""
    return sorted(_types().keys() - REFUSED.keys())


def _type_fault(name: str, where: str) -> Fault | None:
    usable = usable_types()
    if name in usable:
        return None
    expected = f"a type of peft ({', '.join(usable)})"
    if name in REFUSED:
        return Fault(where, expected, f"{name}: {REFUSED[name]}", "Choose another type")
    if name in BY_OPTION:
        return Fault(where, expected, repr(name), f"Write {{{BY_OPTION[name]}}}")
    return Fault(where, expected, repr(name), did_you_mean(name, usable, "Choose one of them", n=3))


def _option_faults(config_class: Any, spec: PeftSpec, where: str) -> list[Fault]:
    known = _options(config_class)
    faults = []
    for name, value in spec.options.items():
        at = f"{where}.{name}"
        if name in PLACED:
            step = f"Say it by {PLACED[name]} of the method"
            faults.append(Fault(at, "an option that does not place adapters", repr(value), step))
        elif name not in known:
            step = did_you_mean(name, known, "Remove it", n=3)
            expected = f"an option of {spec.type} ({', '.join(known)})"
            faults.append(Fault(at, expected, repr(name), step))
        elif value in NEEDS_DATA and isinstance(value, str):
            step = "Use true, gaussian, pissa, olora or orthogonal"
            expected = "an init that is computed from the weights alone"
            faults.append(Fault(at, expected, f"{value}, which is computed from images", step))
        elif not _fits(known[name], value):
            faults.append(Fault(at, _in_words(known[name]), repr(value), "Correct the value"))
    return faults


def _options(config_class: Any) -> dict[str, Any]:
    """Name -> type of every option that is one number, text or truth value."""
    from peft import PeftConfig

    general = {field.name for field in dataclasses.fields(PeftConfig)}
    hints = get_type_hints(config_class)
    return {
        field.name: hints[field.name]
        for field in sorted(dataclasses.fields(config_class), key=lambda field: field.name)
        if field.name not in general | BESIDE | PLACED.keys() and list(_simple(hints[field.name]))
    }


def _simple(hint: Any) -> Iterable[Any]:
    """What of a type is bool, int, float, str or one value of these."""
    if hint in (bool, int, float, str):
        yield hint
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) not in (list, dict, tuple, set):
        for part in get_args(hint):
            yield from _simple(part)


def _fits(hint: Any, value: Any) -> bool:
    return any(_is(value, part) for part in _simple(hint))


def _is(value: Any, part: Any) -> bool:
    """A whole number is a number as well; true is neither."""
    if isinstance(part, str) and "_[" in part:  # pissa_niter_[number of iters]
        return bool(re.fullmatch(rf"{re.escape(part.partition('[')[0])}\d+", str(value)))
    if not isinstance(part, type):
        return type(value) is type(part) and bool(value == part)
    return type(value) is part or (part is float and type(value) is int)


def _in_words(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    simple = [part for part in _simple(hint) if part not in NEEDS_DATA]
    parts = [words[part] if isinstance(part, type) else str(part) for part in simple]
    return " or ".join(dict.fromkeys(parts))


def _default(config_class: Any, name: str) -> Any:
    return next((f.default for f in dataclasses.fields(config_class) if f.name == name), None)


def _kinds(spec: PeftSpec) -> tuple[type[nn.Module], ...]:
    return (nn.LayerNorm,) if spec.type == "ln_tuning" else (nn.Linear,)


def _modules(tower: nn.Module, spec: PeftSpec) -> list[str]:
    if spec.modules is not None:
        return spec.modules
    if spec.type == "ia3":
        return ["k_proj", "v_proj", FEED_FORWARD]
    if spec.type == "ln_tuning":
        return _norms(tower, spec)
    return ["q_proj", "v_proj"]


def _norms(tower: nn.Module, spec: PeftSpec) -> list[str]:
    """Every layer norm; those of the blocks where blocks are asked for."""
    blocks = tower.get_submodule(BLOCKS).named_modules()
    inside = {name.rpartition(".")[2] for name, m in blocks if isinstance(m, nn.LayerNorm)}
    outside = {n for n, m in tower.named_children() if isinstance(m, nn.LayerNorm)}
    return sorted(inside if spec.layers else inside | outside)
