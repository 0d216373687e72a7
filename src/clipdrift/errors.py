"""Every error a user can mend, drawn once.

::

    ClipdriftError              one or more faults, exit code 2, printed without a traceback
    |- SpecError                the study file: malformed YAML, unknown key, broken matchedness
    |- DataError                a dataset, an image, a split, a prompt list
    |  `- UnavailableError      a dataset that is not to be had here: out of reach, no own copy
    |- BackboneError            a model folder or hub id, its tokenizer, its weights
    |- MethodError              an adaptation method and its options
    |- PluginError              what another package adds: not there, broken, not as promised
    |- TrainingError            memory that does not hold one image
    |- RecordError              a record or saved weights that are missing, torn or stale
    |- StudyFolderError         the output folder itself
    |- ExecutorError            workers: a device, a cluster or its client that is not there
    `- AdapterInactiveError     the scored image path is not the adapted one (a bug guard)

A fault says where, what was expected, what was found, and what to do next.
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

SHOWN_ALIKE = 3
"""Faults of one rule and one next step that are told in full; the others are counted."""
MAX_FAULTS = 100
"""Of one file: for each, similar names are looked for."""
LONGEST_NAME, MOST_KNOWN = 100, 1_000
"""Characters of a name for which a similar one is looked for, and names it is looked for among."""
MAX_PART = 4_000
"""Characters of each part of a fault that are shown: a table may hold a cell of any length."""
UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that control, turn or hide: also half a surrogate pair, which
a file name may hold and no terminal prints, and codes that stand for no character."""
FILLERS = "\u034f\u115f\u1160\u3164\uffa0"
"""Letters and marks that are as invisible."""
JOINED = {"Lo", "Mn", "Mc", "So", "Sk"}
"""Letters without case, their marks, pictures and their shades: there a joiner shapes what is seen;
between letters of Latin it only hides."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, in the four parts a reader needs.

    >>> str(Fault("seeds", "distinct values", "[7, 7]", "Remove the second 7"))
    'seeds: expected distinct values, got [7, 7]. Remove the second 7.'
    """

    where: str
    expected: str
    got: str
    next_step: str

    def __str__(self) -> str:
        step = self.next_step if self.next_step.endswith(("?", ".")) else f"{self.next_step}."
        where, expected, got, step = map(_shown, (self.where, self.expected, self.got, step))
        return f"{where}: expected {expected}, got {got}. {step}"


def _shown(text: str) -> str:
    short = text if len(text) <= MAX_PART else f"{text[:MAX_PART]}..."
    return printable(short)


def printable(text: str, keep: str = "") -> str:
    r"""Text that a terminal only prints: what it would obey or hide is written as its code.

    Joiners stay between letters and pictures that need them, and so do the characters of `keep`.

    >>> printable("red\x1b[31m, \u202etxt.exe, Grün, 猫, 👩‍🔬")
    'red\\x1b[31m, \\u202etxt.exe, Grün, 猫, 👩\u200d🔬'
    """
    if text.isascii() and text.isprintable():
        return text
    shown = list(text)
    for i, char in enumerate(text):
        hidden = char in FILLERS or unicodedata.category(char) in UNSEEN
        if hidden and char not in keep and not _joins(text, i):
            shown[i] = char.encode("unicode_escape").decode()
    return "".join(shown)


def _joins(text: str, at: int) -> bool:
    """Whether a joiner stands between two characters of a script, or of a picture, that joins."""
    if text[at] not in "\u200c\u200d" or not 0 < at < len(text) - 1:
        return False
    return all(unicodedata.category(text[i]) in JOINED for i in (at - 1, at + 1))


def told(faults: Iterable[Fault]) -> list[str]:
    """A line a fault; of those that ask for the same, three, the last of which counts the others.

    >>> told(Fault(f"row {i}", "a name", "''", "Give it") for i in range(5))[-1]
    "row 2: expected a name, got '' (and 2 more: row 3, row 4). Give it."
    """
    alike: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        alike.setdefault((fault.expected, fault.next_step), []).append(fault)
    lines: list[str] = []
    for group in alike.values():
        shown, others = group[:SHOWN_ALIKE], group[SHOWN_ALIKE:]
        if others:
            places = list(dict.fromkeys(fault.where for fault in others))
            named = ", ".join(places[:20]) + (", ..." if len(places) > 20 else "")
            got = f"{shown[-1].got[: MAX_PART // 2]} (and {len(others):,} more: {named})"
            shown[-1] = replace(shown[-1], got=got)
        lines += map(str, shown)
    return lines


def first_faults(found: Iterable[Fault], where: str) -> list[Fault]:
    """The first hundred of any number of faults; looking for more would take time."""
    faults = list(islice(found, MAX_FAULTS + 1))
    if len(faults) > MAX_FAULTS:
        faults[-1] = Fault(where, f"at most {MAX_FAULTS} faults", "more", "Mend these first")
    return faults


def brief(value: object) -> str:
    """A value as Python writes it, a few hundred characters at most; the rest is not unfolded.

    >>> brief(["a"] * 10**6), brief(16**5000)
    ("['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', ...]", 'a number of 20,001 bits')
    """
    return _BRIEF.repr(value)


class _Brief(reprlib.Repr):
    """Python refuses to write numbers of more than a few thousand digits."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 256 else f"a number of {x.bit_length():,} bits"


_BRIEF = _Brief()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxtuple, _BRIEF.maxset = 3, 8, 8, 8
_BRIEF.maxdict, _BRIEF.maxstring, _BRIEF.maxother = 8, 200, 200


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str, *, n: int = 1, cutoff: float = 0.6
) -> str:
    """The next step for a name that is not known: the n most like it, if any is.

    >>> did_you_mean("sedes", ["seeds", "splits"], "Remove it")
    "Did you mean 'seeds'?"
    """
    names = list(islice(known, MOST_KNOWN)) if len(name) <= LONGEST_NAME else []
    near = difflib.get_close_matches(name, names, n=n, cutoff=cutoff)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def is_failure(error: BaseException) -> bool:
    """Whether a library failed, by its own account or by a panic of its Rust code.

    pyo3 gives Python a panic as a BaseException that no module exports: it is known by its name.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class ClipdriftError(Exception):
    """Base of all errors that the command line prints as plain lines with exit code 2."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        found = [faults] if isinstance(faults, Fault) else faults
        self.faults: list[Fault] = list(dict.fromkeys(found))
        super().__init__("\n".join(told(self.faults)))


@contextmanager
def collecting(faults: list[Fault]) -> Iterator[None]:
    """Keep the faults of one part and go on to the next, so that all are told at once."""
    try:
        yield
    except ClipdriftError as error:
        faults += error.faults


class SpecError(ClipdriftError):
    """The study specification cannot be run as written."""


class DataError(ClipdriftError):
    """A dataset, image, split or prompt list is not usable."""


class UnavailableError(DataError):
    """A dataset is not to be had here: the hub is out of reach or refuses, no own copy is named."""


class BackboneError(ClipdriftError):
    """A backbone cannot be found, loaded or understood."""


class MethodError(ClipdriftError):
    """An adaptation method or one of its options does not fit the backbone."""


class PluginError(ClipdriftError):
    """What a study names of another package is not there, does not work or is something else."""


class TrainingError(ClipdriftError):
    """Training cannot go on with what this machine has."""


class RecordError(ClipdriftError):
    """A record or a run's saved weights are missing, torn, edited or stale."""


class StudyFolderError(ClipdriftError):
    """The study folder cannot be used as asked."""


class ExecutorError(ClipdriftError):
    """Workers cannot be had as asked: no such device, no cluster, a refused submission."""


class AdapterInactiveError(ClipdriftError):
    """The encoder about to be scored is not the adapted one."""
