"""Where the tensors of an adapter belong: parts of a CLIP, one of its towers alone, or neither.

An adapter names modules as the model had them that it was made on: those of a whole CLIP
(`vision_model.encoder...`) or of a tower alone (`encoder...`), which is what transformers' vision
and text models are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipdrift.backbone import Backbone
from clipdrift.errors import Fault, RecordError

TUNER = "base_model."
PREFIX = f"{TUNER}model."


@dataclass(frozen=True)
class Host:
    """Parts of a CLIP that an adapter is put onto.

    parts: their names in the CLIP. alone: whether the adapter names modules within the one part, as
    the tower alone has them. saved: what `modules_to_save` names of them.
    """

    parts: tuple[str, ...]
    alone: bool
    tensors: dict[str, Tensor]
    saved: tuple[str, ...]

    def module(self, clip: Any) -> nn.Module:
        """The parts of one CLIP, under the names that the adapter has for them."""
        if self.alone:
            tower: nn.Module = clip.get_submodule(self.parts[0])
            return tower
        return Parts({name: clip.get_submodule(name) for name in self.parts})

    def put_back(self, module: nn.Module, clip: Any) -> None:
        """Let a CLIP have the parts as they are in `module`, also where they were replaced."""
        for name in self.parts:
            setattr(clip, name, module if self.alone else module.get_submodule(name))


class Parts(nn.Module):
    """Parts of a CLIP under the names that they have in it."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)


def find_hosts(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], baseline: Backbone, where: Path
) -> tuple[list[Host], dict[str, Tensor]]:
    """What the adapter may have been made on, likeliest first; and tensors of other modules.

    Those others are modules that a CLIP does not have and `modules_to_save` names, such as a
    classifier. What a host has belongs to the host.

    Raises:
        RecordError: naming tensors that belong to neither.
    """
    kind = baseline.architecture
    # What layers share, as those of VeRA and VB-LoRA do, is named beside the model.
    shared = {k: t for k, t in tensors.items() if k.startswith(TUNER) and not k.startswith(PREFIX)}
    names = {key: key.removeprefix(PREFIX) for key in tensors if key not in shared}
    known = (*kind.image_path, *kind.text_path)
    parts = tuple(n for n in known if any(name.startswith(f"{n}.") for name in names.values()))
    towers = [(n,) for n in _towers(config, kind.image_path[0], kind.text_path[0])]
    saved = _texts(config.get("modules_to_save"))
    hosts: list[Host] = []
    beside: dict[str, Tensor] = {}
    strange = sorted(tensors)
    for chosen in [parts] if parts else towers:
        host = Host(chosen, not parts, {}, ())
        modules = [name for name, _ in host.module(baseline.model).named_modules() if name]
        roots = {name.partition(".")[0] for name in modules}
        own = {k: tensors[k] for k, n in names.items() if n.partition(".")[0] in roots}
        others = {n: tensors[k] for k, n in names.items() if k not in own and _is_in(n, saved)}
        left = sorted(k for k, n in names.items() if k not in own and n not in others)
        inside = tuple(name for name in saved if any(m.endswith(name) for m in modules))
        if own and not left:
            hosts.append(Host(chosen, not parts, own | shared, inside))
            beside = beside or others
        strange = min(strange, left, key=len)
    if not hosts:
        raise RecordError(_strange(strange, known, where))
    return hosts, beside


def _towers(config: Mapping[str, Any], vision: str, text: str) -> Iterator[str]:
    """By the class of model where peft noted it."""
    noted = config.get("auto_mapping")
    made_on = str(noted.get("base_model_class")) if isinstance(noted, dict) else ""
    if "Text" not in made_on:
        yield vision
    if "Vision" not in made_on:
        yield text


def _texts(value: Any) -> tuple[str, ...]:
    """The names of a list; anything else is for peft to refuse."""
    return tuple(n for n in value if isinstance(n, str)) if isinstance(value, list) else ()


def _is_in(name: str, modules: Iterable[str]) -> bool:
    """Whether a tensor lies in a module of one of these names."""
    return any(f".{module}." in f".{name}" for module in modules)


def _strange(keys: list[str], known: Iterable[str], where: Path) -> Fault:
    shown = ", ".join(repr(key[:120]) for key in keys[:3])
    first = f".{keys[0]}" if keys else ""
    inside = next((name for name in (*known, "encoder") if f".{name}." in first), None)
    like = ""
    if inside:  # a model of one's own holds the CLIP, or the tower, under a name
        tail = first[first.index(f".{inside}.") + 1 :]
        like = f": for the first, {PREFIX + tail[:120]!r}"
    return Fault(
        str(where),
        f"tensors named {PREFIX}... after modules of a CLIP ({', '.join(known)}) or of one of its "
        "towers (embeddings, encoder, ...)",
        f"{len(keys)} named otherwise, first {shown}" if keys else "no tensors",
        f"Save it from the CLIP or tower itself, or give its tensors those names{like}",
    )
