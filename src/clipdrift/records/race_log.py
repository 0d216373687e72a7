"""What a race decided, step by step: `race.json` in the study folder, sealed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clipdrift.records.checked import Sealed, read_checked
from clipdrift.records.folder import StudyFolder
from clipdrift.records.schema import RunRecord
from clipdrift.records.writing import atomic_write

VERSION = 1


class Leader(BaseModel):
    """Who led when a step was decided, and with what probability it is right of the whole grid."""

    model_config = ConfigDict(extra="forbid")

    method: str
    learning_rate: float
    alpha: float
    probability: float

    @property
    def name(self) -> str:
        at = "" if self.alpha == 1 else f" at alpha {self.alpha:g}"
        return f"{self.method} {self.learning_rate:g}{at}"


class Step(BaseModel):
    """spent: whole runs' worth of training until then. leaders: by target. measure: run id -> the
    epoch after which it pauses, null for its end."""

    model_config = ConfigDict(extra="forbid")

    spent: float
    leaders: dict[str, Leader] = Field(default_factory=dict)
    measure: dict[str, int | None]


class RaceLog(Sealed):
    """The question of a race, its steps, and how it ended.

    n_runs: of the grid as it was asked for. rates_added: by target, beyond an edge where the best
    lay. outcome: by target; "open" while it is raced.
    """

    version: int = VERSION
    budget: str
    limit: str
    margin_pp: float
    probability: float
    n_runs: int
    rates_added: dict[str, list[float]] = Field(default_factory=dict)
    steps: list[Step] = Field(default_factory=list)
    answers: dict[str, Leader] = Field(default_factory=dict)
    outcome: dict[str, Literal["open", "decided", "not decided"]] = Field(default_factory=dict)
    spent: float = 0.0
    checksum: str = ""

    @property
    def question(self) -> tuple[str, float, float, int]:
        """What a log has to share with a call that goes on with it."""
        return self.budget, self.margin_pp, self.probability, self.n_runs

    def write(self, folder: StudyFolder) -> None:
        """
        Raises:
            StudyFolderError: if the folder cannot be written.
        """
        atomic_write(folder.race_path, self.to_json())

    def words(self, target: str) -> str:
        """The answer for a target, in a sentence without a full stop."""
        found = self.answers.get(target)
        if found is None:
            return f"{target}: no answer yet"
        sure = f"the whole grid's answer, or within {self.margin_pp:g} points of it, with a"
        told = f"{sure} probability of {found.probability:.0%} (asked for: {self.probability:.0%})"
        how = self.outcome.get(target, "open")
        return f"{target}: {how}; {found.name} is {told}"


def left_out(planned: Collection[str], records: Sequence[RunRecord]) -> str:
    """What a race spared, of all runs there are to be."""
    paused = sum(record.status == "stopped" for record in records)
    missing = len({*planned} - {record.run_id for record in records})
    return (
        f"the race left out {missing} of {len(planned)} runs and paused {paused} early: means are "
        "of different numbers of seeds"
    )


def read_race(folder: StudyFolder) -> RaceLog | None:
    """The race of a study folder; None where there was none.

    Raises:
        RecordError: if the file is damaged or was edited.
    """
    if not folder.race_path.exists():
        return None
    step = "Run the study again with --race: decisions follow from the records"
    return read_checked(folder.race_path, RaceLog, VERSION, "a race", step)
