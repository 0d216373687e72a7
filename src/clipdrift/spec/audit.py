"""Matchedness: which factors matched runs share, and the faults of a study that breaks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipdrift.spec.method_base import MethodBase
    from clipdrift.spec.parts import StudySpec
from clipdrift.spec.study_faults import METHOD_FACTORS, bears


@dataclass(frozen=True)
class AuditRow:
    """One factor of the design: how it stands between matched runs."""

    factor: str
    value: str
    status: str  # "shared", "varied", "crossed" or "leak"


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
        bearers = [m for m in spec.matched_methods() if bears(m, factor)]
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
    epochs, rate = method.probe_epochs, method.probe_lr
    return f"{epochs} epochs at {rate:g}, before the schedule" if epochs else None


def _epochs(spec: StudySpec) -> str:
    """One number, or one per target in their order where they differ."""
    epochs = [target.epochs or spec.schedule.epochs for target in spec.targets]
    return " / ".join(str(n) for n in (epochs if len(set(epochs)) > 1 else epochs[:1]))
