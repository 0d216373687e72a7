"""Reading a study file: safe YAML, every fault at once, each with its place in the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from clipdrift.errors import Fault, SpecError, brief, did_you_mean, first_faults
from clipdrift.spec.changes import change
from clipdrift.spec.methods import METHOD_KINDS
from clipdrift.spec.parts import BackboneSpec, StudySpec
from clipdrift.spec.plain_yaml import Place, parse, read_text


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
    if folder and (elsewhere := _found_elsewhere(value, folder)):
        faults.append(_placed(elsewhere, name, read.lines))
    try:
        spec = StudySpec.model_validate(_absolute(value, folder) if folder else value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = (fault for detail in details for fault in _faults(detail, name, read.lines))
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
        found = [fault for detail in error.errors() for fault in _faults(detail, name, {})]
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
GIVEN = 0
"""Instead of a line of the file, for what was set beside it."""
PATHS = (".", "/", "~")
"""What a backbone begins with that is a path wherever it is written."""

_START_OVER = "Write a study file with 'clipdrift init' and change it"


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
    named = _backbone_id(value)
    if named.startswith(PATHS) or (named and os.path.exists(folder / named)):
        backbone = out["backbone"]
        out["backbone"] = fix({"id": backbone} if isinstance(backbone, str) else backbone, "id")
    return out


def _backbone_id(value: dict[str, Any]) -> str:
    """A hub id or a path, as it is written; "" where it is neither."""
    backbone = value.get("backbone")
    named = backbone.get("id") if isinstance(backbone, dict) else backbone
    own = BackboneSpec().id
    return named if isinstance(named, str) and "\0" not in named and named != own else ""


def _found_elsewhere(value: dict[str, Any], folder: Path) -> Fault | None:
    """A model in the working folder that a study file elsewhere may or may not mean."""
    named = _backbone_id(value)
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


def _faults(detail: ErrorDetails, name: str, lines: dict[Place, int]) -> list[Fault]:
    """pydantic's account of one error, in the four parts of ours."""
    context = detail.get("ctx", {})
    if detail["type"] == "faults":
        return [_placed(fault, name, lines) for fault in context["faults"]]
    # A discriminated union adds the chosen kind to the place; it is not a key of the file.
    place = tuple(part for i, part in enumerate(detail["loc"]) if not _is_kind(detail["loc"], i))
    where = ".".join(str(part) for part in place) or "study"
    if detail["type"] == "broken_rule":
        fault = Fault(where, context["expected"], context["got"], context["next_step"])
    elif detail["type"] == "extra_forbidden":
        fault = _unknown_key(where, place)
    elif detail["type"] == "missing":
        fault = Fault(where, "a value", "nothing", f"Add {place[-1]!r}")
    elif detail["type"].startswith("union_tag"):
        fault = Fault(
            f"{where}.kind",
            f"one of {context.get('expected_tags') or ', '.join(map(repr, METHOD_KINDS))}",
            brief(context.get("tag", "nothing")),
            "Choose a method kind",
        )
    else:
        rule = detail["msg"].removeprefix("Input should be ").removeprefix("Value should ")
        rule = rule[0].lower() + rule[1:]
        fault = Fault(where, rule, brief(detail["input"]), "Correct the value")
    return [_placed(fault, name, lines)]


def _is_kind(loc: tuple[int | str, ...], i: int) -> bool:
    return loc[0] == "methods" and i == 2 and loc[i] in METHOD_KINDS


def _placed(fault: Fault, name: str, lines: dict[Place, int]) -> Fault:
    """The fault with `file:line` before its key; the nearest parent's line if it has none."""
    # A position in a list has few digits; a key may have any number of them.
    parts = [
        int(part) if part.isdecimal() and len(part) < 10 else part
        for part in fault.where.split(".")
    ]
    for end in range(len(parts), 0, -1):
        line = lines.get(tuple(parts[:end]))
        if line is not None:
            where = f"{name}:{line} {fault.where}" if line != GIVEN else f"--set {fault.where}"
            return Fault(where, fault.expected, fault.got, fault.next_step)
    return Fault(f"{name} {fault.where}", fault.expected, fault.got, fault.next_step)


def _unknown_key(where: str, place: Place) -> Fault:
    known = sorted(_known_keys(place[:-1]))
    otherwise = "Remove it; see 'clipdrift init' for all keys"
    step = did_you_mean(str(place[-1]), known, otherwise)
    return Fault(where, f"a known key ({', '.join(known)})", brief(place[-1]), step)


def _known_keys(place: Place) -> set[str]:
    """Keys allowed at a place, found by walking the models' fields."""
    models: list[type[BaseModel]] = [StudySpec]
    for part in place:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [model for field in fields for model in _models_in(field.annotation)]
    return {key for model in models for key in model.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]
