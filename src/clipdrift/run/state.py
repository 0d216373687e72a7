"""A run that was interrupted: all it takes to go on, in one sealed file in the run's folder.

The file belongs to one identity and one set of package versions; under any other it is as if it
were not there. It goes when the run's record is in place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.machine.provenance import packages
from clipdrift.probes.capture import ProbeReading
from clipdrift.reading.sealed import load_sealed, save_sealed
from clipdrift.records import EpochReading
from clipdrift.run.progress import STATE_FILE
from clipdrift.training.state import TrainState

CHECKPOINT_SECONDS = 30.0
"""An interruption costs at most this and one epoch; an epoch that lasts longer is always saved."""

TRAIN, WEIGHT, PROBE = "train/", "selected.weight/", "selected.probe/"


@dataclass(frozen=True)
class Selected:
    """The epoch that is kept so far, with its weights and its reading of the probe set."""

    score: float
    reading: EpochReading
    probe: ProbeReading
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class RunState:
    """Training as it stands, what was read so far, and the seconds it took."""

    train: TrainState
    history: list[EpochReading]
    selected: Selected | None
    spent: dict[str, float]


@dataclass
class StateFile:
    """The file of one run under one identity.

    every_seconds: least time between two savings at the end of an epoch, so that runs of short
    epochs do not pay for them.
    """

    folder: Path
    identity: str
    every_seconds: float = CHECKPOINT_SECONDS
    _saved: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether the last saving, or the start, is long enough ago."""
        return time.monotonic() - self._saved >= self.every_seconds

    def save(self, state: RunState) -> None:
        """Write the state, whole or not at all.

        Raises:
            StudyFolderError: if the disk is full or the folder cannot be written.
        """
        tensors = {f"{TRAIN}{name}": tensor for name, tensor in state.train.tensors.items()}
        if (kept := state.selected) is not None:
            tensors |= {f"{WEIGHT}{name}": tensor for name, tensor in kept.weights.items()}
            tensors |= {f"{PROBE}{name}": value for name, value in kept.probe.tensors().items()}
        save_sealed(self.folder / STATE_FILE, tensors, self._facts(state))
        self._saved = time.monotonic()

    def load(self) -> RunState | None:
        """The state of this very run; None without one, or if it is torn or of another identity."""
        saved = load_sealed(self.folder / STATE_FILE)
        if saved is None:
            return None
        tensors, facts = saved
        if facts.get("identity") != self.identity or facts.get("packages") != packages():
            return None
        history = [EpochReading.model_validate(reading) for reading in facts["history"]]
        return RunState(
            train=TrainState(**facts["train"], tensors=_under(TRAIN, tensors)),
            history=history,
            selected=_selected(facts["selected"], history, tensors),
            spent=facts["spent"],
        )

    def _facts(self, state: RunState) -> dict[str, Any]:
        at, kept = state.train, state.selected
        return {
            "identity": self.identity,
            "packages": packages(),
            "train": {
                "epoch": at.epoch, "step": at.step, "images": at.images, "seconds": at.seconds
            },
            "history": [reading.model_dump(mode="json") for reading in state.history],
            "selected": {"epoch": kept.reading.epoch, "score": kept.score} if kept else None,
            "spent": state.spent,
        }  # fmt: skip


def _selected(
    facts: Mapping[str, Any] | None, history: list[EpochReading], tensors: Mapping[str, Tensor]
) -> Selected | None:
    if facts is None:
        return None
    return Selected(
        score=facts["score"],
        reading=history[facts["epoch"]],
        probe=ProbeReading(**_under(PROBE, tensors)),
        weights=_under(WEIGHT, tensors),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
