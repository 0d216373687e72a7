"""Every error a user can mend, drawn once.

::

    ClipdriftError              one or more faults, exit code 2, printed without a traceback
    |- SpecError                the study file: malformed YAML, unknown key, broken matchedness
    |- DataError                a dataset, an image, a split, a prompt list
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

from collections.abc import Iterable
from dataclasses import dataclass

MAX_PART = 4_000
"""Characters of each part of a fault that are shown: a table may hold a cell of any length."""


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
    r"""One line that a terminal only prints: what it would obey is written as its code.

    >>> _shown("red\x1b[31m")
    'red\\x1b[31m'
    """
    short = text if len(text) <= MAX_PART else f"{text[:MAX_PART]}..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in short
    )


def is_failure(error: BaseException) -> bool:
    """Whether a library failed, by its own account or by a panic of its Rust code.

    pyo3 gives Python a panic as a BaseException that no module exports: it is known by its name.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class ClipdriftError(Exception):
    """Base of all errors that the command line prints as plain lines with exit code 2."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: list[Fault] = [faults] if isinstance(faults, Fault) else list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class SpecError(ClipdriftError):
    """The study specification cannot be run as written."""


class DataError(ClipdriftError):
    """A dataset, image, split or prompt list is not usable."""


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
