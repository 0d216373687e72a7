"""What the untouched model tells of a study's targets and methods before anything is trained.

Forward passes on a few images of each target and transfer set, and of each method the gradient of
one batch at step 0. Of a folder with finished runs it is kept in `before.json`, so that it is read
once, and goes with the records where the images do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clipdrift.backbone import ImageEncoder
from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images
from clipdrift.data.splits import balanced_subset
from clipdrift.errors import RecordError
from clipdrift.finished.evaluate import require_same_content
from clipdrift.finished.runs import Say, runs_with_weights, study_with_runs
from clipdrift.machine.devices import choose_device, strict_float32
from clipdrift.materials import (
    Materials,
    TargetMaterial,
    TransferMaterial,
    load_materials,
    without_missing,
)
from clipdrift.penalties.held import held_near
from clipdrift.probes import beforehand as probes
from clipdrift.probes.geometry import Floats, energy_distance, margins, unit
from clipdrift.probes.zero_shot import cosines
from clipdrift.reading.baseline import PROBE_BATCH, embedded
from clipdrift.records import StudyFolder, atomic_write
from clipdrift.records.beforehand import VERSION, Beforehand, BeforeRow, before_path, read_before
from clipdrift.records.transfer import Number, wilson_low
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, StudySpec, content_hash, expand
from clipdrift.step.engine import Engine
from clipdrift.study.trial import built
from clipdrift.training.loop import epoch_targets

N_IMAGES = 200
"""Of each set that are read forwards, class-balanced."""
Signals = dict[str, Number]


def of_folder(folder: StudyFolder, *, cache_dir: Path | None, device: str, say: Say) -> Beforehand:
    """The signals of a folder's study: as they are kept there, else read and kept.

    Raises:
        ClipdriftError: if there is no finished run, or backbone or data are not at hand, or are
            not those of the records.
    """
    spec, runs = study_with_runs(folder), runs_with_weights(folder)
    known = {run.target: run for run in runs}
    data = {name: run.provenance.get("data") for name, run in known.items()}
    identity = content_hash([VERSION, PROTOCOL_VERSION, spec.model_dump(mode="json"), data])
    path = before_path(folder)
    try:
        kept = read_before(path)
        if kept.identity == identity:
            return kept
    except RecordError:
        pass  # it is read anew
    say(f"{folder.path}: reading the untouched model")
    strict_float32()
    materials = _materials(spec, cache_dir, device)
    for run in known.values():
        require_same_content(run, materials)
    found = _read(spec, materials, device, say).model_copy(update={"identity": identity})
    atomic_write(path, found.to_json())
    return found


def of_study(spec: StudySpec, *, cache_dir: Path | None, device: str, say: Say) -> Beforehand:
    """The signals of a study that was not run; nothing is kept.

    Raises:
        ClipdriftError: if backbone or data cannot be used.
    """
    strict_float32()
    spec = without_missing(spec, say)
    return _read(spec, _materials(spec, cache_dir, device), device, say)


def _materials(spec: StudySpec, cache_dir: Path | None, device: str) -> Materials:
    cache = cache_dir or default_cache_dir()
    return load_materials(spec, cache_dir=cache, device=choose_device(device))


def _read(spec: StudySpec, materials: Materials, device: str, say: Say) -> Beforehand:
    found = Beforehand(backbone=materials.backbone.name, rows=[], left_out={})
    targets = {
        name: _Seen.of(one, one.train, materials)
        for name, one in materials.targets.items()
        if _has_classes(one.name, one.train, found)
    }
    transfers = {
        name: _Seen.of(one, one.images, materials)
        for name, one in materials.transfers.items()
        if _has_classes(one.name, one.images, found)
    }
    runs = {(run.target.name, run.method.name): run for run in expand(spec, precision="float32")}
    for (name, method), run in runs.items():
        if name not in targets or run.method.role != "matched":
            continue
        say(f"untouched model: {name}, {method}")
        own = _of_method(run, materials, choose_device(device), transfers)
        if own is None:
            found.left_out[method] = "nothing of the image tower trains"
            continue
        steps = _steps(run, len(materials.targets[name].train))
        alone, beside = targets[name].alone(), own.pop("")
        for transfer in (None, *transfers):
            signals = {**alone, **beside}
            if transfer is not None:
                signals |= targets[name].beside(transfers[transfer]) | own[transfer]
            found.rows.append(
                BeforeRow(
                    target=name, method=method, transfer=transfer, steps=steps, signals=signals
                )
            )
    return found


def _has_classes(name: str, images: Images, found: Beforehand) -> bool:
    """Whether each image has one class, which the signals are of; where not, it is left out."""
    fit = images.captions is None and images.several is None
    if not fit:
        found.left_out[name] = "its images have not one class each"
    return fit


def _steps(run: RunConfig, n_images: int) -> int:
    whole = run.schedule.epochs * math.ceil(n_images / run.schedule.batch_size)
    return min(whole, run.schedule.max_steps or whole)


@dataclass(frozen=True)
class _Seen:
    """A few images of a set and its class texts, as the untouched model reads them.

    x [N, E] and t [C, E] at unit length; text [C, E] as it was read.
    """

    images: Images
    text: Tensor
    x: Floats
    t: Floats

    @classmethod
    def of(cls, one: TargetMaterial | TransferMaterial, images: Images, has: Materials) -> _Seen:
        n = min(N_IMAGES, len(images))
        few = images.select(balanced_subset(images.labels, n, 0))
        text = has.backbone.text_features(one.prompts)
        found = embedded(has.backbone.live_encoder(), few, PROBE_BATCH)
        x, t = (unit(v.cpu().double().numpy()) for v in (found, text))
        return cls(few, text, x, t)

    @property
    def zero_shot(self) -> float:
        """Accuracy by class texts, 0 to 1."""
        return float(((self.x @ self.t.T).argmax(axis=1) == self.images.labels).mean())

    @property
    def above_chance(self) -> float:
        """Zero-shot accuracy less that of always naming the commonest class, -1 to 1."""
        labels = self.images.labels
        return self.zero_shot - float(np.bincount(labels).max() / len(labels))

    def alone(self) -> Signals:
        """Of a target; most_lost, most_gained: fractions that its zero-shot accuracy leaves room
        for, by Wilson's 95 % interval."""
        labels, right, n = self.images.labels, self.zero_shot, len(self.images)
        margin = margins(self.x @ self.t.T, labels).mean() if len(self.t) > 1 else None
        return {
            "iimm": probes.iimm(self.x, self.t, labels),
            "silhouette": probes.silhouette(self.x, labels),
            "margin": None if margin is None else float(margin),
            "above_chance": self.above_chance,
            "most_lost": 1 - wilson_low(1 - right, n),
            "most_gained": 1 - wilson_low(right, n),
        }

    def beside(self, transfer: _Seen) -> Signals:
        """Of a target and a transfer set: energy distance of their images (Szekely & Rizzo 2013,
        eq. 5), cosine of their mean class texts, and zero-shot accuracy on the set above chance."""
        each = np.arange(len(transfer.x))
        means = [unit(one.t.mean(axis=0, keepdims=True))[0] for one in (self, transfer)]
        return {
            "image_distance": energy_distance(self.x, transfer.x, each),
            "text_cosine": float(means[0] @ means[1]),
            "transfer_above_chance": transfer.above_chance,
        }


def _of_method(
    run: RunConfig, has: Materials, device: str, transfers: Mapping[str, _Seen]
) -> dict[str, Signals] | None:
    """Under "" the signals of a method's first gradient; under a set's name how it lies to it.

    Of the image tower and its projection, at step 0 with the head of seed 0, dropout off; None
    where nothing of them trains.
    """
    model, _ = built(run, has, device)
    model.eval()
    weights = [p for p in model.encoder.parameters() if p.requires_grad]
    if not weights:
        return None
    train, schedule = has.targets[run.target.name].train, run.schedule
    n = min(len(train), schedule.micro_batch or schedule.batch_size, schedule.batch_size)
    few = train.select(balanced_subset(train.labels, n, 0))
    engine = Engine(model, few, schedule, "float32", held_near(run.method, model, has.backbone))
    held_against = torch.from_numpy(epoch_targets(model, few, 0, 1)).to(device)
    loss, _ = engine.objective(engine.inputs(np.arange(n), np.zeros(n, bool)), held_against)
    own = _gradient(loss, weights)
    size, moves = probes.norm([p.detach() for p in weights]), probes.norm(own)
    found: dict[str, Signals] = {
        "": {
            "log_gradient": math.log10(moves / size) if moves > 0 and size > 0 else None,
            "leading_share": probes.leading_share(own),
            "log_parameters": math.log10(sum(p.numel() for p in model.trained().values())),
        }
    }
    for name, seen in transfers.items():
        part = seen.images.select(np.arange(0, len(seen.images), max(1, len(seen.images) // n)))
        loss = _zero_shot_loss(model.encoder, part, seen.text.to(device), has.backbone.logit_scale)
        found[name] = {"alignment": probes.cosine(own, _gradient(loss, weights))}
    return found


def _zero_shot_loss(encoder: ImageEncoder, images: Images, text: Tensor, scale: float) -> Tensor:
    """Cross-entropy of softmax(scale cos(image, class text)), as CLIP classifies."""
    device = encoder.mean.device
    pixels = torch.from_numpy(images.take(slice(None))).to(device)
    logits = scale * cosines(encoder.encode(encoder.normalise(pixels)), text)
    return cross_entropy(logits, torch.from_numpy(images.labels).to(device))


def _gradient(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Of each weight, in float64 on the CPU; zeros where the loss does not hang on it."""
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [one.cpu().double() for one in found]
