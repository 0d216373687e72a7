"""LoRA (Hu et al. 2022) through peft, on linear layers of a tower's blocks.

peft scales the update by alpha / rank. The adapter is saved in peft's own format, so that peft
itself can load it onto the untouched tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import Encoder
from clipdrift.errors import Fault, MethodError
from clipdrift.methods.peft_folder import FOLDER, WEIGHTS, write_config
from clipdrift.methods.targets import POOLING_HEAD, Targets, find_targets, rank_faults
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors
from clipdrift.spec.methods import LoraSpec

PEFT_PREFIX = "base_model.model."


def adapt(encoder: Encoder, spec: LoraSpec, seed: int) -> None:
    """Put adapters into the tower, in place; B starts at zero, so nothing changes yet.

    Raises:
        MethodError: if a module name matches no linear layer, or the rank exceeds a layer's width.
    """
    from peft import inject_adapter_in_model

    if faults := _check(encoder.tower, spec):
        raise MethodError(faults)
    # peft draws A from the global generator: seed it here and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_config(spec, encoder.tower), encoder.tower)


def effective_state(encoder: Encoder) -> dict[str, Tensor]:
    """The tower's weights with the update merged in: W_0 + (alpha / rank) B A, by plain names.

    Computed from the factors and the configuration, not by peft's merge or the layers' scaling, so
    that it can be held against the live path.
    """
    config: Any = encoder.tower.peft_config["default"]  # type: ignore[index]
    scale = config.lora_alpha / config.r
    state: dict[str, Tensor] = {}
    adapted = _adapted_layers(encoder.tower)
    for name, parameter in encoder.tower.named_parameters():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        layer = adapted.get(plain.removesuffix(".weight"))
        state[plain] = parameter.detach() + scale * _update(layer) if layer else parameter.detach()
    return state


def save(encoder: Encoder, folder: Path) -> None:
    """Write the adapter as peft does: adapter_config.json and adapter_model.safetensors."""
    tensors = {PEFT_PREFIX + k: t for k, t in _factors(encoder.tower).items()}
    save_tensors(tensors, folder / FOLDER / WEIGHTS)
    write_config(encoder.tower.peft_config["default"], folder / FOLDER)  # type: ignore[index]


def restore(encoder: Encoder, spec: LoraSpec, folder: Path) -> None:
    """Wrap the untouched tower as in training and read the factors back, key by key."""
    adapt(encoder, spec, seed=0)
    saved = load_tensors(folder / FOLDER / WEIGHTS)
    plain = {key.removeprefix(PEFT_PREFIX): value for key, value in saved.items()}
    assign(_factors(encoder.tower), plain, where=str(folder / FOLDER / WEIGHTS))


def _config(spec: LoraSpec, tower: nn.Module) -> Any:
    from peft import LoraConfig

    targets: dict[str, Any] = {"target_modules": sorted(spec.modules)}
    if spec.layers is not None:
        targets = {"target_modules": _targets(tower, spec).pattern}
    elif any(getattr(tower, POOLING_HEAD, nn.Identity()).children()):
        targets["exclude_modules"] = rf"{POOLING_HEAD}\..*"
    return LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, bias="none", **targets
    )


def _check(tower: nn.Module, spec: LoraSpec) -> list[Fault]:
    targets = _targets(tower, spec)
    return [*targets.faults, *rank_faults(targets, spec.rank, where=f"method {spec.name} rank")]


def _targets(tower: nn.Module, spec: LoraSpec) -> Targets:
    where = f"method {spec.name}"
    return find_targets(tower, spec.modules, spec.layers, (nn.Linear,), where=where)


def _adapted_layers(tower: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: m for name, m in tower.named_modules() if isinstance(m, LoraLayer)}


def _update(layer: Any) -> Tensor:
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    update: Tensor = b.detach() @ a.detach()
    return update


def _factors(tower: nn.Module) -> dict[str, Tensor]:
    """A and B of every adapted layer under peft's saved names (without the adapter's name)."""
    return {
        name.replace(".default.", "."): p.detach()
        for name, p in tower.named_parameters()
        if ".lora_" in name
    }
