"""A checkpoint against its baseline: does it act, is it whole, does it read images alike?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from clipdrift.backbone import Backbone
from clipdrift.backbone.text import TRIAL
from clipdrift.checkpoint.adapter import LoadedAdapter, trial
from clipdrift.checkpoint.find import unread_weights
from clipdrift.errors import Fault, RecordError
from clipdrift.methods.guard import ROUNDING, SHARE, relative

ARCHITECTURE = (
    "image_size",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
HEADS = {"classifier", "head", "classification_head"}
"""Modules that classify, by the names they go by."""

TRIED_TOKENS = 8
PASSED = "If images or texts pass through them, these are not that model's numbers"

UNSURE = (
    "taken for the vision tower; its tensors would fit the text tower as well, and peft did not "
    "note what it was made on (auto_mapping)"
)


@dataclass(frozen=True)
class Finding:
    """One answer. `note` says what to know when reading the numbers, `wrong` that they mislead."""

    check: str
    status: Literal["ok", "note", "wrong"]
    text: str


def require_same_architecture(found: Backbone, baseline: Backbone, where: str) -> None:
    """Drift compares block with block, and both read the same prepared images.

    Raises:
        RecordError: naming every size that differs.
    """
    ours, theirs = (b.model.config for b in (found, baseline))
    sizes = [
        (name, getattr(ours.vision_config, name), getattr(theirs.vision_config, name))
        for name in ARCHITECTURE
    ]
    sizes.append(("projection_dim", found.width, baseline.width))
    kinds = (found.architecture.name, baseline.architecture.name)
    sizes.append(("kind of model", *kinds))
    faults = [
        Fault(f"{where} {name}", f"{base} as in the baseline", str(own), "Name its own --baseline")
        for name, own, base in sizes
        if own != base
    ]
    if faults:
        raise RecordError(faults)


@torch.inference_mode()
def adapter_findings(loaded: LoadedAdapter, baseline: Backbone) -> list[Finding]:
    """Whether the adapters act on what they reach, and act as their merged weights do.

    They are held against the baseline and not against the same model with its adapters switched
    off: some starts move base weights, and what is left of those is no model that anybody had.
    """
    kinds = ("images", "texts")
    texts = (*TRIAL, *_moved_tokens(loaded.made.merged, baseline))
    before, now, merged = (
        dict(zip(kinds, trial(baseline, model, texts), strict=True))
        for model in (baseline.model, loaded.made.clip, loaded.made.merged)
    )
    reached = [kind for kind in kinds if _paths(baseline)[kind] & set(loaded.parts)]
    moved = {kind: relative(now[kind], before[kind]) for kind in reached}
    apart = {kind: relative(now[kind], merged[kind]) for kind in kinds}
    same = all(apart[k] <= ROUNDING + SHARE * min(moved.get(k, 0.0), 0.02) for k in kinds)
    furthest = max(apart.values())
    rounded = ROUNDING if loaded.made.start_moved else 0.0
    at_rest = [k for k in reached if moved[k] <= rounded or torch.equal(now[k], before[k])]
    return [
        _active(moved, at_rest),
        *([Finding("tower", "note", UNSURE)] if loaded.unsure else []),
        Finding("live = merged", "ok", f"yes, within {furthest:.1e}")
        if same
        else Finding("live = merged", "wrong", f"no: embeddings differ by {furthest:.1e}"),
    ]


def _moved_tokens(merged: Any, baseline: Backbone) -> list[str]:
    """A few tokens whose embeddings are not the baseline's: texts without them would not move."""
    name = f"{baseline.architecture.text_path[0]}.embeddings.token_embedding"
    own, base = (model.get_submodule(name).weight for model in (merged, baseline.model))
    rows = (own != base).any(dim=1).nonzero().flatten().tolist()
    return [baseline.tokenizer.decode([row]) for row in rows[:TRIED_TOKENS]]


def _paths(baseline: Backbone) -> dict[str, set[str]]:
    """What embeds -> the modules that do it."""
    kind = baseline.architecture
    return {"images": set(kind.image_path), "texts": set(kind.text_path)}


def _active(moved: Mapping[str, float], at_rest: Collection[str]) -> Finding:
    said = ", ".join(
        f"embeddings of {k} are the baseline's" if k in at_rest
        else f"embeddings of {k} move by {size:.2%}"
        for k, size in moved.items()
    )  # fmt: skip
    if len(at_rest) == len(moved):
        return Finding("adapters active", "wrong", f"no: {said}")
    return Finding("adapters active", "note" if at_rest else "ok", f"yes: {said}")


def movement_finding(found: Backbone, baseline: Backbone) -> Finding:
    """Whether a whole CLIP differs from the baseline in what reads images."""
    if _equal_parts(found, baseline, baseline.architecture.image_path):
        return Finding("vision weights", "note", "equal to the baseline's: nothing was adapted")
    return Finding("vision weights", "ok", "differ from the baseline's")


def text_changed(found: Backbone, baseline: Backbone) -> bool:
    """Whether class prompts are read by other weights than the baseline's."""
    return not _equal_parts(found, baseline, baseline.architecture.text_path)


def text_finding(changed: bool) -> Finding:
    if changed:
        return Finding(
            "text tower", "note", "differs from the baseline's: classes are read by its own"
        )
    return Finding("text tower", "ok", "equal to the baseline's")


def preprocessing_findings(
    found: Backbone, baseline: Backbone, *, own_channels: bool = True
) -> list[Finding]:
    """Image size, resize, mean and deviation, precision on disk.

    Args:
        own_channels: whether mean and deviation come from the checkpoint, not from the baseline.
    """
    channels = [f"{_numbers(b.mean)} / {_numbers(b.std)}" for b in (found, baseline)]
    sizes = [f"{b.image_size} px" for b in (found, baseline)]
    return [
        _alike("image size", *sizes, wrong=True),
        _alike("resize", _resize(found), _resize(baseline), wrong=True),
        _alike("mean / std", *channels, wrong=True)
        if own_channels
        else Finding("mean / std", "note", "none in the folder: the baseline's are used"),
        _alike("precision on disk", found.precision_on_disk, baseline.precision_on_disk),
    ]


def _resize(shown: Backbone) -> str:
    sides = "the short side" if shown.resize_mode == "shortest" else "both sides"
    return (
        f"{shown.interpolation}, {sides} to {shown.resized} px, {shown.image_size} px of them shown"
    )


def beside_findings(projection: str | None, others: Iterable[str]) -> list[Finding]:
    """What lies outside an adapter and may have been trained with it.

    Args:
        projection: where it comes from, in words; None if it is not in the folder.
        others: names of tensors of modules that a CLIP does not have.
    """
    head = sorted(name for name in others if HEADS & set(name.split(".")[:-1]))
    unknown = sorted(set(others) - set(head))
    findings = [
        Finding("projection", "ok", projection)
        if projection
        else Finding(
            "projection", "note", "none in the folder: the baseline's is used. If it was trained, "
            "these are not that model's numbers"
        ),
        Finding("classifier", "ok", f"there ({', '.join(head)}); zero-shot readings do not use it")
        if head
        else Finding("classifier", "note", "none in the folder: zero-shot readings need none"),
    ]  # fmt: skip
    if unknown:
        said = f"left aside, a CLIP has none such: {', '.join(unknown)}. {PASSED}"
        findings.append(Finding("other modules", "note", said))
    return findings


def unread_findings(folder: Path, read: Iterable[str]) -> list[Finding]:
    """Files of weights beside those that are read, as a projection that was saved by itself."""
    others = unread_weights(folder, read)
    said = f"not read: {', '.join(others)}. {PASSED}"
    return [Finding("other weights", "note", said)] if others else []


def _alike(check: str, own: str, base: str, *, wrong: bool = False) -> Finding:
    if own == base:
        return Finding(check, "ok", own)
    return Finding(check, "wrong" if wrong else "note", f"{own}, the baseline's is {base}")


def _equal_parts(found: Backbone, baseline: Backbone, names: Iterable[str]) -> bool:
    return all(_equal(found.model.get_submodule(n), baseline.model.get_submodule(n)) for n in names)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
