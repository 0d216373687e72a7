"""The effect of studies together, and how much they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from clipdrift.analysis.pooled.effects import Question, StudyEffect, effects
from clipdrift.analysis.pooled.join import Joined, asked_of
from clipdrift.analysis.rows import Row, Said, key, sure
from clipdrift.analysis.statistics.meta import FEWEST, random_effects


@dataclass(frozen=True, kw_only=True)
class Pooled(Row):
    """The difference of two methods over studies: random-effects meta-analysis.

    studies: how many, those that were joined as one
    diff_pp: method_a - method_b in percentage points, over studies like these
    ci_low: of it
    tau_pp: SD of the true difference between studies
    i2: share of the spread between studies that is not error
    prediction_low: 95 % interval of the true difference in a new study like these
    remark: methods of one name that are not the same in all studies; why something is null
    """

    table: ClassVar = "pooled"

    question: Annotated[Question, key("Question", "words")]
    method_a: Annotated[str, key("First", "name")]
    method_b: Annotated[str, key("Second", "name")]
    studies: Annotated[int, Said("count", "Studies")]
    diff_pp: Annotated[float | None, Said("two", "Diff. (pp)")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "two", upto="ci_high")] = None
    ci_high: float | None = None
    tau_pp: Annotated[float | None, sure("tau (pp)", "two")] = None
    i2: Annotated[float | None, sure("I²", "share")] = None
    prediction_low: Annotated[float | None, sure("New study", "two", upto="prediction_high")] = None
    prediction_high: float | None = None
    remark: Annotated[str | None, Said("remark", "Remark")] = None


def pool(
    studies: Sequence[Joined], methods: Sequence[str] = ()
) -> tuple[list[StudyEffect], list[Pooled]]:
    """What each study says of every two methods, and what all of them say.

    The sample is the studies: those that were joined count once. Pairs that one study alone has are
    not pooled. Methods go by their names; where they are not the same in all studies the row says
    so.
    """
    found: dict[tuple[Question, str, str], list[StudyEffect]] = {}
    for one in studies:
        for row in effects(one, methods):
            found.setdefault((row.question, row.method_a, row.method_b), []).append(row)
    pairs = [_pooled(found[name], studies) for name in sorted(found) if len(found[name]) >= FEWEST]
    alone = [row for rows in found.values() if len(rows) < FEWEST for row in rows]
    return [row for weighed, _ in pairs for row in weighed] + alone, [over for _, over in pairs]


def _pooled(own: list[StudyEffect], studies: Sequence[Joined]) -> tuple[list[StudyEffect], Pooled]:
    first, known = own[0], [row for row in own if row.se_pp is not None]
    said = list(_unlike([first.method_a, first.method_b], studies, {row.study for row in known}))
    row = Pooled(
        question=first.question,
        method_a=first.method_a,
        method_b=first.method_b,
        studies=len(known),
    )
    if len(known) < FEWEST:
        said.insert(0, f"{len(known)} of {len(own)} studies with an error: nothing to pool")
        return own, replace(row, remark="; ".join(said))
    values = [(row.diff_pp, row.se_pp, row.n_seeds) for row in known]
    of = random_effects(*zip(*values, strict=True))
    share = dict(zip((row.study for row in known), of.weights.tolist(), strict=True))
    over = replace(
        row,
        diff_pp=of.mean,
        ci_low=of.ci.low,
        ci_high=of.ci.high,
        tau_pp=of.tau,
        i2=of.i2,
        prediction_low=of.prediction.low,
        prediction_high=of.prediction.high,
        remark="; ".join(said) or None,
    )
    return [replace(row, weight=share.get(row.study)) for row in own], over


def _unlike(methods: Sequence[str], studies: Sequence[Joined], names: set[str]) -> Iterator[str]:
    """Methods that have other options in one study than in another."""
    for method in methods:
        kinds: dict[str | None, list[str]] = {}
        for study in studies:
            of = {
                None if record.config is None else asked_of(record.config)
                for record in study.records
                if record.method == method and study.name in names
            }
            for one in of:
                kinds.setdefault(one, []).append(study.name)
        if len(kinds) > 1:
            yield f"{method} is not the same in {' / '.join(', '.join(k) for k in kinds.values())}"
        elif None in kinds:
            yield f"what {method} was is not known of imported runs"
