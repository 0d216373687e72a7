"""A peft adapter on a copy of the baseline: key by key, live, merged and switched off.

Keys may be those of a whole CLIP (`vision_model.encoder...`) or of its vision tower alone
(`encoder...`). Only the parts that the file has keys for are wrapped: a plain `q_proj` of an
adapter made on the vision tower would otherwise match the text tower too.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipdrift.backbone import Backbone
from clipdrift.checkpoint.find import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json, read_tensors
from clipdrift.errors import Fault, RecordError

PREFIX = "base_model.model."
OTHER_BASE = "Name the base it was made for with --baseline"


@dataclass(frozen=True)
class LoadedAdapter:
    """The baseline's CLIP with an adapter in it.

    clip: the live model. merged: its vision tower and projection as plain weights. parts: what of
    the CLIP the adapter reaches. beside: tensors of modules that a CLIP does not have, its head.
    """

    clip: Any
    merged: Any
    wrapped: Any
    parts: tuple[str, ...]
    beside: dict[str, Tensor]
    config: dict[str, Any]
    precisions: tuple[str, ...]

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The same live model with its adapters disabled."""
        with self.wrapped.disable_adapter():
            yield


def load_adapter(folder: Path, baseline: Backbone) -> LoadedAdapter:
    """Load an adapter with peft onto a copy of the baseline.

    Raises:
        RecordError: if the file is damaged, or does not fit the baseline key by key.
    """
    where = folder / ADAPTER_WEIGHTS
    tensors, config = read_tensors(where), read_json(folder / ADAPTER_CONFIG)
    precisions = tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}))
    known = (*baseline.architecture.image_path, *baseline.architecture.text_path)
    tensors, beside = _apart(tensors, config, known)
    parts = _parts(tensors, known)
    clip = copy.deepcopy(baseline.model)
    host = _Host({name: getattr(clip, name) for name in parts}) if parts else clip.vision_model
    with _peft(where):
        wrapped = _wrap(host, folder, set(beside))
    _require_fit(wrapped, tensors, where)
    with _peft(where):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(wrapped, dict(tensors))
        merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    for name in parts:  # modules that the adapter replaced rather than wrapped
        setattr(clip, name, getattr(host, name))
    clip.requires_grad_(False).eval()
    unwrapped = merged if parts else _Host({"vision_model": merged})
    # What the adapter does not reach is the live model's own.
    image_path = baseline.architecture.image_path
    plain = _Host({name: getattr(unwrapped, name, getattr(clip, name)) for name in image_path})
    reached = parts or ("vision_model",)
    return LoadedAdapter(clip, plain, wrapped.eval(), reached, beside, config, precisions)


class _Host(nn.Module):
    """Parts of a CLIP under the names that they have in it."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)


def _wrap(host: nn.Module, folder: Path, beside: Iterable[str]) -> Any:
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    outside = {name.split(".")[0] for name in beside}
    if saved := getattr(config, "modules_to_save", None):
        config.modules_to_save = [name for name in saved if name not in outside] or None
    return PeftModel(host, config).float()


def _apart(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], known: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of known parts, and those of other modules saved whole, such as a classifier."""
    saved = config.get("modules_to_save")
    saved = saved if isinstance(saved, list) else []  # anything else is for peft to refuse
    outside = tuple(f"{name}." for name in saved if isinstance(name, str) and name not in known)
    beside = {
        plain: value
        for key, value in tensors.items()
        if outside and (plain := key.removeprefix(PREFIX)).startswith(outside)
    }
    kept = {k: v for k, v in tensors.items() if k.removeprefix(PREFIX) not in beside}
    return kept, beside


def _parts(tensors: Mapping[str, Tensor], known: Iterable[str]) -> tuple[str, ...]:
    roots = {key.removeprefix(PREFIX).split(".")[0] for key in tensors}
    return tuple(name for name in known if name in roots)


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


__all__ = ["LoadedAdapter", "load_adapter"]
