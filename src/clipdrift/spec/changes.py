"""`--set key=value`: keys of a study file given otherwise than they are written there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clipdrift.errors import Fault, SpecError
from clipdrift.spec.plain_yaml import Place, parse

OPTION = "--set"
_STEP = f"Write {OPTION} schedule.epochs=2, {OPTION} 'seeds=[1, 2]' or {OPTION} targets.0.name=pets"


def change(value: dict[str, Any], settings: Sequence[str]) -> Iterator[Place]:
    """Set keys of a study, the last word of each being the last; gives their places.

    Args:
        value: the study as it was read; is changed.
        settings: `key=value` each: keys joined by dots, positions in lists from 0, values in YAML.

    Raises:
        SpecError: naming every setting that is none, or leads to nothing.
    """
    faults: list[Fault] = []
    for setting in settings:
        dotted, sign, text = setting.partition("=")
        place = tuple(int(part) if _is_position(part) else part for part in dotted.split("."))
        if not sign or "" in place:
            faults.append(Fault(OPTION, "KEY=VALUE", setting, _STEP))
            continue
        try:
            _put(value, place, parse(text, f"{OPTION} {dotted}", _STEP, SpecError).value)
        except SpecError as error:
            faults += error.faults
            continue
        yield place
    if faults:
        raise SpecError(faults)


def _is_position(part: str) -> bool:
    return part.isdecimal() and part.isascii() and len(part) < 10


def _put(value: Any, place: Place, new: Any) -> None:
    *parents, last = place
    inside = value
    for part in parents:
        if isinstance(inside, dict):
            inside = inside.setdefault(str(part), {})
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            inside = inside[part]
        else:
            inside = None
    if isinstance(inside, dict):
        inside[str(last)] = new
    elif isinstance(inside, list) and isinstance(last, int) and last < len(inside):
        inside[last] = new
    else:
        key = ".".join(map(str, place))
        raise SpecError(Fault(f"{OPTION} {key}", "a key of the study", "nothing there", _STEP))
