"""Do the fingerprints of matched runs agree at every target, rate and seed?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from clipdrift.analysis.rows import OfBackbone, Said, key
from clipdrift.analysis.usable import usable_records
from clipdrift.records import RunRecord

Marks = dict[str, str]
"""Factor -> fingerprint, of one run."""
Verdict = Literal["shared", "varied on purpose", "differs"]


@dataclass(frozen=True, kw_only=True)
class SharedFactor(OfBackbone):
    """Whether runs that differ only in their method share a factor.

    factor: what was to be the same
    n_agree: groups of matched runs (same target, rate and seed) whose fingerprints agree
    n_groups: groups of two or more runs that hold one
    verdict: shared; varied, as the study says; or differs
    """

    table: ClassVar = "matchedness"

    factor: Annotated[str, key("Factor", "words")]
    n_agree: Annotated[int, Said("count", "Groups that agree")]
    n_groups: Annotated[int, Said("count", "Groups")]
    verdict: Annotated[Verdict, Said("words", "Verdict")]


def rows(records: Sequence[RunRecord], varied: Collection[str] = ()) -> list[SharedFactor]:
    """One row per backbone and factor that its matched runs hold a fingerprint of.

    Args:
        varied: factors that the study varies on purpose.
    """
    groups: dict[str, dict[tuple[Any, ...], list[Marks]]] = {}
    for record in usable_records(records):
        if record.role == "matched":
            where = (record.target, record.learning_rate, record.seed)
            own = groups.setdefault(record.backbone, {})
            own.setdefault(where, []).append(record.fingerprints)
    return [
        _row(backbone, factor, [*own.values()], varied)
        for backbone, own in groups.items()
        for factor in sorted({factor for marks in own.values() for one in marks for factor in one})
    ]


def _row(
    backbone: str, factor: str, groups: Sequence[Sequence[Marks]], varied: Collection[str]
) -> SharedFactor:
    held = [[own[factor] for own in marks if factor in own] for marks in groups]
    several = [marks for marks in held if len(marks) > 1]
    agree = sum(len(set(marks)) == 1 for marks in several)
    verdict: Verdict = "varied on purpose" if factor in varied else "differs"
    return SharedFactor(
        backbone=backbone,
        factor=factor,
        n_agree=agree,
        n_groups=len(several),
        verdict="shared" if agree == len(several) else verdict,
    )
