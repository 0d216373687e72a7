"""The gauge: the one object that reads models, anyone's, against their untouched backbone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images
from clipdrift.errors import Fault, SpecError
from clipdrift.machine.devices import choose_device
from clipdrift.materials import (
    Materials,
    TargetMaterial,
    TransferMaterial,
    load_materials,
    without_missing,
)
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.guard import assert_adapted
from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.panel import activation_signals, elsewhere_signals, text_span
from clipdrift.reading.baseline import (
    Baselines,
    Scored,
    TransferBaseline,
    score,
    score_in_full,
    texts_of,
)
from clipdrift.reading.baseline_files import BaselineFiles
from clipdrift.reading.in_full import InFull, Numbers, beside_baseline
from clipdrift.reading.live import LiveModel, live_model
from clipdrift.reading.model import (
    Readable,
    ZeroShot,
    both,
    drift_of,
    not_read,
    read_drift,
    transfer_reading,
    undefined_reasons,
)
from clipdrift.reading.model_reading import ModelReading
from clipdrift.reading.panel import CloseUp, close_up, elsewhere, extended, untouched_elsewhere
from clipdrift.reading.screening import Predictor
from clipdrift.reading.sets import Probe, Transfers, open_probe, open_transfers
from clipdrift.records import StudyFolder
from clipdrift.records.correct import Correct
from clipdrift.records.readings import TARGET_ZERO_SHOT, Reading
from clipdrift.records.transfer import TransferReading
from clipdrift.records.writing import writing_to
from clipdrift.spec import RunConfig, StudySpec
from clipdrift.spec.load import parse_part
from clipdrift.spec.parts import BackboneSpec, EvaluationSpec

GUARD_IMAGES = 8


class Gauge:
    """Reads drift and retained zero-shot accuracy of any model made from one backbone.

    It holds the untouched backbone, the probe images on which drift is read, the transfer sets and
    what the backbone reads on them. The runner of studies, `evaluate` and `after` read through it,
    and so can a training loop of one's own::

        gauge = clipdrift.Gauge("openai/clip-vit-base-patch32", probe="photos/",
                                transfers=["cifar100"])
        reading = gauge.read(model)
        reading.drift["cls_entropy_pct"], reading.transfer["cifar100"].retention_pct
    """

    backbone: Backbone
    probe: Images
    transfers: Mapping[str, TransferMaterial]
    predict: Predictor
    probes: Sequence[str]
    in_full: bool
    panel: bool
    _target: TargetMaterial | None
    _baselines: Baselines

    def __init__(
        self,
        backbone: str | Path | Mapping[str, Any] = "mini-clip",
        *,
        probe: Probe,
        transfers: Transfers = (),
        device: str = "auto",
        cache_dir: str | Path | None = None,
        in_full: bool = False,
        panel: bool = False,
    ) -> None:
        """Load the backbone, prepare the images, read the backbone on them; all is cached.

        Args:
            backbone: name or folder, as `backbone.id` of a study file, or all of `backbone`. Of an
                image tower alone drift is read, and no transfers.
            probe: a folder of class sub-folders, a dataset as a study file describes one, or PIL
                images. Of more than 200 images a class-balanced part is taken.
            transfers: names that `clipdrift datasets` lists and folders; or name -> dataset as a
                study file describes one.
            device: "auto", "cpu", "cuda", "cuda:1", ...; models are read there.
            cache_dir: default `$CLIPDRIFT_CACHE` or `~/.cache/clipdrift`.
            in_full: read each transfer set also for what is gone and what only misaligned,
                calibration and geometry: `reading.transfer[name].in_full`.
            panel: read the spectral and geometric panel too, among `reading.drift`.

        Raises:
            ClipdriftError: with the faults of all parts together.
        """
        cache = Path(cache_dir) if cache_dir else default_cache_dir()
        said = backbone if isinstance(backbone, Mapping) else {"id": str(backbone)}
        spec = parse_part(BackboneSpec, said, "backbone")
        self.backbone = load_backbone(spec, device=choose_device(device))
        self.probe = open_probe(probe, self.backbone, cache)
        self.transfers = open_transfers(transfers, self.backbone, cache)
        self.predict, self.probes = Predictor(EvaluationSpec().batch_size), ()
        self.in_full, self.panel = in_full, panel
        self._target = None
        self._baselines = self._measured("probe", cache)

    @classmethod
    def of(
        cls,
        spec: StudySpec,
        target: str | None = None,
        *,
        device: str = "auto",
        cache_dir: str | Path | None = None,
    ) -> Gauge:
        """The gauge that a study uses for one of its targets; it may be left out if there is one.

        Raises:
            ClipdriftError: if there is no such target, or backbone or data cannot be used.
        """
        names = [one.name for one in spec.targets]
        if target is None and len(names) == 1:
            target = names[0]
        if target not in names:
            step = "Name the target whose probe set is to be read"
            raise SpecError(Fault("target", f"one of {', '.join(names)}", str(target), step))
        return cls.of_targets(spec, [target], device=device, cache_dir=cache_dir)[target]

    @classmethod
    def of_targets(
        cls,
        spec: StudySpec,
        targets: Sequence[str] | None = None,
        *,
        device: str = "auto",
        cache_dir: str | Path | None = None,
    ) -> dict[str, Gauge]:
        """The gauges of a study's targets, default all of them, on one backbone in memory.

        Raises:
            ClipdriftError: if backbone or data cannot be used.
        """
        cache = Path(cache_dir) if cache_dir else default_cache_dir()
        spec = without_missing(spec, lambda text: warnings.warn(text, stacklevel=4))
        materials = load_materials(spec, cache_dir=cache, device=choose_device(device))
        gauges = {}
        for name in targets or materials.targets:
            gauge = gauges[name] = cls.__new__(cls)
            gauge._take(materials, name, Predictor(spec.evaluation.batch_size))
            gauge._ask(spec.evaluation)
            gauge._baselines = gauge._measured(name, cache)
        return gauges

    @classmethod
    def of_run(
        cls,
        config: RunConfig,
        materials: Materials,
        folder: StudyFolder,
        *,
        predict: Predictor | None = None,
    ) -> Gauge:
        """The gauge of a run, with the backbone's readings as its study folder has them.

        Args:
            predict: default: all in float32, in batches as the study says.

        Raises:
            RecordError: if one of these readings is missing or damaged.
        """
        asked, gauge = config.evaluation, cls.__new__(cls)
        gauge._take(materials, config.target.name, predict or Predictor(asked.batch_size))
        gauge._ask(asked)
        files, own = BaselineFiles.of_study(folder, gauge.backbone, asked), gauge.target
        gauge._baselines = files.read(own.name, own.probe, own.zero_shot, gauge.transfers)
        return gauge

    def _take(self, materials: Materials, target: str, predict: Predictor) -> None:
        self._target = materials.targets[target]
        self.backbone, self.transfers = materials.backbone, materials.transfers
        self.probe, self.predict = self._target.probe, predict

    def _ask(self, asked: EvaluationSpec) -> None:
        self.probes, self.in_full, self.panel = asked.probes, asked.in_full, asked.panel

    def _measured(self, name: str, cache: Path) -> Baselines:
        with writing_to(cache):  # of pictures in memory nothing was prepared there
            cache.mkdir(parents=True, exist_ok=True)
        place, batch = cache / "baselines", self.predict.batch_size
        files = BaselineFiles(place, self.backbone, batch, self.in_full, self.panel)
        target = self._target.zero_shot if self._target else None
        sets = [*self.transfers.values(), *([target] if target else [])]
        files.ensure({name: self.probe}, sets, lambda text: None)
        return files.read(name, self.probe, target, self.transfers)

    @property
    def target(self) -> TargetMaterial:
        """The target whose probe set is read; only a study's gauge has one."""
        if self._target is None:
            raise ValueError("target: expected the gauge of a study, got one without. Use Gauge.of")
        return self._target

    @property
    def target_name(self) -> str | None:
        """Of the target whose probe set is read; None where the gauge is not a study's."""
        return self._target.name if self._target else None

    @property
    def baselines(self) -> Baselines:
        """What the untouched backbone reads, image by image."""
        return self._baselines

    @cached_property
    def baseline(self) -> ModelReading:
        """The reading of the untouched backbone: every drift 0, all of its accuracy kept."""
        backbone, probe = self.backbone, self.baselines.probe
        model = LiveModel(backbone.live_encoder(), None, None, backbone.vision_state())
        reading = drift_of(model, probe, backbone, probe, self.probes)
        reading = self._with_panel(reading, probe, model, closely=True)
        return self._named(reading, self.untouched(whole=True), model)

    def read(self, model: Any) -> ModelReading:
        """Every number of a live model, which stays exactly as it is.

        Args:
            model: transformers' CLIP or SigLIP, or its vision tower with or without projection; or
                one of open_clip's. peft, DistributedDataParallel and torch.compile may be around
                it or inside it.

        Raises:
            BackboneError: if the model cannot be read; it says what is missing and what to pass.
            AdapterInactiveError: if adapters are switched off.
        """
        live = live_model(model, self.backbone, self.guard_pixels)
        drift, _ = self.drift(live)
        return self._named(drift, self.zero_shot(live, whole=True), live)

    def drift(self, model: Readable, *, closely: bool = True) -> tuple[Reading, ProbeReading]:
        """Levels and drift on the probe set, weight movement included; and image by image.

        Args:
            closely: with the dear part of the panel, `close_up`, where the panel is asked for.
        """
        before = self.baselines.probe
        reading, found = read_drift(model, self.backbone, self.probe, before, self.probes)
        return self._with_panel(reading, found, model, closely=closely), found

    def close_up(self, model: Readable) -> CloseUp | None:
        """Of weight updates, attention flow and gradients; None where no panel is asked for."""
        before = self.baselines.traces
        if before is None:
            return None
        found = close_up(model, self.backbone, self.probe, before)
        if self._text_span is not None:
            sets = list(self.transfers.values())
            now = elsewhere(model.encoder, [one.images for one in sets])
            before_there = untouched_elsewhere(self.backbone, sets)
            moved = elsewhere_signals(now, before_there, self._text_span)
            found.signals.drift.update(moved)
        return found

    def _with_panel(
        self, reading: Reading, found: ProbeReading, model: Readable, *, closely: bool
    ) -> Reading:
        if not self.panel:
            return reading
        near = activation_signals(found, self.baselines.probe, self._text_span)
        reading = extended(reading, {}, near)
        dear = self.close_up(model) if closely else None
        return extended(reading, *dear.signals) if dear else reading

    @cached_property
    def _text_span(self) -> Tensor | None:
        """Of what all transfer sets are held against; None where there is none."""
        texts = {k: one.text_features for k, one in self.baselines.transfers.items()}
        return text_span(texts) if texts else None

    def zero_shot(self, model: Readable, *, whole: bool) -> ZeroShot:
        """Accuracy and retention on every transfer set, or on its part for epochs.

        Classes are read by the model's own text tower where it has one that moved.
        """
        known: dict[str, Scored] = {}
        full: dict[str, InFull] = {}
        for name, transfer in self.transfers.items():
            before = self.baselines.transfers[name]
            if whole:
                known[name], read = self._whole(model, transfer, before)
                full |= {} if read is None else {name: read}
            elif transfer.epoch_images is not None:
                few = transfer.epoch_images
                known[name] = self.scored(model, transfer, few, before.text_features)
        found = self._compared(known, whole=whole)
        for name, read in full.items():
            found.in_full[name] = read
            found.readings[name].in_full = _beside(
                read, self.baselines.transfers[name], self.transfers[name]
            )
        return found

    def on_target(self, model: Readable) -> tuple[TransferReading, dict[str, Correct]]:
        """The target's test part by class texts, without a head; and image by image."""
        own, before = self.target.zero_shot, self.baselines.target
        assert before is not None  # of a study's gauge
        now, read = self._whole(model, own, before)
        reading = transfer_reading(now, before.scored, own.images, len(own.prompts))
        reading.in_full = _beside(read, before, own)
        return reading, both(TARGET_ZERO_SHOT, now, before.scored)

    def on_test(self, model: Readable) -> Scored:
        """The target's test part by texts alone, without what the baseline reads there."""
        own, before = self.target.zero_shot, self.baselines.target
        assert before is not None  # of a study's gauge
        return self.scored(model, own, own.images, before.text_features)

    def on_validation(self, model: Readable) -> Scored:
        """The target's validation part, of images with captions, by the live text path."""
        images = self.target.val
        text = self._untouched_val
        if model.text is not None and images.captions is not None:
            text = model.text.features(images.captions.texts)
        return score(model.encoder, images, text, self.predict)

    @cached_property
    def _untouched_val(self) -> Tensor:
        """What the untouched text tower makes of the captions of the validation part."""
        captions = self.target.val.captions
        assert captions is not None
        return self.backbone.live_text_encoder().features(captions.texts)

    def untouched(self, *, whole: bool) -> ZeroShot:
        """What `zero_shot` gives of the backbone itself, which is known."""
        known = {
            name: found
            for name, one in self.baselines.transfers.items()
            if (found := one.scored if whole else one.epoch_scored) is not None
        }
        return self._compared(known, whole=whole)

    def scored(
        self, model: Readable, material: TransferMaterial, images: Images, untouched: Tensor
    ) -> Scored:
        """All of a set, or the part that is read after epochs, against its texts.

        Args:
            untouched: text embeddings of the whole set by the baseline, for a model without a text
                tower of its own.
        """
        text = self.texts(model, material, images, untouched)
        return score(model.encoder, images, text, self.predict)

    def texts(
        self, model: Readable, material: TransferMaterial, images: Images, untouched: Tensor
    ) -> Tensor:
        """What some images of a set are held against, as the model reads it: see `scored`."""
        if model.text is None:
            return texts_of(images, material.images, untouched)
        if images.captions is not None:
            return model.text.features(images.captions.texts)
        return model.text.class_features(material.prompts)

    def _whole(
        self, model: Readable, material: TransferMaterial, before: TransferBaseline
    ) -> tuple[Scored, InFull | None]:
        """All of a set, and what its embeddings tell where the baseline was read for that too."""
        if before.in_full is None:
            return self.scored(model, material, material.images, before.text_features), None
        images, scale = material.images, self.backbone.logit_scale
        text = self.texts(model, material, images, before.text_features)
        return score_in_full(model.encoder, images, text, scale, self.predict.batch_size)

    def require_adapted(
        self, model: AdaptedModel, trained: Mapping[str, Tensor] | None = None
    ) -> None:
        """The guard: see `assert_adapted`."""
        assert_adapted(model, self.backbone, self.guard_pixels, trained=trained)

    @property
    def guard_pixels(self) -> Tensor:
        """The few images that the guard looks at: uint8 [B, S, S, 3], on the backbone's device."""
        few = torch.from_numpy(self.probe.take(slice(0, GUARD_IMAGES)))
        return few.to(next(self.backbone.model.parameters()).device)

    def _compared(self, now: Mapping[str, Scored], *, whole: bool) -> ZeroShot:
        found = ZeroShot({}, {}, {})
        for name, scored in now.items():
            transfer, known = self.transfers[name], self.baselines.transfers[name]
            before = known.scored if whole else known.epoch_scored
            images = transfer.images if whole else transfer.epoch_images
            if before is not None and images is not None:
                found.correct.update(both(f"transfer.{name}", scored, before))
                read = transfer_reading(scored, before, images, len(transfer.prompts))
                found.readings[name] = read
        return found

    def _named(self, drift: Reading, zero_shot: ZeroShot, model: Readable) -> ModelReading:
        fields = drift.model_dump(exclude={"transfer", "correct"})
        reading = ModelReading(
            **fields, transfer=zero_shot.readings, correct=zero_shot.correct, undefined={}
        )
        why = undefined_reasons(reading, not_read(self.backbone, model))
        why.pop("val_accuracy", None)
        return reading.model_copy(update={"undefined": why})


def _beside(read: InFull | None, before: TransferBaseline, material: TransferMaterial) -> Numbers:
    """What was read in full, beside the baseline's; nothing where it was not."""
    if read is None or before.in_full is None:
        return {}
    return beside_baseline(read, before.in_full, material.images.labels)
