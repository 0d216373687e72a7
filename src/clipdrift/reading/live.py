"""Anyone's live model as something that can be read: its image path and, if it moved, its text.

What is read is a copy, in float32 and eval mode, with adapters in place and in the state in which
they are. So reading cannot touch the model: its mode, precision, gradients, hooks or generators.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipdrift.backbone import Backbone, ImageEncoder, TextEncoder, weights_of
from clipdrift.errors import AdapterInactiveError, BackboneError, Fault
from clipdrift.methods.guard import assert_acts
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.reading.open_clip import is_open_clip, twin

WHERE = "model"
SHARDED = ("FullyShardedDataParallel", "FSDPModule")
WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel)


@dataclass(frozen=True)
class LiveModel:
    """Copies of a model's paths. `text` is None where it reads class texts as the baseline does.

    plain: the vision tower's weights with every adapter merged; None where no plain weights
    amount to it. plain_text: those of the text tower likewise.
    """

    encoder: ImageEncoder
    text: TextEncoder | None
    plain_text: Mapping[str, Tensor] | None
    plain: Mapping[str, Tensor] | None

    def vision_state(self) -> dict[str, Tensor] | None:
        return None if self.plain is None else dict(self.plain)

    def projection_state(self) -> dict[str, Tensor]:
        return weights_of(self.encoder.projection)

    def text_state(self) -> dict[str, Tensor] | None:
        return None if self.plain_text is None else dict(self.plain_text)

    def text_projection_state(self) -> dict[str, Tensor]:
        return {} if self.text is None else weights_of(self.text.projection)


def live_model(model: Any, backbone: Backbone, pixels: Tensor) -> LiveModel:
    """A copy of the paths of a live CLIP or SigLIP, held against its baseline.

    Args:
        model: transformers' CLIP or SigLIP, or its vision tower with or without projection; or a
            whole one of open_clip's; peft, DistributedDataParallel and torch.compile may be around
            it or inside it.
        backbone: the baseline. A model without a projection or text tower is read with the
            baseline's.
        pixels: uint8 [B, S, S, 3]; images on which live and merged weights must agree.

    Raises:
        BackboneError: if there is no such path in the model, or it is not of the baseline's
            architecture; the message names the attribute that is missing and what to pass.
        AdapterInactiveError: if adapters are switched off, or what is live is not what its weights
            amount to.
    """
    untouched = backbone.live_encoder()
    device = untouched.mean.device
    # A loop's autocast would round what is merged here.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        inner = unwrapped(model)
        if is_open_clip(inner):
            (own_copy,) = _copied((inner,), device)
            _require_active(own_copy)
            inner = twin(own_copy, plain_weights(own_copy), backbone, pixels.to(device))
        tower, projection = _path(inner, backbone.architecture.image_path, model)
        own = untouched.projection if projection is None else projection
        tower, own = _copied((tower, own), device)
        _require_active(tower, own)
        live = ImageEncoder(tower, own, backbone.mean, backbone.std).to(device).eval()
        plain = plain_weights(tower)
        _require_same(plain, backbone.vision_state(), "vision tower")
        found = LiveModel(live, *_text(inner, backbone), plain)
        _assert_acts(found, untouched, pixels.to(device))
    return found


def unwrapped(model: Any) -> Any:
    """What torch.compile, DistributedDataParallel and peft stand around.

    Raises:
        BackboneError: if it is no module, or its weights are spread over processes.
    """
    while True:
        names = {kind.__name__ for kind in type(model).__mro__}
        if names & set(SHARDED):
            step = "Gather the weights into a plain model and pass that"
            raise BackboneError(Fault(WHERE, "whole weights", "a sharded model (FSDP)", step))
        if isinstance(model, WRAPPERS):
            model = model.module
        elif "OptimizedModule" in names:
            model = model._orig_mod
        elif "PeftModel" in names:
            model = model.get_base_model()
        elif not isinstance(model, nn.Module):
            got, step = type(model).__name__, "Pass the model itself"
            raise BackboneError(Fault(WHERE, "a torch module", got, step))
        else:
            return model


def _path(inner: Any, names: tuple[str, ...], given: Any) -> tuple[Any, Any]:
    """Tower and projection of a path; the projection is None where the model has none."""
    if hasattr(inner, names[0]):
        second = getattr(inner, names[1], None) if len(names) > 1 else None
        return unwrapped(getattr(inner, names[0])), second
    if hasattr(inner, "embeddings") and hasattr(getattr(inner, "encoder", None), "layers"):
        return inner, None
    inside = [
        name
        for name, module in inner.named_modules()
        if name and hasattr(module, names[0]) and name.count(".") < 3
    ]
    step = f"Pass model.{inside[0]}" if inside else "Pass the CLIP or its vision tower"
    got = f"{type(given).__name__} without the attribute {names[0]!r}"
    raise BackboneError(
        Fault(WHERE, "a CLIP or SigLIP of transformers, or its vision tower", got, step)
    )


def _copied(modules: tuple[nn.Module, ...], device: torch.device) -> tuple[nn.Module, ...]:
    try:
        copies = copy.deepcopy(modules)
    except Exception as error:  # whatever a stranger's module holds
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        step = "Remove hooks or attributes that hold what cannot be copied"
        raise BackboneError(Fault(WHERE, "towers that can be copied", got, step)) from None
    return tuple(one.to(device, torch.float32).eval().requires_grad_(False) for one in copies)


def _adapters(*modules: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for module in modules:
        for part in module.modules():
            if isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                yield part


def _require_active(*modules: nn.Module) -> None:
    """Adapters that are switched off would read as perfect retention."""
    found = list(_adapters(*modules))
    off = [part for part in found if part.disable_adapters or not part.active_adapters]
    if off:
        raise AdapterInactiveError(
            Fault(
                WHERE,
                "adapters that are switched on",
                f"{len(off)} of {len(found)} adapted layers switched off",
                "Read outside of disable_adapter(), after set_adapter()",
            )
        )


def plain_weights(tower: nn.Module) -> dict[str, Tensor] | None:
    """A tower's weights by the names of a plain tower, every adapter merged by peft.

    None where a type of adapter cannot be merged. The layers are copied, so the tower stays as
    it is.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {n: m for n, m in tower.named_modules() if m in set(_adapters(tower))}
    inside = tuple(f"{name}." for name in found)
    state = {n: p.detach() for n, p in tower.named_parameters() if not n.startswith(inside)}
    for name, part in found.items():
        if name.startswith(inside):
            continue  # the output projection of attention as one module, merged with it
        if isinstance(part, BaseTunerLayer):
            merged: Any = copy.deepcopy(part)
            try:
                base = _unloaded(merged)
            except NotImplementedError:
                return None
        else:
            base = part.modules_to_save[part.active_adapters[0]]
        state |= {f"{name}.{own}": p.detach() for own, p in base.named_parameters()}
    return state


def _unloaded(layer: Any) -> Any:
    """The module under an adapted layer, with the adapter merged into it."""
    if hasattr(layer, "unload_and_optionally_merge_module"):  # attention as one module
        return layer.unload_and_optionally_merge_module(True, False, None)
    layer.merge()
    return layer.get_base_layer()


def _require_same(
    plain: Mapping[str, Tensor] | None, before: Mapping[str, Tensor], what: str
) -> None:
    """The weights are the baseline's by name and shape."""
    if plain is None:
        return
    other = sorted(
        name
        for name in plain.keys() | before.keys()
        if name not in plain or name not in before or plain[name].shape != before[name].shape
    )
    if other:
        got = f"{len(other)} weights of another name or shape (first: {other[0]!r})"
        step = "Make the gauge of the backbone that the model was made from"
        raise BackboneError(Fault(f"{WHERE}, {what}", "the baseline's architecture", got, step))


def _text(inner: Any, backbone: Backbone) -> tuple[TextEncoder | None, dict[str, Tensor] | None]:
    """The model's own text path, if it has one that is not the baseline's."""
    names = backbone.architecture.text_path
    if not (hasattr(inner, names[0]) and hasattr(backbone.model, names[0])):
        return None, None
    untouched = backbone.live_text_encoder()
    tower, projection = _path(inner, names, inner)
    device = next(untouched.tower.parameters()).device
    own = untouched.projection if projection is None else projection
    tower, own = _copied((tower, own), device)
    _require_active(tower, own)
    plain = plain_weights(tower)
    _require_same(plain, backbone.text_state(), "text tower")
    same = plain is not None and all(
        torch.equal(value, before[name])
        for values, before in (
            (plain, backbone.text_state()),
            (weights_of(own), backbone.text_projection_state()),
        )
        for name, value in values.items()
    )
    return (None, None) if same else (TextEncoder(tower, own, untouched.tokens), plain)


def _assert_acts(found: LiveModel, untouched: ImageEncoder, pixels: Tensor) -> None:
    """The image path that is scored is what its weights amount to."""
    if found.plain is None:
        return
    projection = found.projection_state()
    before = functional_call(untouched, in_encoder({}, projection), (pixels,))
    second = functional_call(untouched, in_encoder(found.plain, projection), (pixels,))
    assert_acts(found.encoder(pixels), second, before, "the merged weights")
