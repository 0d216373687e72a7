"""Any adapter of peft's by injection into a tower: one path for all of its types.

Nothing here knows a type. peft puts its layers in place, merges them and names what it saves; a
type that cannot be merged has no plain weights. What peft leaves out of its file but an exact
reload needs, such as base weights that an init moved or parts that were drawn, is saved beside it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import Encoder, weights_of
from clipdrift.errors import Fault, MethodError
from clipdrift.methods.peft_config import configure, refused_by_peft
from clipdrift.methods.peft_folder import FOLDER, WEIGHTS, write_config
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors
from clipdrift.spec.methods import PeftSpec

FIXED_FILE = "fixed.safetensors"
ADAPTER = "default"
SAME_START = 1e-5
"""Relative difference of pooled features that float32 rounding may cause where an init moves base
weights and adapter against each other."""

_INJECTED = "_clipdrift_injected"


@dataclass(frozen=True)
class _Injected:
    """What is to be known of an adapted tower.

    tuner: peft's object, which holds what layers share. fixed: names of tensors that do not train,
    are not those of the untouched tower and are not in peft's file.
    """

    tuner: Any
    fixed: tuple[str, ...]


def adapt(encoder: Encoder, spec: PeftSpec, seed: int) -> None:
    """Let peft put its layers into the tower, in place; what it draws globally is the seed's.

    Raises:
        MethodError: if type, options, modules or layers do not fit the tower.
    """
    tower = encoder.tower
    configured = configure(tower, spec)
    if configured.faults or configured.targets is None:
        raise MethodError(configured.faults)
    before = {
        f"{name}.{own}": value.detach().clone()
        for name, layer in configured.targets.layers.items()
        for own, value in layer.named_parameters()
    }
    known = set(_tensors(tower))
    try:
        with warnings.catch_warnings(record=True) as said, torch.random.fork_rng(devices=[]):
            warnings.simplefilter("always")
            torch.manual_seed(seed)
            tuner = _tuner_class(configured.config)(tower, configured.config, ADAPTER)
    except Exception as error:
        raise MethodError(refused_by_peft(spec, error)) from None
    if changed := [text for warning in said if "djusted" in (text := str(warning.message))]:
        expected = "values that peft takes as they are"
        raise MethodError(
            Fault(f"method {spec.name} options", expected, changed[0], "Use what it takes")
        )
    # Not as a module: the tuner holds the tower, which would then hold itself.
    tower.__dict__[_INJECTED] = _Injected(tuner, ())
    tower.__dict__[_INJECTED] = _Injected(tuner, _fixed(tower, known, before))
    tower.eval()


def effective_state(encoder: Encoder) -> dict[str, Tensor] | None:
    """The tower's weights with every adapter merged by peft, under plain names.

    Copies of the layers are merged, one by one, so the live forward pass has no part in it. None if
    the type cannot be merged.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [(n, m) for n, m in encoder.tower.named_modules() if isinstance(m, BaseTunerLayer)]
    state: dict[str, Tensor] = {}
    inside = tuple(f"{name}." for name, _ in found)
    for name, value in encoder.tower.named_parameters():
        if not name.startswith(inside):
            state[name] = value.detach()
    for name, layer in found:
        try:
            base = _merged(layer)
        except NotImplementedError:
            return None
        state.update({f"{name}.{own}": p.detach() for own, p in base.named_parameters()})
    return state


def save(encoder: Encoder, folder: Path) -> None:
    """Write the adapter as peft does, and what else an exact reload needs."""
    save_tensors({k: t.clone() for k, t in _of_peft(encoder.tower).items()},
                 folder / FOLDER / WEIGHTS)  # fmt: skip
    write_config(_injected(encoder.tower).tuner.peft_config[ADAPTER], folder / FOLDER)
    if fixed := _fixed_tensors(encoder.tower):
        save_tensors(fixed, folder / FIXED_FILE)


def restore(encoder: Encoder, spec: PeftSpec, folder: Path) -> None:
    """Wrap the untouched tower as in training and read every saved tensor back, key by key."""
    adapt(encoder, spec, seed=0)
    path = folder / FOLDER / WEIGHTS
    assign(_of_peft(encoder.tower), load_tensors(path), where=str(path))
    if fixed := _fixed_tensors(encoder.tower):
        assign(fixed, load_tensors(folder / FIXED_FILE), where=str(folder / FIXED_FILE))


@torch.no_grad()
def start_faults(encoder: Encoder, untouched: Encoder, spec: PeftSpec) -> list[Fault]:
    """A start that is not the untouched tower, on a trial; adapters that train nothing."""
    where = f"method {spec.name} options"
    if not any(p.requires_grad for p in encoder.tower.parameters()):
        return [Fault(where, "adapters that train", "none that do", "Correct the options")]
    before, after = (e.pooled_trial() for e in (untouched, encoder))
    apart = float((after - before).norm() / before.norm())
    if not apart <= SAME_START:
        step = "Choose an init that starts at zero, such as init_weights: true"
        return [Fault(where, "a start at the baseline", f"features {apart:.1e} off it", step)]
    return []


def _merged(layer: Any) -> nn.Module:
    """The plain layer that a copy of an adapted one becomes."""
    from peft.tuners.lora import LoraLayer

    own = copy.deepcopy(layer)
    if isinstance(own, LoraLayer):  # as configured: what the live layer has may be wrong
        own.set_scale(ADAPTER, 1.0)
    with _quiet():
        own.merge(adapter_names=[ADAPTER])
    base: nn.Module = own.get_base_layer()
    return base


class _Named(nn.Module):
    """Names tensors as a PeftModel does, which also names what the layers of a tower share."""

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        self.base_model, self.peft_config = tuner, tuner.peft_config


def _of_peft(tower: nn.Module) -> dict[str, Tensor]:
    """What peft writes into its file, by its names; not copies."""
    from peft import get_peft_model_state_dict

    named = _Named(_injected(tower).tuner)
    with _quiet():
        found: dict[str, Tensor] = get_peft_model_state_dict(named, save_embedding_layers=False)
    return found


def _fixed(tower: nn.Module, known: set[str], before: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of tensors that neither train, nor are peft's, nor the untouched tower's."""
    written = {t.untyped_storage().data_ptr() for t in _of_peft(tower).values()}
    return tuple(
        name
        for name, value in _tensors(tower).items()
        if value.untyped_storage().data_ptr() not in written
        and _is_new(name.replace(".base_layer.", "."), value, known, before)
    )


def _is_new(plain: str, value: Tensor, known: set[str], before: Mapping[str, Tensor]) -> bool:
    return plain not in known or (plain in before and not torch.equal(before[plain], value))


def _fixed_tensors(tower: nn.Module) -> dict[str, Tensor]:
    tensors = _tensors(tower)
    return {name: tensors[name] for name in _injected(tower).fixed}


def _tensors(tower: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also those that a state_dict leaves out."""
    parameters = weights_of(tower)
    return {**parameters, **dict(tower.named_buffers())}


def _injected(tower: nn.Module) -> _Injected:
    found: _Injected = tower.__dict__[_INJECTED]
    return found


def _tuner_class(config: Any) -> Any:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not concern a vision tower
        yield
