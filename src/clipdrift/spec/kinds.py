"""Kinds of targets: which methods and readings go with captions, and with several labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipdrift.errors import Fault

if TYPE_CHECKING:
    from clipdrift.spec.datasets import TargetSpec
    from clipdrift.spec.parts import StudySpec

Wrong = tuple[str, str, str]
"""Key of a method, the value that it must not have, and what goes in its place."""
OF_PAIRS: tuple[Wrong, ...] = (
    ("loss", "cross_entropy", "contrastive"),
    ("positives", "class", "pair or caption"),
)
OF_SEVERAL: tuple[Wrong, ...] = (
    ("loss", "contrastive", "cross_entropy"),
    ("head", "frozen", "trained"),
)


def kind_faults(spec: StudySpec) -> list[Fault]:
    """Images with captions have no classes, so no head trains on them; those of several labels
    train a head of sigmoids. Neither is read damaged.
    """
    faults = []
    for i, target in enumerate(spec.targets):
        if not target.paired and not target.several:
            continue
        damaged = {
            "evaluation.corruptions": [str(kind) for kind in spec.evaluation.corruptions],
            f"targets.{i}.corrupted": [part.name for part in target.corrupted],
        }
        faults += [
            Fault(where, f"none with {_told(target)}", ", ".join(named), "Leave it out")
            for where, named in damaged.items()
            if named
        ]
        faults += _method_faults(spec, target)
    return faults


def _method_faults(spec: StudySpec, target: TargetSpec) -> list[Fault]:
    """The first of each method: a contrastive loss has a frozen head by itself."""
    rules = OF_PAIRS if target.paired else OF_SEVERAL
    faults = []
    for j, method in enumerate(spec.methods):
        wrong = [rule for rule in rules if getattr(method, rule[0]) == rule[1]]
        if wrong and target.name in (method.targets or [target.name]):
            key, value, right = wrong[0]
            expected = f"{right} on {_told(target)}"
            faults.append(Fault(f"methods.{j}.{key}", expected, value, f"Set {key}: {right}"))
    return faults


def _told(target: TargetSpec) -> str:
    what = "captions and no classes" if target.paired else "several labels"
    return f"target {target.name}, whose images have {what}"
