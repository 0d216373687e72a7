"""YAML from outside, bounded before any of it is unfolded: study files, maps of columns.

A page of YAML can stand for more than any memory holds: by aliases of aliases, in values, in keys
and in merges, and by numbers whose digits are multiplied (`59:59:59:...` counts in sixties). The
text is therefore parsed, walked up to a bound, and only then made into values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clipdrift.errors import ClipdriftError, Fault
from clipdrift.paths import read_file

MAX_BYTES = 1_000_000
MAX_ENTRIES = 100_000
"""Keys and single values, aliases unfolded."""
MAX_NUMBER = 100
"""Characters of a number; no file that a person writes has longer ones."""

Place = tuple[str | int, ...]
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Entry(NamedTuple):
    """A key, or a single value, at its place in the file; the place of a value is its key's."""

    place: Place
    node: yaml.Node
    is_key: bool

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1


@dataclass(frozen=True)
class Yaml:
    """value: plain Python. lines: place of a key or item -> line, from 1. repeated: keys given
    twice, of which YAML keeps the last in silence."""

    value: Any
    lines: dict[Place, int]
    repeated: list[Fault]


def read_text(path: Path, what: str, next_step: str, error: type[ClipdriftError]) -> str:
    """The text of a file of at most 1 MB.

    Args:
        what: the kind of file, for messages, such as "study file".

    Raises:
        error: it is not there, no plain file, too large, or no UTF-8.
    """
    try:
        return read_file(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "not UTF-8 text"
        fault = Fault(str(path), f"a readable {what}", str(reason), next_step)
        raise error(fault) from None


def parse(text: str, name: str, next_step: str, error: type[ClipdriftError]) -> Yaml:
    """The value of a YAML text whose keys are single values.

    Args:
        name: what messages call the file.
        next_step: where the text is not what it is meant to be.

    Raises:
        error: no YAML, more than `MAX_ENTRIES`, a part that contains itself, a key that is itself a
            mapping or a list, a number without end or in sixties, a date that is none, a value that
            its tag does not fit.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        entries = list(islice(_entries(node, ()), MAX_ENTRIES))
        if len(entries) == MAX_ENTRIES:
            expected, got = f"fewer than {MAX_ENTRIES:,} entries", "more, aliases unfolded"
            raise error(Fault(name, expected, got, next_step))
        if faults := [fault for entry in entries if (fault := _fault(entry, name))]:
            raise error(faults)
        value = yaml.safe_load(text)
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(failure, "problem", None) or "unreadable text"
        step = "Check indentation, colons and quotes there"
        raise error(Fault(where, "valid YAML", problem, step)) from None
    except RecursionError:
        got = "nesting too deep, or a part that contains itself"
        raise error(Fault(name, "valid YAML", got, next_step)) from None
    except (ValueError, ArithmeticError) as failure:  # a date of 31 February
        raise error(Fault(name, "plain YAML", str(failure), next_step)) from None
    except (LookupError, AttributeError):  # of the loader's own, for `!!bool maybe`
        got = "one that its tag (!!bool, !!float, ...) does not fit"
        raise error(Fault(name, "values without a tag", got, "Remove the tag")) from None
    lines = {entry.place: entry.line for entry in reversed(entries)}
    return Yaml(value, lines, list(_repeated(entries, name)))


def _entries(node: yaml.Node | None, place: Place) -> Iterator[_Entry]:
    """With all aliases unfolded, and so to be read with a bound."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*place, key.value if isinstance(key, yaml.ScalarNode) else "?")
            yield _Entry(at, key, is_key=True)
            yield from _entries(value, at)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            if not isinstance(item, yaml.ScalarNode):
                yield _Entry((*place, i), item, is_key=False)
            yield from _entries(item, (*place, i))
    elif node is not None:
        yield _Entry(place, node, is_key=False)


def _fault(entry: _Entry, name: str) -> Fault | None:
    node, where = entry.node, f"{name}:{entry.line} {_dotted(entry.place)}"
    if entry.is_key and not isinstance(node, yaml.ScalarNode):
        kind = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
        return Fault(where, "keys that are single values", kind, "Put the key in quotes")
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS:
        step = "Correct it, or put it in quotes if it is text"
        if len(node.value) > MAX_NUMBER:
            got = f"one of {len(node.value):,} characters"
            return Fault(where, f"numbers of at most {MAX_NUMBER} characters", got, step)
        if ":" in node.value:
            got = f"{node.value}, which YAML counts in sixties"
            return Fault(where, "numbers in digits", got, step)
    return None


def _repeated(entries: list[_Entry], name: str) -> Iterator[Fault]:
    seen: set[Place] = set()
    for entry in entries:
        if entry.is_key:
            if entry.place in seen:
                where = f"{name}:{entry.line} {entry.place[-1]}"
                yield Fault(where, "each key once", "a second one", "Remove one of the two")
            seen.add(entry.place)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
