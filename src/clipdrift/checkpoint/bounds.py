"""What a small configuration of an adapter must not ask for: much memory, or matching without end.

peft matches patterns of the file with names of modules by Python's `re`, which takes exponential
time for some of them and cannot be stopped. So they are tried first in a process that can be.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from clipdrift.errors import Fault, brief

SECONDS = 5.0
"""Of computing, for all patterns of a file. On a busy machine that takes longer by the clock."""
PATIENCE = 24
"""Times as long by the clock, after which it is given up whatever was computed."""
TIMES = 4
"""Parameters of a tower under adapters, in those of the tower: factors of full rank for each of its
layers, and a copy of all that is saved whole."""

FORMS = (
    r"{}",
    r"(.*\.)?({})$",
    r".*\.{}$",
    r"(^|.*\.){}($|\..*)",
    r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
)
"""How peft writes a name of the file into a pattern of its own."""

SPECIAL = frozenset("*+?{}[]()|^$\\")
"""Without one of these a text is matched letter by letter."""

TRY = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
patterns, forms, names, seconds = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except (ImportError, OSError, ValueError):  # Windows, or a lower limit: the clock alone
    pass
for number, pattern in enumerate(patterns):
    print(number, flush=True)
    for form in forms:
        try:
            tried = re.compile(form.replace("{}", pattern))
        except (re.error, RecursionError, OverflowError):
            continue
        for name in names:
            tried.match(name), tried.fullmatch(name), tried.search(name)
"""


COMMAND = [sys.executable, "-I", "-S", "-c", TRY]
"""Reads neither packages nor the folder it is started in."""


def pattern_fault(config: Any, names: Iterable[str], where: str) -> Fault | None:
    """A pattern that cannot be matched with names of modules in a few seconds.

    Args:
        config: an adapter's configuration; every text in it is tried that may be a pattern.
    """
    patterns = sorted({text for text in _texts(config) if SPECIAL & set(text)})
    if not patterns:
        return None
    given = json.dumps([patterns, FORMS, [*names], int(SECONDS)]).encode()
    try:
        done = subprocess.run(COMMAND, input=given, capture_output=True, timeout=PATIENCE * SECONDS)
        if done.returncode >= 0:
            return None
        begun = done.stdout  # killed for the time it took
    except subprocess.TimeoutExpired as error:
        begun = error.stdout or b""
    step = "Name the modules one by one"
    expected = f"patterns that are matched with names of modules within {SECONDS:g} s"
    return Fault(where, expected, brief(patterns[int((begun.split() or [b"0"])[-1])]), step)


def size_fault(wrap: Any, module: nn.Module, where: str) -> Fault | None:
    """More parameters than any adapter of a module has, counted without making them.

    Args:
        wrap: what puts the adapter onto a module.
    """
    most = TIMES * _numel(module)
    try:
        with torch.device("meta"):
            wrapped = wrap(copy.deepcopy(module).to("meta"))
    except (NotImplementedError, RuntimeError):
        return None  # a type that looks at weights while it is made, and has as many as they are
    if (numel := _numel(wrapped)) <= most:
        return None
    expected = f"at most {most:,} parameters with the adapters, {TIMES} times those of the model"
    return Fault(where, expected, f"{numel:,}", "Correct the rank")


def _numel(module: nn.Module) -> int:
    return sum(t.numel() for part in (module.parameters(), module.buffers()) for t in part)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
