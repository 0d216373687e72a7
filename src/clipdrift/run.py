"""One RunConfig -> one RunRecord: train, read after every epoch, select, read the test part once.

Nothing here knows of other runs. The folder of a run holds its weights and per-image readings;
`record.json` comes last, so a folder without a valid record is a run that was not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from clipdrift.attention_pictures import save_attention_pictures
from clipdrift.conditions import data_warnings, fingerprints, leaks
from clipdrift.materials import Materials, TargetMaterial
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.guard import assert_adapted
from clipdrift.post_hoc import read_post_hoc, undefined_extra
from clipdrift.probes.capture import ProbeReading
from clipdrift.provenance import peak_memory_bytes, provenance
from clipdrift.reading import (
    Baselines,
    classify,
    read_drift,
    read_transfers,
    transfer_reading,
    undefined_reasons,
    val_accuracy,
)
from clipdrift.records import EpochReading, RunRecord, StudyFolder, atomic_write
from clipdrift.records.folder import writing_to
from clipdrift.records.schema import Result
from clipdrift.run_files import file_hashes, write_probe_table
from clipdrift.spec import RunConfig
from clipdrift.training import Diverged, EpochDone, train

NOT_OF_RESULT = {"epoch", "step", "train_loss", "train_seconds", "transfer"}
"""What an epoch's reading holds and the result does not, or reads anew on the whole sets."""


@dataclass(frozen=True)
class EpochEvent:
    """Progress of a run, after each epoch (0: before training)."""

    epoch: int
    epochs: int


OnEpoch = Callable[[EpochEvent], None]


@dataclass
class _Selected:
    """The epoch that is kept so far, with its weights and its reading of the probe set."""

    score: float
    reading: EpochReading
    probe: ProbeReading
    weights: dict[str, torch.Tensor]


class Run:
    """A run being measured. `record()` does all of it."""

    def __init__(
        self,
        config: RunConfig,
        materials: Materials,
        baselines: Baselines,
        *,
        study: str,
        identity: str,
        folder: StudyFolder,
        device: str,
        on_epoch: OnEpoch,
    ) -> None:
        self.config, self.materials, self.baselines = config, materials, baselines
        self.study, self.identity, self.device = study, identity, device
        self.run_id = config.run_id(identity)
        self.path = folder.run_path(self.run_id)
        self.record_path = folder.record_path(self.run_id)
        self.on_epoch = on_epoch
        self.target: TargetMaterial = materials.targets[config.target.name]
        self.history: list[EpochReading] = []
        self.selected: _Selected | None = None
        self.train_seconds, self.images_seen = 0.0, 0

    def record(self) -> RunRecord:
        """Measure and write the run."""
        started = time.perf_counter()
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        model = self._build()
        record = RunRecord.of_run(
            self.config,
            self.identity,
            study=self.study,
            backbone=self.materials.backbone.name,
            status="finished",
        )
        head = model.head.state_dict()
        record.fingerprints = fingerprints(self.config, self.materials, head)
        record.leaks = leaks(self.config)
        record.warnings = data_warnings(self.config, self.materials)
        try:
            self._train(model)
        except Diverged as error:
            record.status, record.reason = "diverged", str(error)
            self.selected = None
        record.history = self.history
        if self.selected is not None:
            record.selected_epoch = self.selected.reading.epoch
            record.result = self._finish(model)
            record.undefined = {
                **undefined_reasons(record.result),
                **undefined_extra(record.result.extra),
            }
            record.files = file_hashes(self.path)
        record.timing = self._timing(time.perf_counter() - started)
        record.provenance = {
            **provenance(self.device),
            "data": self.materials.content(self.config.target.name),
            "prompts": self.materials.prompt_hashes(self.config.target.name),
        }
        atomic_write(self.record_path, record.to_json())
        return record

    def _build(self) -> AdaptedModel:
        text = None
        if self.config.method.head_init == "text":
            text = self.materials.backbone.text_features(self.target.prompts)
        model = build(
            self.materials.backbone,
            self.config.method,
            len(self.target.prompts),
            seed=self.config.seed,
            text_features=text,
        )
        return model.to(self.device)

    def _train(self, model: AdaptedModel) -> None:
        self._read(model.eval(), None)
        for done in self._epochs(model):
            self.train_seconds += done.seconds
            self.images_seen += done.images
            self._read(model, done)

    def _epochs(self, model: AdaptedModel) -> Iterator[EpochDone]:
        config = self.config
        own = config.method.head_lr
        return train(
            model,
            self.target.train,
            schedule=config.schedule,
            learning_rate=config.learning_rate,
            head_rate=config.learning_rate if own == "matched" else own,
            seed=config.seed,
            precision=config.precision,
        )

    def _read(self, model: AdaptedModel, done: EpochDone | None) -> None:
        """Everything that is read after an epoch; keeps the weights if this is the one to keep.

        None: before training.
        """
        epoch = done.epoch if done else 0
        batch = self.config.evaluation.batch_size
        drift, probe = read_drift(
            model, self.materials.backbone, self.target.probe, self.baselines.probe
        )
        reading = EpochReading(
            epoch=epoch,
            step=done.step if done else 0,
            train_loss=done.train_loss if done else None,
            train_seconds=done.seconds if done else 0.0,
            val_accuracy=val_accuracy(model, self.target, batch_size=batch),
            transfer=self._epoch_transfers(model, epoch),
            **drift.model_dump(exclude={"val_accuracy", "transfer"}),
        )
        self.history.append(reading)
        if done:
            self._select(model, reading, probe)
        self.on_epoch(EpochEvent(epoch, self.config.schedule.epochs))

    def _epoch_transfers(self, model: AdaptedModel, epoch: int) -> dict[str, Any]:
        before = self.baselines.transfers
        if epoch:
            batch = self.config.evaluation.batch_size
            return read_transfers(model, self.materials, before, whole=False, batch_size=batch)
        # Before training the encoder is the baseline, and its accuracies are already known.
        pixels = self.target.guard_pixels(self.device)
        assert_adapted(model, self.materials.backbone, pixels)
        return {
            name: transfer_reading(known, known, len(t.epoch_images), len(t.prompts))
            for name, t in self.materials.transfers.items()
            if t.epoch_images is not None and (known := before[name].epoch_accuracy) is not None
        }

    def _select(self, model: AdaptedModel, reading: EpochReading, probe: ProbeReading) -> None:
        """Keep this epoch if the checkpoint rule prefers it; ties go to the earlier one."""
        score = self._score(model, reading)
        if self.selected is None or score > self.selected.score:
            self.selected = _Selected(score, reading, probe, model.snapshot())

    def _score(self, model: AdaptedModel, reading: EpochReading) -> float:
        if self.config.checkpoint == "last":
            return float(reading.epoch)
        if self.config.checkpoint == "paper_test_selected":
            batch = self.config.evaluation.batch_size
            return classify(model, self.target.test, batch_size=batch).accuracy
        if reading.val_accuracy is None:
            raise ValueError("best_validation needs validation images")
        return reading.val_accuracy

    def _finish(self, model: AdaptedModel) -> Result:
        """Back to the selected epoch: prove the path, read test and transfers, keep the weights."""
        assert self.selected is not None
        kept = self.selected
        model.rewind(kept.weights)
        pixels = self.target.guard_pixels(self.device)
        assert_adapted(model, self.materials.backbone, pixels, trained=kept.weights)
        batch = self.config.evaluation.batch_size
        test = classify(model, self.target.test, batch_size=batch)
        transfer = read_transfers(
            model, self.materials, self.baselines.transfers, whole=True, batch_size=batch
        )
        with writing_to(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        model.save(self.path)
        write_probe_table(self.path, kept.probe, self.baselines.probe, self.target.probe)
        save_attention_pictures(
            model.encoder, self.materials.backbone, self.target.probe, self.path / "attention"
        )
        return Result(
            **kept.reading.model_dump(exclude=NOT_OF_RESULT),
            transfer=transfer,
            test_accuracy=test.accuracy,
            test_loss=test.loss,
            test_n_images=test.n_images,
            parameters_trained=sum(p.numel() for p in model.trained().values()),
            parameters_total=sum(p.numel() for p in model.parameters()),
            extra=read_post_hoc(
                model, self.materials, self.target, self.baselines, self.config.evaluation
            ),
        )

    def _timing(self, wall: float) -> dict[str, float | None]:
        return {
            "wall_seconds": wall,
            "train_seconds": self.train_seconds,
            "train_images_per_second": self.images_seen / self.train_seconds
            if self.train_seconds
            else None,
            "peak_memory_bytes": float(peak_memory_bytes(self.device)),
        }


__all__ = ["EpochEvent", "Run"]
