"""The faults of a study that only show when its parts are read together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from clipdrift.errors import Fault
from clipdrift.spec.kinds import kind_faults
from clipdrift.spec.method_base import NO_HEAD

if TYPE_CHECKING:
    from clipdrift.spec.method_base import MethodBase
    from clipdrift.spec.parts import StudySpec

METHOD_FACTORS = ("projection", "head_init", "head", "head_lr", "batch_size")
"""Factors written per method that must agree between matched methods unless studied."""
MAX_RUNS = 100_000


def repeated(values: Iterable[Hashable]) -> list[Hashable]:
    """Values that occur more than once, in order of first occurrence."""
    return [value for value, count in Counter(values).items() if count > 1]


def spec_faults(spec: StudySpec) -> list[Fault]:
    """All faults that only show when the parts of a study are read together."""
    return [
        *_duplicate_faults(spec),
        *_matched_faults(spec),
        *_reference_faults(spec),
        *_compared_faults(spec),
        *_penalty_faults(spec),
        *_checkpoint_faults(spec),
        *_draw_faults(spec),
        *_batch_faults(spec),
        *kind_faults(spec),
        *_size_faults(spec),
    ]


def _batch_faults(spec: StudySpec) -> list[Fault]:
    """A contrastive loss tells an image from the others of its batch: of one alone it is 0."""
    alone = [
        method.name
        for method in spec.methods
        if method.loss == "contrastive" and (method.batch_size or spec.schedule.batch_size) == 1
    ]
    if not alone:
        return []
    expected = f"2 or more with loss: contrastive ({', '.join(alone)}), which compares images"
    return [Fault("schedule.batch_size", expected, "1", "Raise it, or choose another loss")]


def _size_faults(spec: StudySpec) -> list[Fault]:
    """A few lines of lists multiply to more runs than anyone can list, let alone measure."""
    asked = len(spec.targets) * len(spec.seeds) * len(spec.learning_rates) * len(spec.methods)
    if asked <= MAX_RUNS:
        return []
    step = "Shorten the lists, or make it several studies"
    return [Fault("learning_rates", f"at most {MAX_RUNS:,} runs in all", f"{asked:,}", step)]


def _duplicate_faults(spec: StudySpec) -> list[Fault]:
    lists: list[tuple[str, Sequence[Hashable]]] = [
        ("learning_rates", spec.learning_rates),
        ("seeds", spec.seeds),
        ("targets", [target.name for target in spec.targets]),
        ("transfers", [transfer.name for transfer in spec.transfers]),
        ("methods", [method.name for method in spec.methods]),
    ]
    several = ("interpolation", "interpolation_paths", "corruptions", "corruption_severities")
    for key in (*several, "probes"):
        lists.append((f"evaluation.{key}", getattr(spec.evaluation, key)))
    for i, target in enumerate(spec.targets):
        lists.append((f"targets.{i}.corrupted", [part.name for part in target.corrupted]))
    for i, method in enumerate(spec.methods):
        lists.append((f"methods.{i}.learning_rates", method.learning_rates or []))
        lists.append((f"methods.{i}.after", getattr(method, "after", [])))
        lists.append((f"methods.{i}.penalties", [penalty.name for penalty in method.penalties]))
    return [
        Fault(where, "distinct values", f"{value} twice", "Remove one of the two")
        for where, values in lists
        for value in repeated(values)
    ]


def _matched_faults(spec: StudySpec) -> list[Fault]:
    matched = [(i, m) for i, m in enumerate(spec.methods) if m.role == "matched"]
    faults = [
        Fault(f"methods.{i}.batch_size", "a batch_size of every matched method, or of none",
              "none", "Name it")
        for i, m in matched
        if m.batch_size is None and any(other.batch_size for _, other in matched)
    ]  # fmt: skip
    if faults:
        return faults
    for factor in METHOD_FACTORS:
        bearers = [(i, m) for i, m in matched if bears(m, factor)]
        if factor in spec.varied or not bearers:
            continue
        first = bearers[0][1]
        for i, method in bearers[1:]:
            if getattr(method, factor) != getattr(first, factor):
                faults.append(
                    Fault(
                        f"methods.{i}.{factor}",
                        f"{getattr(first, factor)!r} as in matched method {first.name!r}",
                        repr(getattr(method, factor)),
                        f"Make them equal, set role: reference, or add {factor} to varied",
                    )
                )
    return faults


def bears(method: MethodBase, factor: str) -> bool:
    """Whether a method has what a factor is about: a contrastive loss has no head to be matched."""
    return method.loss != "contrastive" or factor not in NO_HEAD


def _reference_faults(spec: StudySpec) -> list[Fault]:
    known = [target.name for target in spec.targets]
    return [
        Fault(
            f"methods.{i}.targets",
            f"names among {', '.join(known)}",
            repr(name),
            "Name a target of this study",
        )
        for i, method in enumerate(spec.methods)
        for name in method.targets or []
        if name not in known
    ]


def _compared_faults(spec: StudySpec) -> list[Fault]:
    known = [method.name for method in spec.matched_methods()]
    return [
        Fault(
            "compare_with",
            f"names among the matched methods {', '.join(known) or '(none)'}",
            repr(name),
            "Name a matched method of this study",
        )
        for name in spec.compare_with or []
        if name not in known
    ]


def _penalty_faults(spec: StudySpec) -> list[Fault]:
    return [
        Fault(
            f"methods.{i}.penalties",
            "none on a method that leaves the vision tower as it is",
            ", ".join(penalty.name for penalty in method.penalties),
            "Remove them, or choose a method that trains a part of it",
        )
        for i, method in enumerate(spec.methods)
        if (method.kind == "linear_probe" or method.tower == "text") and method.penalties
    ]


def _checkpoint_faults(spec: StudySpec) -> list[Fault]:
    if spec.checkpoint != "best_validation":
        return []
    places = [(f"targets.{i}.splits", t.splits) for i, t in enumerate(spec.targets) if t.splits]
    if len(places) < len(spec.targets):  # else nothing reads the study's own
        places.insert(0, ("splits", spec.splits))
    return [
        Fault(
            f"{where}.val_fraction",
            "more than 0 with checkpoint: best_validation",
            "0",
            "Give the validation set some images, or choose checkpoint: last",
        )
        for where, splits in places
        if splits.val_fraction == 0
    ]


def _draw_faults(spec: StudySpec) -> list[Fault]:
    """One generator draws all sets of the training part: there is no second seed."""
    return [
        Fault(
            f"targets.{i}.probe.seed" if target.probe else "probe.seed",
            f"{splits.seed} as splits.seed, with draw: in_turn",
            str(probe.seed),
            "Make them equal, or leave draw out",
        )
        for i, target in enumerate(spec.targets)
        for splits, probe in [(target.splits or spec.splits, target.probe or spec.probe)]
        if splits.draw == "in_turn" and probe.source == "train" and probe.seed != splits.seed
    ]
