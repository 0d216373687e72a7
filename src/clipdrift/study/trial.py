"""Trials of a study's methods on this machine: a few real steps of each, timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from clipdrift.data.images import Images
from clipdrift.materials import Materials
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.penalties.held import HeldNear, held_near
from clipdrift.reading.baseline import probe, score
from clipdrift.reading.screening import Predictor
from clipdrift.spec import RunConfig
from clipdrift.step.frozen_prefix import frozen_blocks
from clipdrift.study.remembered import Sizes, Speed, Trials
from clipdrift.training.loop import train

TRIAL_STEPS = 3
TRIAL_IMAGES = 32


def tried(runs: list[RunConfig], materials: Materials, device: str, threads: int) -> Trials:
    """The speed of every method of some runs, tried once each, and how many images they read."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one_each = {run.method.name: run for run in runs}
        speeds = {name: _trial(run, materials, device) for name, run in one_each.items()}
    finally:
        torch.set_num_threads(before)
    copies = {name: list(map(str, s.copies)) for name, s in materials.shared_images.items()}
    return Trials(speeds=speeds, sizes=_sizes(materials), copies=copies)


def _sizes(materials: Materials) -> Sizes:
    transfers = materials.transfers.values()
    return Sizes(
        targets={
            name: {part: len(images) for part, images in target.sets.items()}
            | {"corrupted": sum(len(images) for images in target.corrupted.values())}
            for name, target in materials.targets.items()
        },
        transfer=sum(len(t.images) for t in transfers),
        transfer_epoch=sum(len(t.epoch_images) for t in transfers if t.epoch_images),
    )


def built(run: RunConfig, materials: Materials, device: str) -> tuple[AdaptedModel, torch.Tensor]:
    """The model of a run at step 0, and the features [C, E] of class texts, if any."""
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
    )
    return model.to(device), text


def _trial(run: RunConfig, materials: Materials, device: str) -> Speed:
    target = materials.targets[run.target.name]
    model, text = built(run, materials, device)
    few = target.probe.select(torch.arange(min(TRIAL_IMAGES, len(target.probe))).numpy())
    if few.captions is not None:
        text = materials.backbone.live_text_encoder().features(few.captions.texts)
    encoder = model.encoder.eval()
    held = held_near(run.method, model, materials.backbone)
    later, once = _seconds_per_image_of_training(model, run, target.train, held)
    return Speed(
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
