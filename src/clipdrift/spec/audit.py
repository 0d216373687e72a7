"""Matchedness: which factors matched runs share, and the faults of a study that breaks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from clipdrift.errors import Fault
from clipdrift.spec.kinds import kind_faults
from clipdrift.spec.methods import NO_HEAD

if TYPE_CHECKING:
    from clipdrift.spec.methods import MethodBase
    from clipdrift.spec.parts import StudySpec

METHOD_FACTORS = ("projection", "head_init", "head", "head_lr", "batch_size")
"""Factors written per method that must agree between matched methods unless studied."""


MAX_RUNS = 100_000


@dataclass(frozen=True)
class AuditRow:
    """One factor of the design: how it stands between matched runs."""

    factor: str
    value: str
    status: str  # "shared", "varied", "crossed" or "leak"


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
        bearers = [(i, m) for i, m in matched if _bears(m, factor)]
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


def _bears(method: MethodBase, factor: str) -> bool:
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


def audit(spec: StudySpec) -> list[AuditRow]:
    """The matchedness audit that `plan` prints: every factor and how matched runs stand on it."""
    schedule = spec.schedule
    leak = spec.checkpoint == "paper_test_selected"
    test_probe = [t.name for t in spec.targets if (t.probe or spec.probe).source == "test"]
    rows = [
        AuditRow("backbone", spec.backbone.id, "shared"),
        AuditRow("data split", f"data seed {spec.splits.seed}", "shared"),
        AuditRow("image order, flips, head init", "functions of (seed, epoch)", "shared"),
        AuditRow(
            "schedule",
            f"AdamW, {_epochs(spec)} epochs, batch {schedule.batch_size}"
            f"{f' ({schedule.micro_batch} at a time)' if schedule.micro_batch else ''}, "
            f"wd {schedule.weight_decay:g}, warm-up {schedule.warmup_fraction:.0%}"
            f"{' from zero' if schedule.warmup == 'from_zero' else ''}, cosine, "
            f"clip {schedule.clip_norm:g}",
            "shared",
        ),
        AuditRow("precision", spec.precision, "shared"),
        AuditRow("interpolation", spec.interpolation, "shared"),
        AuditRow("probe set", f"seed {spec.probe.seed}", "leak" if test_probe else "shared"),
        AuditRow("checkpoint rule", spec.checkpoint, "leak" if leak else "shared"),
        AuditRow("method", ", ".join(m.name for m in spec.matched_methods()), "crossed"),
        *_part_rows(spec, "probe first", _probe_first),
        *_part_rows(spec, "loss", partial(_loss, spec)),
        *_part_rows(spec, "penalties", _penalties),
        *_part_rows(spec, "blocks", _blocks),
        *_part_rows(spec, "layer-wise rates", _layer_decay),
        AuditRow("learning rate", ", ".join(f"{lr:g}" for lr in spec.learning_rates), "crossed"),
        AuditRow("seed", ", ".join(str(seed) for seed in spec.seeds), "crossed"),
        AuditRow("target", ", ".join(target.name for target in spec.targets), "crossed"),
    ]
    for factor in METHOD_FACTORS:
        bearers = [m for m in spec.matched_methods() if _bears(m, factor)]
        values = sorted({str(getattr(m, factor)) for m in bearers})
        if values == ["None"]:  # batch_size: it stands in the schedule
            continue
        status = "varied" if factor in spec.varied else "shared"
        rows.append(AuditRow(factor.replace("_", " "), ", ".join(values) or "-", status))
    return rows


def copies_rows(copies: Mapping[str, Sequence[str]] | None) -> list[AuditRow]:
    """Whether the sets of each target are kept apart: what they share, in words, if it is known."""
    found = [f"{target}: {text}" for target, texts in (copies or {}).items() for text in texts]
    told = "; ".join(found) or ("none" if copies is not None else "not looked for")
    return [AuditRow("images in two sets", told, "leak" if found else "shared")]


def _part_rows(
    spec: StudySpec, factor: str, told: Callable[[MethodBase], str | None]
) -> list[AuditRow]:
    """What is part of a method is crossed as methods are; a row where any method has it."""
    found = [f"{m.name}: {text}" for m in spec.matched_methods() if (text := told(m))]
    return [AuditRow(factor, "; ".join(found), "crossed")] if found else []


def _loss(spec: StudySpec, method: MethodBase) -> str | None:
    if method.loss != "contrastive":
        return None
    kinds = {"captions" if target.paired else "class prompts" for target in spec.targets}
    told = "" if method.positives == "pair" else f", right texts by {method.positives}"
    told += "" if method.logit_scale == "trained" else ", logit scale frozen"
    return f"contrastive with {' or '.join(sorted(kinds))}, {method.tower} adapted, no head{told}"


def _blocks(method: MethodBase) -> str | None:
    layers = getattr(method, "layers", None)
    if layers is None:
        return None
    return ", ".join(f"{k} {v}" for k, v in layers.model_dump(exclude_none=True).items())


def _layer_decay(method: MethodBase) -> str | None:
    decay = getattr(method, "layer_decay", None)
    return None if decay is None else f"{decay:g} a block"


def _penalties(method: MethodBase) -> str | None:
    return ", ".join(f"{p.weight:g} {p.name}" for p in method.penalties)


def _probe_first(method: MethodBase) -> str | None:
    epochs, rate = getattr(method, "probe_epochs", 0), getattr(method, "probe_lr", 0.0)
    return f"{epochs} epochs at {rate:g}, before the schedule" if epochs else None


def _epochs(spec: StudySpec) -> str:
    """One number, or one per target in their order where they differ."""
    epochs = [target.epochs or spec.schedule.epochs for target in spec.targets]
    return " / ".join(str(n) for n in (epochs if len(set(epochs)) > 1 else epochs[:1]))
