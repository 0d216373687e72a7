"""The epochs of one run: training, what is read after each of them, and which one is kept.

Asked to stop, it stops after the current step with its state in the run's folder, and the next
call goes on from there: readings and weights are the same, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clipdrift.methods.adapted import AdaptedModel
from clipdrift.penalties.held import held_near
from clipdrift.probes.capture import ProbeReading
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.target import on_part, read_val, score_of
from clipdrift.records import EpochReading
from clipdrift.records.readings import OF_SETS
from clipdrift.run.head_first import probe_head
from clipdrift.run.state import RunState, Selected, StateFile
from clipdrift.spec import RunConfig
from clipdrift.training.loop import EpochDone, Stopped, train
from clipdrift.training.state import TrainState


@dataclass(frozen=True)
class EpochEvent:
    """Progress of a run, after each epoch (0: before training)."""

    epoch: int
    epochs: int


OnEpoch = Callable[[EpochEvent], None]
Stop = Callable[[], bool]


class Paused(Exception):
    """The run has come as far as it was to come for now; its state is saved."""


class Epochs:
    """What a run has read so far, epoch by epoch; `train` does all that is left."""

    def __init__(
        self,
        config: RunConfig,
        gauge: Gauge,
        file: StateFile,
        *,
        on_epoch: OnEpoch,
        stop: Stop,
        until: int | None,
    ) -> None:
        self.config, self.gauge, self.file = config, gauge, file
        self.on_epoch, self.stop, self.until = on_epoch, stop, until
        self.history: list[EpochReading] = []
        self.selected: Selected | None = None
        self.train_seconds, self.images_seen, self.interruptions = 0.0, 0, 0
        self.micro_batch: int | None = None
        self._started = time.perf_counter()

    def train(self, model: AdaptedModel) -> None:
        """Train and read a model at step 0, from where an earlier call was interrupted.

        Raises:
            Diverged: see `training.train`.
            Paused: after the epoch `until`, if it is not the last one; the state is saved.
            Stopped: when `stop` says so; the state is saved.
        """
        state = self.file.load()
        if state is not None:
            self._take_up(state)
        elif self.config.method.probe_epochs:
            self._probe_head(model)
        if not self.history:
            self._read(model.eval(), None)
        self._pause()
        try:
            for done in self._epochs(model, state.train if state else None):
                if done.epoch < len(self.history):
                    continue  # it was read before the interruption
                self.train_seconds += done.seconds
                self.images_seen += done.images
                self.micro_batch = done.micro_batch or self.micro_batch
                self._read(model, done)
                self._pause(done)
                if self.stop():
                    raise Stopped(done.state())
                if self.file.due():
                    self._save(done.state())
        except Stopped as stopped:
            self._save(stopped.state)
            raise

    def _pause(self, done: EpochDone | None = None) -> None:
        """After `until`; without `done` the state is that of an earlier call."""
        epoch = self.history[-1].epoch
        if self.until is None or not self.until <= epoch < self.config.schedule.epochs:
            return
        if done is not None:
            self._save(done.state())
        raise Paused(f"paused after epoch {epoch} of {self.config.schedule.epochs} by a race")

    def wall_seconds(self) -> float:
        """Seconds since the start, those before interruptions included."""
        return time.perf_counter() - self._started

    def warnings(self) -> list[str]:
        """What of the training a reader of the record should know."""
        if self.micro_batch is None:
            return []
        batch, part = self.config.schedule.batch_size, self.micro_batch
        told = f"memory did not hold a batch of {batch} images: it was taken {part} at a time, "
        return [told + "equal but for rounding and dropout's draws"]

    def _take_up(self, state: RunState) -> None:
        self.history, self.selected = state.history, state.selected
        self.train_seconds = state.spent["train_seconds"]
        self.images_seen = int(state.spent["images"])
        self.interruptions = int(state.spent["interruptions"]) + 1
        self.gauge.predict.images = int(state.spent["screened"])
        self.gauge.predict.settled = int(state.spent["settled"])
        self.micro_batch = int(state.spent["micro_batch"]) or None
        self._started -= state.spent["wall_seconds"]

    def _save(self, at: TrainState) -> None:
        spent = {
            "wall_seconds": self.wall_seconds(),
            "train_seconds": self.train_seconds,
            "images": float(self.images_seen),
            "interruptions": float(self.interruptions),
            "screened": float(self.gauge.predict.images),
            "settled": float(self.gauge.predict.settled),
            "micro_batch": float(self.micro_batch or 0),
        }
        self.file.save(RunState(at, self.history, self.selected, spent))

    def _probe_head(self, model: AdaptedModel) -> None:
        config = self.config
        for done in probe_head(
            model,
            self.gauge.target.train,
            config.method,
            schedule=config.schedule,
            seed=config.seed,
            precision=config.precision,
            stop=self.stop,
        ):
            self.train_seconds += done.seconds
            self.images_seen += done.images

    def _epochs(self, model: AdaptedModel, resume: TrainState | None) -> Iterator[EpochDone]:
        config = self.config
        own = config.method.head_lr
        return train(
            model,
            self.gauge.target.train,
            schedule=config.schedule,
            learning_rate=config.learning_rate,
            head_rate=config.learning_rate if own == "matched" else own,
            seed=config.seed,
            precision=config.precision,
            held=held_near(config.method, model, self.gauge.backbone),
            resume=resume,
            stop=self.stop,
        )

    def _read(self, model: AdaptedModel, done: EpochDone | None) -> None:
        """Everything that is read after an epoch; keeps the weights if this is the one to keep.

        None: before training.
        """
        epoch = done.epoch if done else 0
        drift, probe = self.gauge.drift(model, closely=epoch == 1)
        reading = EpochReading(
            epoch=epoch,
            step=done.step if done else 0,
            train_loss=done.train_loss if done else None,
            penalties=_finite(done.penalties) if done else {},
            train_seconds=done.seconds if done else 0.0,
            **read_val(self.gauge, model),
            transfer=self._epoch_transfers(model, epoch),
            **drift.model_dump(exclude=OF_SETS),
        )
        self.history.append(reading)
        if done:
            self._select(model, reading, probe)
        self.on_epoch(EpochEvent(epoch, self.config.schedule.epochs))

    def _epoch_transfers(self, model: AdaptedModel, epoch: int) -> dict[str, Any]:
        if epoch == 0:
            self.gauge.require_adapted(model)
        if epoch or model.family.moves_at_start:
            return self.gauge.zero_shot(model, whole=False).readings
        # Before training the encoder is the baseline, and what it reads is already known.
        return self.gauge.untouched(whole=False).readings

    def _select(self, model: AdaptedModel, reading: EpochReading, probe: ProbeReading) -> None:
        """Keep this epoch if the checkpoint rule prefers it; ties go to the earlier one."""
        score = self._score(model, reading)
        if self.selected is None or score > self.selected.score:
            self.selected = Selected(score, reading, probe, model.snapshot())

    def _score(self, model: AdaptedModel, reading: EpochReading) -> float:
        if self.config.checkpoint == "last":
            return float(reading.epoch)
        if self.config.checkpoint == "paper_test_selected":
            return score_of(on_part(self.gauge, model, "test"))
        if reading.val_score is None:
            raise ValueError("best_validation needs validation images")
        return reading.val_score


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
