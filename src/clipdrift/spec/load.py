"""Reading a study file: safe YAML, every fault at once, each with its place in the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from clipdrift.errors import Fault, SpecError, first_faults
from clipdrift.spec.changes import change
from clipdrift.spec.parts import BackboneSpec, StudySpec
from clipdrift.spec.plain_yaml import Place, parse, read_text
from clipdrift.spec.suites import SuiteSpec, suite_of
from clipdrift.spec.told import GIVEN, faults_of, placed


def load_spec(path: Path | str, settings: Sequence[str] = ()) -> StudySpec:
    """Read and validate a study file; relative data paths are read against its folder.

    Args:
        settings: `key=value`, each for a key of the file, read as if it stood there.

    Raises:
        SpecError: with every fault of the file, each naming its line.
    """
    path = Path(path)
    step = "Check the path, or write one with 'clipdrift init'"
    text = read_text(path, "study file", step, SpecError)
    return parse_spec(text, name=str(path), folder=path.resolve().parent, settings=settings)


AnyStudy = StudySpec | str | Path
"""A study, or its file."""


def as_spec(study: AnyStudy) -> StudySpec:
    """A study as it is, or read from its file, as `load_spec` does."""
    return study if isinstance(study, StudySpec) else load_spec(study)


def parse_spec(
    text: str, *, name: str = "study", folder: Path | None = None, settings: Sequence[str] = ()
) -> StudySpec:
    """Validate a study given as YAML text.

    Args:
        text: YAML.
        name: what error messages call the file.
        folder: folder that relative paths start from; None leaves them as they are.
        settings: as in `load_spec`.

    Raises:
        SpecError: with every fault, each naming its line.
    """
    read = parse(text, name, _START_OVER, SpecError)
    faults, value = read.repeated, read.value
    if not isinstance(value, dict):
        raise SpecError(Fault(name, "a mapping of study fields", type(value).__name__, _START_OVER))
    value.pop("$schema", None)
    for place in change(value, settings):
        below = [known for known in read.lines if known[: len(place)] == place]
        read.lines.update(dict.fromkeys([place, *below], GIVEN))
    faults += _expand_suites(value, read.lines, name)
    if folder and (elsewhere := _found_elsewhere(value, folder)):
        faults.append(placed(elsewhere, name, read.lines))
    try:
        spec = StudySpec.model_validate(_absolute(value, folder) if folder else value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = (f for one in details for f in faults_of(one, name, read.lines, StudySpec))
        faults += first_faults(found, name)
    if faults:
        raise SpecError(faults)
    return spec


Model = TypeVar("Model", bound=BaseModel)


def parse_part(model: type[Model], value: Mapping[str, Any], name: str) -> Model:
    """Validate one part of a study, such as a dataset, given as a mapping.

    Args:
        name: what error messages call it.

    Raises:
        SpecError: with every fault.
    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        found = [fault for one in error.errors() for fault in faults_of(one, name, {}, model)]
        raise SpecError(found) from None


def dump_spec(spec: StudySpec) -> str:
    """The study as YAML, resolved: every default that is not empty written out."""
    return yaml.safe_dump(
        spec.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True
    )


def with_checksum(text: str) -> str:
    """YAML under a comment with the SHA-256 of all that follows it."""
    return f"{_CHECKSUM}{_sha256(text)}\n{text}"


def is_altered(text: str) -> bool:
    """Whether a text has another checksum than its own, or none.

    >>> is_altered(with_checksum("name: a")), is_altered(with_checksum("name: a") + "b")
    (False, True)
    """
    first, _, rest = text.partition("\n")
    return first != _CHECKSUM + _sha256(rest)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_CHECKSUM = "# As it was run. SHA-256 of what follows: "
PATHS = (".", "/", "~")
"""What a backbone begins with that is a path wherever it is written."""

_START_OVER = "Write a study file with 'clipdrift init' and change it"


def _expand_suites(value: dict[str, Any], lines: dict[Place, int], name: str) -> list[Fault]:
    """Every suite under `transfers` in place of its name, with the lines of where it was named."""
    listed = value.get("transfers")
    if not isinstance(listed, list) or not any(map(suite_of, listed)):
        return []
    faults: list[Fault] = []
    sets: list[tuple[int, Any]] = []
    for i, item in enumerate(listed):
        asked = suite_of(item)
        if asked is None:
            sets.append((i, item))
            continue
        try:
            members = list(SuiteSpec.model_validate(asked).members())
        except ValidationError as error:
            for one in error.errors(include_url=False):
                faults += faults_of(one, name, lines, SuiteSpec, ("transfers", i))
            members = [
                {"name": f"suite-{i}", "builtin": "unknown"}
            ]  # so that no more is said of it
        # Suites overlap; a set that is asked for alike is read once.
        known = [member for _, member in sets]
        sets += [(i, member) for member in members if member not in known]
    value["transfers"] = [member for _, member in sets]
    below: dict[Any, list[Place]] = {}
    for place in [place for place in lines if place[0] == "transfers" and len(place) > 1]:
        below.setdefault(place[1], []).append(place)
    moved = {place: lines.pop(place) for places in below.values() for place in places}
    for new, (i, _) in enumerate(sets):
        for place in below.get(i, ()):
            lines["transfers", new, *place[2:]] = moved[place]
    return faults


def _absolute(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Data and model paths made absolute, so that the resolved study can be moved."""

    def fix(item: Any, key: str) -> Any:
        text = item.get(key) if isinstance(item, dict) else None
        if isinstance(text, str) and text and "\0" not in text:
            return {**item, key: os.path.realpath(folder / os.path.expanduser(text))}
        return item

    out = dict(value)
    for part in ("targets", "transfers"):
        if isinstance(out.get(part), list):
            out[part] = [_absolute_dataset(item, fix) for item in out[part]]
    for key in ("id", "model"):
        named = _backbone_text(out, key)
        if named.startswith(PATHS) or (named and os.path.exists(folder / named)):
            backbone = out["backbone"]
            out["backbone"] = fix({"id": backbone} if isinstance(backbone, str) else backbone, key)
    return out


def _backbone_text(value: dict[str, Any], key: str) -> str:
    """A hub id or a path, as it is written; "" where it is neither."""
    backbone = value.get("backbone")
    named = backbone.get(key) if isinstance(backbone, dict) else backbone if key == "id" else None
    own = BackboneSpec().id
    return named if isinstance(named, str) and "\0" not in named and named != own else ""


def _found_elsewhere(value: dict[str, Any], folder: Path) -> Fault | None:
    """A model in the working folder that a study file elsewhere may or may not mean."""
    named = _backbone_text(value, "id")
    plain = named and not named.startswith(PATHS)
    if not plain or os.path.exists(folder / named) or not os.path.exists(named):
        return None
    expected = f"a hub id, or a path seen from {folder}, where the study file lies"
    got = f"{named!r}, in the working folder only"
    return Fault("backbone.id", expected, got, "Write its path from the study file on")


def _absolute_dataset(item: Any, fix: Any) -> Any:
    item = fix(item, "folder")
    if isinstance(item, dict) and isinstance(item.get("files"), dict):
        item = {**item, "files": fix(fix(item["files"], "train"), "test")}
    if isinstance(item, dict) and isinstance(item.get("corrupted"), list):
        item = {**item, "corrupted": [_absolute_dataset(one, fix) for one in item["corrupted"]]}
    return item
