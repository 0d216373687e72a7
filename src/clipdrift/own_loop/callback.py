"""Drift and retention in a training loop of transformers' `Trainer`, logged where it logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

if TYPE_CHECKING:
    from clipdrift.reading.gauge import Gauge
    from clipdrift.reading.model_reading import ModelReading


class DriftCallback(TrainerCallback):  # type: ignore[misc]
    """Reads the model before training and every so often, and logs `clipdrift/...` scalars.

    They go to `trainer.state.log_history` and to the trackers that the trainer reports to
    (`report_to`), into the run that is open there; TensorBoard shows them as a run of its own
    beside the trainer's. On many processes the first one reads.

        gauge = clipdrift.Gauge("openai/clip-vit-base-patch32", probe="photos/")
        Trainer(model=model, ..., callbacks=[clipdrift.DriftCallback(gauge)])

    Attributes:
        readings: optimiser step -> what was read after it.
    """

    def __init__(self, gauge: Gauge, every: int | Literal["epoch"] = "epoch") -> None:
        """every: "epoch", or a number of optimiser steps of 1 or more.

        Raises:
            ValueError: for another `every`.
        """
        if every != "epoch" and (
            isinstance(every, bool) or not isinstance(every, int) or every < 1
        ):
            raise ValueError(
                f"every: expected 'epoch' or a number of steps from 1, got {every!r}. Correct it."
            )
        self.gauge, self.every = gauge, every
        self.readings: dict[int, ModelReading] = {}
        self._reporters: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            kinds = get_reporting_integration_callbacks(args.report_to)
            self._reporters = [kind() for kind in kinds]
            for reporter in self._reporters:  # joins the run that the trainer has opened
                reporter.on_train_begin(args, state, control, model=kwargs.get("model"))
        self._read(args, state, control, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.every != "epoch" and state.global_step % self.every == 0:
            self._read(args, state, control, kwargs["model"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.every == "epoch":
            self._read(args, state, control, kwargs["model"])

    def _read(self, args: Any, state: Any, control: Any, model: Any) -> None:
        if not state.is_world_process_zero or state.global_step in self.readings:
            return
        reading = self.gauge.read(model)
        self.readings[state.global_step] = reading
        logs = reading.scalars()
        state.log_history.append({**logs, "epoch": state.epoch, "step": state.global_step})
        for reporter in self._reporters:
            reporter.on_log(args, state, control, model=model, logs=dict(logs))
