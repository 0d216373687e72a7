"""One RunConfig -> one RunRecord: train, read after every epoch, select, read the test part once.

Nothing here knows of other runs. The folder of a run holds its weights and per-image readings;
`record.json` comes last, so a folder without a valid record is a run that was not done.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipdrift.data.catalogue import templates_of
from clipdrift.machine.memory import forget_peak, peak_memory_bytes
from clipdrift.machine.provenance import provenance
from clipdrift.materials import Materials
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.interpolate import starts
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import not_read, undefined_reasons
from clipdrift.reading.panel import extended
from clipdrift.reading.pictures import save_attention_pictures
from clipdrift.reading.post_hoc import read_post_hoc, undefined_extra
from clipdrift.reading.start import model_at_start
from clipdrift.reading.target import read_test
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.readings import Result
from clipdrift.run.conditions import (
    copied_images,
    data_warnings,
    fingerprints,
    leaks,
    licences,
    plugins_of,
)
from clipdrift.run.epochs import Epochs, OnEpoch, Paused, Stop
from clipdrift.run.files import (
    clear_state,
    clear_unfinished,
    file_hashes,
    write_classes,
    write_lost_pictures,
    write_probe_table,
    write_transfer_table,
    write_weight_updates,
)
from clipdrift.run.state import CHECKPOINT_SECONDS, Selected, StateFile
from clipdrift.spec import RunConfig
from clipdrift.training.loop import Diverged

NOT_OF_RESULT = {"epoch", "step", "train_loss", "train_seconds", "penalties", "transfer", "correct"}
"""What an epoch's reading holds and the result does not, or reads anew on the whole sets."""


class Run:
    """A run being measured. `record()` does all of it."""

    def __init__(
        self,
        config: RunConfig,
        materials: Materials,
        gauge: Gauge,
        *,
        study: str,
        identity: str,
        folder: StudyFolder,
        device: str,
        on_epoch: OnEpoch,
        stop: Stop = lambda: False,
        until: int | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.config, self.materials, self.gauge = config, materials, gauge
        self.study, self.identity, self.device = study, identity, device
        self.run_id = config.run_id(identity)
        self.path = folder.run_path(self.run_id)
        self.record_path = folder.record_path(self.run_id)
        self.state_file = StateFile(self.path, identity, checkpoint_seconds)
        self.epochs = Epochs(
            config,
            gauge,
            self.state_file,
            on_epoch=on_epoch,
            stop=stop,
            until=until,
        )

    def record(self) -> RunRecord:
        """Measure and write the run, from where it was interrupted or paused if it was.

        Raises:
            Stopped: when `stop` says so; another `Run` of the same identity goes on from there.
        """
        clear_unfinished(self.path)
        forget_peak(self.device)
        model = model_at_start(self.gauge, self.config, self.device)
        start = starts(model)
        record = RunRecord.of_run(
            self.config,
            self.identity,
            study=self.study,
            backbone=self.gauge.backbone.name,
            status="finished",
        )
        head = model.head.state_dict()
        record.fingerprints = fingerprints(self.config, self.materials, head)
        record.leaks = leaks(self.config) + copied_images(self.config, self.materials)
        record.warnings = data_warnings(self.config, self.materials)
        try:
            self.epochs.train(model)
            kept = self.epochs.selected
        except Diverged as error:
            record.status, record.reason, kept = "diverged", str(error), None
        except Paused as paused:
            record.status, record.reason, kept = "stopped", str(paused), None
        record.history = self.epochs.history
        record.warnings += self.epochs.warnings()
        if kept is not None:
            record.selected_epoch = kept.reading.epoch
            record.result = self._finish(model, kept, start)
            record.undefined = {
                **undefined_reasons(record.result, not_read(self.gauge.backbone, model)),
                **undefined_extra(record.result.extra, model),
                **record.result.at_chance(),
            }
            record.files = file_hashes(self.path)
        record.timing = self._timing()
        record.provenance = {
            **provenance(self.device),
            "data": self.materials.content(self.config.target.name),
            "prompts": self.materials.prompt_hashes(self.config.target.name),
            **({"plugins": added} if (added := plugins_of(self.config)) else {}),
            **({"licences": licences(self.config)} if self.gauge.in_full else {}),
        }
        atomic_write(self.record_path, record.to_json())
        if record.status != "stopped":
            clear_state(self.path)
        return record

    def _finish(self, model: AdaptedModel, kept: Selected, start: Mapping[str, Tensor]) -> Result:
        """Back to the selected epoch: prove the path, read test and transfers, keep the weights."""
        model.rewind(kept.weights)
        self.gauge.require_adapted(model, kept.weights)
        test = read_test(self.gauge, model)
        model.save(self.path)
        target = self.config.target
        write_classes(self.path, self.gauge.target.class_names, templates_of(target))
        write_probe_table(self.path, kept.probe, self.gauge.baselines.probe, self.gauge.probe)
        save_attention_pictures(
            model.encoder, self.gauge.backbone, self.gauge.probe, self.path / "attention"
        )
        reading, dear = kept.reading, self.gauge.close_up(model)
        if dear is not None:
            reading = extended(reading, *dear.signals)
            write_weight_updates(self.path, dear.updates or [])
        extra = read_post_hoc(self.gauge, model, self.config.evaluation, start)
        correct = {**kept.reading.correct, **test.pop("correct"), **extra.correct}
        own = test.pop("extra", {})
        read = test.pop("image_by_image")
        write_transfer_table(self.path, self.gauge, read)
        write_lost_pictures(self.path, self.gauge, model, read)
        return Result(
            **reading.model_dump(exclude=NOT_OF_RESULT),
            **test,
            parameters_trained=sum(p.numel() for p in model.trained().values()),
            parameters_total=sum(p.numel() for p in model.parameters()),
            extra={**own, **extra.numbers},
            correct=correct,
        )

    def _timing(self) -> dict[str, float | None]:
        seconds, images = self.epochs.train_seconds, self.epochs.images_seen
        return {
            "wall_seconds": self.epochs.wall_seconds(),
            "train_seconds": seconds,
            "train_images_per_second": images / seconds if seconds else None,
            "peak_memory_bytes": float(peak_memory_bytes(self.device)),
            "interruptions": float(self.epochs.interruptions),
            "settled_in_float32_fraction": self.gauge.predict.settled_fraction,
        }
