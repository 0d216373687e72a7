"""What a study will cost on this machine: a few real steps, extrapolated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images
from clipdrift.errors import ClipdriftError
from clipdrift.machine.devices import choose_device, cpu_shares, supports_bfloat16
from clipdrift.materials import Materials, load_materials
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.penalties.held import HeldNear, held_near
from clipdrift.reading.baseline import probe, score
from clipdrift.reading.post_hoc import ENDS
from clipdrift.reading.screening import Predictor
from clipdrift.spec import RunConfig, StudySpec, expand
from clipdrift.spec.methods import LpFtSpec
from clipdrift.spec.parts import interpolation_paths
from clipdrift.step.frozen_prefix import frozen_blocks
from clipdrift.study.plan import require_fit
from clipdrift.training.loop import train

TRIAL_STEPS = 3
TRIAL_IMAGES = 32


@dataclass(frozen=True)
class Estimate:
    """Wall seconds and bytes of disk; None with a reason where they cannot be known here.

    copies: target -> what its sets share, in words; None likewise.
    """

    seconds: float | None
    disk_bytes: int | None
    machine: str
    reason: str | None = None
    copies: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class _Speed:
    """Seconds per image when training, scoring and reading the probe set; bytes saved per run.

    once: seconds per training image in the whole run, for a frozen part that is computed once.
    """

    train: float
    once: float
    score: float
    probe: float
    saved_bytes: int


def estimate(spec: StudySpec, *, device: str, cache_dir: Path | None) -> Estimate:
    """Time of a study, from a trial of each method.

    Data are prepared on the way. A backbone or dataset that is not at hand gives a reason.

    Raises:
        MethodError: with all methods that do not fit the backbone.
    """
    device = choose_device(device)
    on_gpu = device != "cpu"
    workers, threads = cpu_shares(1 if on_gpu else None)
    machine = "this GPU" if on_gpu else f"{workers * threads} cores"
    try:
        materials = load_materials(spec, cache_dir=cache_dir or default_cache_dir(), device=device)
    except ClipdriftError as error:
        return Estimate(None, None, machine, str(error.faults[0]))
    require_fit(spec, materials.backbone)
    runs = expand(spec, precision="bfloat16" if supports_bfloat16(device) else "float32")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trials = {run.method.name: run for run in runs}
        speeds = {name: _trial(run, materials, device) for name, run in trials.items()}
    finally:
        torch.set_num_threads(before)
    seconds = sum(_run_seconds(run, speeds[run.method.name], materials) for run in runs)
    disk = sum(speeds[run.method.name].saved_bytes for run in runs)
    copies = {name: list(map(str, s.copies)) for name, s in materials.shared_images.items()}
    return Estimate(seconds / workers, disk, machine, copies=copies)


def _run_seconds(run: RunConfig, speed: _Speed, materials: Materials) -> float:
    target = materials.targets[run.target.name]
    epochs = run.schedule.epochs
    per_epoch = len(target.val) + sum(
        len(t.epoch_images) for t in materials.transfers.values() if t.epoch_images
    )
    scored = epochs * per_epoch + len(target.test)
    if run.checkpoint == "paper_test_selected":
        scored += epochs * len(target.test)
    whole = sum(len(t.images) for t in materials.transfers.values())
    if isinstance(run.method, LpFtSpec):  # each image once, or twice with its mirror
        scored += len(target.train) * min(run.method.probe_epochs, 2)
    asked = run.evaluation
    scored += whole + _between(run, len(target.val) + len(target.test), whole)
    scored += sum(len(images) for images in target.corrupted.values())
    scored += len(asked.corruptions) * len(asked.corruption_severities) * len(target.test)
    return (
        epochs * len(target.train) * speed.train
        + len(target.train) * speed.once
        + (epochs + 1) * len(target.probe) * speed.probe
        + scored * speed.score
    )


def _between(run: RunConfig, own: int, transfer: int) -> int:
    """Images scored on all paths of interpolated weights: own ones and those of transfer sets."""
    alphas = run.evaluation.interpolation
    inside = sum(alpha not in ENDS for alpha in alphas)
    images = {
        "encoder": len(alphas) * (own + transfer),
        "with_head": len(alphas) * own,
        "factors": inside * (own + transfer),
    }
    return sum(images[path] for path in interpolation_paths(run.evaluation, run.method))


def _trial(run: RunConfig, materials: Materials, device: str) -> _Speed:
    target = materials.targets[run.target.name]
    captions = target.train.captions
    text = torch.zeros(0, materials.backbone.width)
    if captions is None:
        text = materials.backbone.text_features(target.prompts)
    model = build(
        materials.backbone,
        run.method,
        len(target.prompts),
        seed=0,
        text_features=text,
        prompts=target.prompts,
        captions=captions.texts if captions is not None else (),
    ).to(device)
    few = target.probe.select(torch.arange(min(TRIAL_IMAGES, len(target.probe))).numpy())
    if few.captions is not None:
        text = materials.backbone.live_text_encoder().features(few.captions.texts)
    encoder = model.encoder.eval()
    held = held_near(run.method, model, materials.backbone)
    later, once = _seconds_per_image_of_training(model, run, target.train, held)
    return _Speed(
        train=later,
        once=once,
        score=_seconds(lambda: score(encoder, few, text, Predictor(TRIAL_IMAGES))) / len(few),
        probe=_seconds(lambda: probe(encoder, few)) / len(few),
        saved_bytes=sum(4 * p.numel() for p in model.trained().values()),
    )


def _seconds_per_image_of_training(
    model: AdaptedModel, run: RunConfig, images: Images, held: HeldNear | None
) -> tuple[float, float]:
    """In every epoch, and once for the frozen part if there is any."""
    size = min(run.schedule.batch_size, len(images))
    few = images.select(torch.arange(size).numpy())
    steps = run.schedule.model_copy(update={"epochs": TRIAL_STEPS, "max_steps": None})
    spent = [
        done.seconds
        for done in train(
            model, few, schedule=steps, learning_rate=1e-6, head_rate=1e-6, seed=0,
            precision=run.precision, held=held,
        )
    ]  # fmt: skip
    later = min(spent[1:])
    once = spent[0] - later if frozen_blocks(model) != 0 else 0.0
    return later / size, max(0.0, once) / size


def _seconds(work: Callable[[], object]) -> float:
    """Second of two: the first one warms up."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
