"""What pydantic finds wrong in a study file, as faults that name the line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from clipdrift.errors import Fault, brief, did_you_mean
from clipdrift.spec.methods import METHOD_KINDS
from clipdrift.spec.plain_yaml import Place

GIVEN = 0
"""Instead of a line of the file, for what was set beside it."""


def faults_of(
    detail: ErrorDetails,
    name: str,
    lines: Mapping[Place, int],
    model: type[BaseModel],
    at: Place = (),
) -> list[Fault]:
    """pydantic's account of one error, in the four parts of ours.

    Args:
        name: what messages call the file.
        model: what was read, and `at`: where in the file it stands.
    """
    context = detail.get("ctx", {})
    if detail["type"] == "faults":
        return [placed(fault, name, lines) for fault in context["faults"]]
    # A discriminated union adds the chosen kind to the place; it is not a key of the file.
    place = tuple(part for i, part in enumerate(detail["loc"]) if not _is_kind(detail["loc"], i))
    where = ".".join(str(part) for part in (*at, *place)) or "study"
    if detail["type"] == "broken_rule":
        fault = Fault(where, context["expected"], context["got"], context["next_step"])
    elif detail["type"] == "extra_forbidden":
        fault = _unknown_key(where, place, model)
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
    return [placed(fault, name, lines)]


def _is_kind(loc: tuple[int | str, ...], i: int) -> bool:
    return loc[:1] == ("methods",) and i == 2 and loc[i] in METHOD_KINDS


def placed(fault: Fault, name: str, lines: Mapping[Place, int]) -> Fault:
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


def _unknown_key(where: str, place: Place, model: type[BaseModel]) -> Fault:
    known = sorted(_known_keys(place[:-1], model))
    otherwise = "Remove it; see 'clipdrift init' for all keys"
    step = did_you_mean(str(place[-1]), known, otherwise)
    return Fault(where, f"a known key ({', '.join(known)})", brief(place[-1]), step)


def _known_keys(place: Place, root: type[BaseModel]) -> set[str]:
    """Keys allowed at a place, found by walking the models' fields."""
    models: list[type[BaseModel]] = [root]
    for part in place:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [model for field in fields for model in _models_in(field.annotation)]
    return {key for model in models for key in model.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models_in(arg)]
