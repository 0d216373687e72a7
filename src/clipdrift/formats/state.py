"""The weights of a CLIP among what a file holds: under which names, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.errors import BackboneError, Fault, brief
from clipdrift.formats.archive import Unreadable, read_archive
from clipdrift.formats.rows import Layout

MARKS: dict[str, tuple[Layout, str]] = {
    "visual.conv1.weight": ("open_clip", "a CLIP of open_clip's or OpenAI's"),
    "visual.trunk.patch_embed.proj.weight": ("open_clip", "a SigLIP of open_clip's"),
    "vision_model.embeddings.patch_embedding.weight": ("transformers", "a CLIP of transformers'"),
}
"""Ends of names that only an image tower of each kind has."""
FOREIGN = {
    "visual.attnpool.positional_embedding": "a convolutional tower (ModifiedResNet)",
    "visual.trunk.stem.0.weight": "a convolutional tower of timm's",
    "visual.trunk.blocks.0.attn.q_bias": "an EVA tower",
    "visual.trunk.blocks.0.attn.q_proj.weight": "an EVA tower",
    "visual.blocks.0.attn.qkv.weight": "an EVA tower",
}
"""The same of towers that transformers' CLIP and SigLIP do not have."""
AVERAGED = ("ema", "teacher", "averaged")
"""What names of copies say that were averaged in training."""
UNUSED = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
"""In files of OpenAI's and old ones of open_clip's: sizes, and what a tower can compute."""
MAX_DEPTH, MAX_ENTRIES = 16, 100_000
TENSORS = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
"""Endings of files that may hold tensors."""
ANEW = (
    "Where you trust the file, load it with torch.load(weights_only=False) and save its state_dict "
    "with safetensors.torch.save_file or torch.save"
)


@dataclass(frozen=True)
class State:
    """tensors: the CLIP's, under its own names. beside: others of the same mapping, such as a head.
    said: what it is, and what of the file is not read, in words.
    """

    layout: Layout
    tensors: dict[str, Tensor]
    beside: dict[str, Tensor]
    said: tuple[str, ...]


def read_content(path: Path) -> Any:
    """What a file of weights holds, as `read_archive` gives it, or a safetensors file's tensors.

    Nothing of it is run or unpacked, and tensors stay in the file until they are used.

    Raises:
        BackboneError: if it cannot be read so.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return read_archive(path)
    except Unreadable as error:
        raise BackboneError(Fault(str(path), error.expected, error.got, ANEW)) from None
    except Exception as error:  # safetensors has an error of its own
        got = " ".join(str(error).split())[:160]
        fault = Fault(str(path), "a readable file of weights", got, "Restore the file")
        raise BackboneError(fault) from None


def clip_state(content: Any, where: str) -> State:
    """Find the weights of a CLIP in what a file holds.

    They may lie in a mapping within others (`state_dict`, `model`, the modules of TorchScript), and
    all begin with a prefix (`module.`, `model.`, `image_encoder.model.`). Of copies that training
    averaged none is taken where there are others.

    Raises:
        BackboneError: if there is none, more than one, or one of a kind that is not read.
    """
    leaves = dict(_leaves(content, where))
    found = {
        name.removesuffix(mark): (name, mark)
        for mark in MARKS
        for name in leaves
        if f".{name}".endswith(f".{mark}")
    }
    taken = [prefix for prefix in found if not _averaged(prefix)] or list(found)
    if len(taken) != 1:
        raise BackboneError(_unclear(leaves, taken, where))
    (prefix,), (name, mark) = taken, found[taken[0]]
    layout, kind = MARKS[mark]
    place, rest = leaves[name].place, dict(leaves)
    own = {n: rest.pop(n).tensor for n in leaves if n.startswith(prefix)}
    own = {n.removeprefix(prefix): tensor for n, tensor in own.items()}
    beside = {n: rest.pop(n) for n in list(rest) if rest[n].place == place}
    left = sorted({n.partition(".")[0] for n in rest})
    return State(
        layout,
        {n: tensor for n, tensor in own.items() if n.rpartition(".")[2] not in UNUSED},
        {
            n.removeprefix("".join(f"{key}." for key in place)): one.tensor
            for n, one in beside.items()
        },
        (kind, *([f"not read: {', '.join(left[:9])}"] if left else [])),
    )


def flat_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch's that is one mapping of names to tensors, as a state dict is.

    Raises:
        BackboneError: if it cannot be read so, or is something else.
    """
    content = read_content(path)
    other = (
        {name for name, t in content.items() if not isinstance(t, Tensor)}
        if isinstance(content, Mapping)
        else {type(content).__name__}
    )
    if other:
        got = f"{brief(sorted(map(str, other)))} besides"
        fault = Fault(str(path), "tensors alone, by their names", got, "Save the state_dict alone")
        raise BackboneError(fault)
    return {str(name): tensor for name, tensor in content.items()}


@dataclass(frozen=True)
class _Leaf:
    """A tensor, and the keys that lead to the mapping that holds it."""

    tensor: Tensor
    place: tuple[str, ...]


def _leaves(content: Any, where: str) -> Iterator[tuple[str, _Leaf]]:
    """Every tensor by the keys that lead to it, joined by points."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    entries = 0
    while waiting:
        place, mapping = waiting.pop()
        for key, value in mapping.items() if isinstance(mapping, Mapping) else ():
            entries += 1
            if entries > MAX_ENTRIES:
                expected = f"at most {MAX_ENTRIES:,} entries"
                raise BackboneError(Fault(where, expected, "more", "Restore the file"))
            if isinstance(value, Tensor):
                yield ".".join((*place, str(key))), _Leaf(value, place)
            elif isinstance(value, Mapping) and len(place) < MAX_DEPTH:
                waiting.append(((*place, str(key)), value))


def _averaged(prefix: str) -> bool:
    return any(word in part for part in prefix.lower().split(".") for word in AVERAGED)


def _unclear(leaves: Mapping[str, _Leaf], taken: list[str], where: str) -> Fault:
    expected = "the weights of one CLIP or SigLIP"
    if taken:
        got = f"several, under {', '.join(map(repr, sorted(taken)[:3]))}"
        return Fault(where, expected, brief(got), "Save the one that is meant in a file of its own")
    for mark, kind in FOREIGN.items():
        if any(f".{name}".endswith(f".{mark}") for name in leaves):
            return Fault(where, "towers that are plain ViTs", kind, "Name another model")
    names = sorted(leaves)
    got = f"{len(names)} tensors, none of them an image tower's first" if names else "no tensors"
    got += f" (first {names[0][:80]!r})" if names else ""
    return Fault(where, expected, got, "Name the file that holds the model itself")
