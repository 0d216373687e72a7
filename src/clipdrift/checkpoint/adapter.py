"""A peft adapter on a copy of the baseline: key by key, live and merged."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import Backbone
from clipdrift.backbone.text import TRIAL
from clipdrift.checkpoint.bounds import pattern_fault, size_fault
from clipdrift.checkpoint.find import ADAPTER_CONFIG, adapter_weights, read_json, read_tensors
from clipdrift.checkpoint.host import Host, find_hosts
from clipdrift.errors import Fault, RecordError

OTHER_BASE = "Name the base it was made for with --baseline"
ADAPTER = "default"


@dataclass(frozen=True)
class Made:
    """clip: the live model. merged: the same as plain weights. start_moved: whether the adapter's
    start moved base weights, as that of PiSSA does: then they come back up to rounding only.
    """

    clip: Any
    merged: Any
    start_moved: bool


@dataclass(frozen=True)
class LoadedAdapter:
    """The baseline's CLIP with an adapter in it.

    made: the model. parts: what of the CLIP the adapter reaches. unsure: whether the adapter would
    fit another tower as well. beside: tensors of modules that a CLIP does not have, its head.
    """

    made: Made
    parts: tuple[str, ...]
    unsure: bool
    beside: dict[str, Tensor]
    config: dict[str, Any]
    precisions: tuple[str, ...]


def load_adapter(folder: Path, baseline: Backbone) -> LoadedAdapter:
    """Load an adapter with peft onto a copy of the baseline.

    Raises:
        RecordError: if the file is damaged, does not fit the baseline key by key, or makes another
            model each time that it is loaded.
    """
    where = adapter_weights(folder)
    tensors, config = read_tensors(where), read_json(folder / ADAPTER_CONFIG)
    precisions = tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}))
    names = [name for name, _ in baseline.model.named_modules()]
    towers = [name.partition(".")[2] for name in names]
    if fault := pattern_fault(config, [*names, *towers], str(folder / ADAPTER_CONFIG)):
        raise RecordError(fault)
    hosts, beside = find_hosts(tensors, config, baseline, where)
    fitting, refusals = [], []
    for host in hosts:
        try:
            fitting.append((host, _put_onto(host, folder, baseline, seed=0)))
        except RecordError as error:
            refusals.append(error)
    if not fitting:
        raise refusals[0]
    host, made = fitting[0]
    again = _put_onto(host, folder, baseline, seed=1)
    first, second = trial(baseline, made.clip), trial(baseline, again.clip)
    if not all(found.isfinite().all() for found in first):
        expected, step = "an adapter that gives finite embeddings", "Correct it, lora_alpha first"
        raise RecordError(Fault(str(folder / ADAPTER_CONFIG), expected, "NaN or infinity", step))
    if not all(map(torch.equal, first, second)):
        raise RecordError(_drawn(folder, config))
    return LoadedAdapter(made, host.parts, len(fitting) > 1, beside, config, precisions)


@torch.inference_mode()
def trial(baseline: Backbone, model: Any, texts: Sequence[str] = TRIAL) -> tuple[Tensor, Tensor]:
    """Embeddings of images of noise [4, E] and of a few texts [N, E], by a CLIP of this kind."""
    shown = replace(baseline, model=model)
    return shown.live_encoder()(shown.trial_images()), shown.live_text_encoder()(texts)


def _put_onto(host: Host, folder: Path, baseline: Backbone, *, seed: int) -> Made:
    """The adapter on a copy of the baseline. Whatever peft draws is the seed's."""
    where = adapter_weights(folder)
    wrap = partial(_wrap, folder=folder, saved=host.saved)
    with _peft(where):
        fault = size_fault(wrap, host.module(baseline.model), str(folder / ADAPTER_CONFIG))
    if fault:
        raise RecordError(fault)
    clip, plain = copy.deepcopy(baseline.model), copy.deepcopy(baseline.model)
    module = host.module(clip)
    with _peft(where), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = wrap(module)
        start_moved = _differs(module, host.module(baseline.model))
    _require_fit(wrapped, host.tensors, where)
    with _peft(where):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(wrapped, dict(host.tensors))
        host.put_back(copy.deepcopy(wrapped).merge_and_unload(), plain)
        _unwrap_saved(module)
    host.put_back(module, clip)
    clip, plain = (model.requires_grad_(False).eval() for model in (clip, plain))
    return Made(clip, plain, start_moved)


def _wrap(module: nn.Module, folder: Path, saved: tuple[str, ...]) -> Any:
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    if getattr(config, "modules_to_save", None):
        config.modules_to_save = list(saved) or None
    return PeftModel(module, config, ADAPTER).float()


def _differs(module: nn.Module, untouched: nn.Module) -> bool:
    """Whether a weight of the untouched module is another one under peft's layers."""
    now = {n.replace(".base_layer.", "."): value for n, value in module.named_parameters()}
    was = untouched.named_parameters()
    return any(name in now and not torch.equal(now[name], value) for name, value in was)


def _unwrap_saved(module: nn.Module) -> None:
    """Put modules that were saved whole in the place of peft's wrappers around them.

    What reads a tower looks for its own modules, and a wrapper does nothing but call one of two.
    """
    from peft.utils.other import ModulesToSaveWrapper

    for name, child in list(module.named_modules()):
        if isinstance(child, ModulesToSaveWrapper):
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, child.modules_to_save[ADAPTER])


def _require_fit(wrapped: Any, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Names and shapes of the file are exactly those that peft would save of this model."""
    from peft import get_peft_model_state_dict

    with _peft(where):
        expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    missing, extra = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    shapes = sorted(k for k in expected.keys() & tensors if expected[k].shape != tensors[k].shape)
    if missing or extra or shapes:
        first = [*shapes, *missing, *extra][0]
        raise RecordError(
            Fault(
                str(where),
                f"the {len(expected)} tensors of this adapter on the baseline",
                f"{len(missing)} missing, {len(extra)} left over, {len(shapes)} of another shape "
                f"(first: {first!r})",
                OTHER_BASE,
            )
        )


def _drawn(folder: Path, config: Mapping[str, Any]) -> Fault:
    start = config.get("init_lora_weights")
    got = f" (init_lora_weights: {str(start)[:60]})" if isinstance(start, str) else ""
    return Fault(
        str(folder / ADAPTER_CONFIG),
        "an adapter that makes the same model each time it is loaded",
        f"one whose start is drawn anew each time{got}",
        "Save the merged model, or the adapter with path_initial_model_for_weight_conversion",
    )


@contextmanager
def _peft(where: Path) -> Iterator[None]:
    """peft's many errors of configurations that do not fit, as one that a user can mend."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is counted key by key
            yield
    except Exception as error:
        raise RecordError(
            Fault(
                str(where),
                "an adapter that peft can put onto the baseline",
                f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
                OTHER_BASE,
            )
        ) from None
