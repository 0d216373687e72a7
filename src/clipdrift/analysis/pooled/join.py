"""Which studies are one: the same conditions wherever they meet, held by fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from pydantic import ValidationError

from clipdrift.analysis.usable import RUN_KEY, usable_records
from clipdrift.records import RunRecord
from clipdrift.spec import RunConfig, StudySpec, content_hash
from clipdrift.spec.method_base import asked_of_method

OF_SEED = ("image_order", "head_init")
"""Factors that are another at every seed: told of equal seeds alone."""
Marks = dict[tuple[str, int | None], set[str]]
"""Factor, and seed where it is one of a seed -> fingerprints of the runs at one place."""
Place = tuple[str, str]


class Study(NamedTuple):
    """A study to pool: its name for people, its records, what it varies on purpose."""

    name: str
    records: list[RunRecord]
    spec: StudySpec | None


@dataclass
class Joined:
    """Studies whose runs stand on one grid, each run once.

    apart: name of another study -> why it stands on a grid of its own. repeated: runs that several
    of them have, the first of which counts.
    """

    studies: list[Study]
    apart: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " + ".join(study.name for study in self.studies)

    @property
    def records(self) -> list[RunRecord]:
        """Each run once, that of the first study: its conditions are the same in all."""
        found: dict[tuple[Any, ...], RunRecord] = {}
        for study in self.studies:
            own = {attrgetter(*RUN_KEY)(record): record for record in study.records}
            found = {**own, **found}
        return list(found.values())

    @property
    def repeated(self) -> int:
        return sum(len(study.records) for study in self.studies) - len(self.records)

    @property
    def varied(self) -> list[str]:
        return sorted({name for one in self.studies if one.spec for name in one.spec.varied})


def join(studies: Sequence[Study]) -> list[Joined]:
    """Put studies together that meet at a backbone and target, and agree at each where they meet.

    Runs of matched methods agree if every factor has the same fingerprint, and methods of one name
    the same options. Order of image and first head are compared at equal seeds. Imported runs have
    no fingerprints, so they are joined with nothing.
    """
    groups: list[Joined] = []
    for study in studies:
        own = Joined([study])
        for group in groups:
            found = [_apart(study, other) for other in group.studies]
            why = next((text for text in found if text), None)
            if why is None and None in found:
                group.studies.append(study)
                break
            own.apart[group.name] = why or "they share no backbone and target"
        else:
            groups.append(own)
    return groups


def _apart(first: Study, second: Study) -> str | None:
    """Why two studies are not one; "" where they do not meet, None where they are."""
    a, b = _places(first), _places(second)
    shared = a.keys() & b.keys()
    for place in sorted(shared):
        where = f"on {place[1]} with {place[0]}"
        if not a[place] or not b[place]:
            return f"{where} runs have no fingerprints"
        differs = _differing(a[place], b[place])
        if differs is not None:
            return f"{where} they differ in {differs}"
    return None if shared else ""


def _places(study: Study) -> dict[Place, Marks]:
    out: dict[Place, Marks] = {}
    for record in usable_records(study.records):
        if record.role != "matched":
            continue
        own = out.setdefault((record.backbone, record.target), {})
        for factor, mark in record.fingerprints.items():
            seed = record.seed if factor in OF_SEED else None
            own.setdefault((factor, seed), set()).add(mark)
        if record.config is not None and record.fingerprints:
            own.setdefault((f"method {record.method}", None), set()).add(asked_of(record.config))
    return out


def asked_of(config: Mapping[str, Any]) -> str:
    """Hash of what a run asks of its method, whatever options later versions added."""
    try:
        method = RunConfig.model_validate(config).method.model_dump(mode="json")
    except ValidationError:  # of a package that is not installed here
        method = dict(config.get("method") or {})
    return content_hash(asked_of_method(method))


def _differing(a: Marks, b: Marks) -> str | None:
    """The first factor with no fingerprint in common: one that a study varies has several."""
    return next(_words(a, b), None)


def _words(a: Marks, b: Marks) -> Iterator[str]:
    for factor, seed in sorted(a.keys() & b.keys(), key=str):
        if not a[factor, seed] & b[factor, seed]:
            yield factor.replace("_", " ") + ("" if seed is None else f" at seed {seed}")
