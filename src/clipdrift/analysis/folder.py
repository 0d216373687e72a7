"""A study folder as pandas frames, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from clipdrift.analysis.frame import history_frame, per_block_frame, runs_frame
from clipdrift.errors import Fault
from clipdrift.records import StudyFolder


class StudyFrames(NamedTuple):
    """The records of a study as tables; undefined is NaN."""

    runs: pd.DataFrame
    """One row per usable run, with the numbers of its selected epoch."""
    epochs: pd.DataFrame
    """One row per run and epoch; epoch 0 is before training."""
    blocks: pd.DataFrame
    """One row per run, signal and block of the vision tower."""
    faults: list[Fault]
    """Records that could not be read, and why."""


def read_frames(path: Path | str) -> StudyFrames:
    """Read the records of a study folder.

    Raises:
        StudyFolderError: if the folder does not exist.
    """
    records, faults = StudyFolder.at(path).records()
    return StudyFrames(
        runs_frame(records), history_frame(records), per_block_frame(records), faults
    )
