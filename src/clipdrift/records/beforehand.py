"""Beforehand: what the untouched model told of a study's targets and methods, in `before.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from clipdrift.records.checked import Sealed, read_checked
from clipdrift.records.folder import StudyFolder
from clipdrift.records.transfer import Number

VERSION = 1


class BeforeRow(BaseModel):
    """Signals of a method on a target, and of a transfer set beside it.

    transfer: null of the signals that have none; else those of the target and method as well.
    steps: of training, as planned.
    """

    model_config = ConfigDict(extra="forbid")

    target: str
    method: str
    transfer: str | None
    steps: int
    signals: dict[str, Number]


class Beforehand(Sealed):
    """Every row of a study. left_out: target, method or set -> why it has no signals."""

    version: int = VERSION
    identity: str = ""
    backbone: str
    rows: list[BeforeRow]
    left_out: dict[str, str]
    checksum: str = ""


def before_path(folder: StudyFolder) -> Path:
    return folder.path / "before.json"


def read_before(path: Path) -> Beforehand:
    """Read and verify the signals of a study.

    Raises:
        RecordError: if the file is missing, torn, edited or of another version.
    """
    step = "Remove it, and 'clipdrift forecast --before' reads them again"
    return read_checked(path, Beforehand, VERSION, "signals of the untouched model", step)
