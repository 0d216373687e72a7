"""What is read of a finished run beside its result: interpolated weights, a damaged test part.

Names of the readings are those of `result.extra`:
`interpolation.<alpha>.<metric>`, `corruption.<name>.<severity>.accuracy` for damage done here, and
`corruption.<name>.accuracy` for damaged copies of the test part that the study names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clipdrift.data.corruptions import corrupt
from clipdrift.data.images import Images
from clipdrift.materials import Materials, TargetMaterial
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.guard import assert_adapted
from clipdrift.methods.interpolate import interpolated
from clipdrift.reading.model import (
    Baselines,
    Readable,
    accuracy,
    main_numbers,
    read_transfers,
    val_accuracy,
)
from clipdrift.reading.screening import Predictor
from clipdrift.spec.parts import EvaluationSpec

Numbers = dict[str, float | None]

CORRUPTED_AT_ONCE = 1024
"""Damaged copies that exist at a time: 150 MB at 224 pixels."""


def read_post_hoc(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    asked: EvaluationSpec,
    predict: Predictor,
) -> Numbers:
    """All that the study asks for; the model is left as it was.

    Raises:
        AdapterInactiveError: if the encoder that is scored is not the interpolated one.
    """
    found: Numbers = {}
    plain = model.vision_state() is not None
    for alpha in asked.interpolation:
        if plain:
            numbers = _at(model, materials, target, baselines, alpha, predict)
        else:
            numbers = dict.fromkeys(_names(materials, target))
        found.update({f"interpolation.{alpha:g}.{name}": value for name, value in numbers.items()})
    for kind in asked.corruptions:
        for severity in asked.corruption_severities:
            found[f"corruption.{kind}.{severity}.accuracy"] = corrupted_accuracy(
                model, target.test, kind, severity, predict
            )
    for name, images in target.corrupted.items():
        found[f"corruption.{name}.accuracy"] = accuracy(model, images, predict)
    return found


def _at(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    alpha: float,
    predict: Predictor,
) -> Numbers:
    """Accuracies and retention at theta(alpha). Validation too: alpha is chosen on that."""
    few = target.guard_pixels(model.encoder.mean.device)
    with interpolated(model, materials.backbone, alpha) as (there, trained):
        assert_adapted(there, materials.backbone, few, trained=trained)
        found: Numbers = {}
        if len(target.val):
            found["val_accuracy"] = val_accuracy(there, target, predict)
        found["test_accuracy"] = accuracy(there, target.test, predict)
        transfers = read_transfers(there, materials, baselines.transfers, predict, whole=True)
    return {**found, **main_numbers(transfers)}


def _names(materials: Materials, target: TargetMaterial) -> list[str]:
    """What `_at` reads."""
    transfers = [
        f"transfer.{name}.{field}"
        for name in materials.transfers
        for field in ("accuracy", "retention_pct")
    ]
    return [*(["val_accuracy"] if len(target.val) else []), "test_accuracy", *transfers]


def corrupted_accuracy(
    model: AdaptedModel, images: Images, kind: str, severity: int, predict: Predictor
) -> float:
    """Target accuracy (fraction) on corrupted copies of some images, made a part at a time."""
    hits = sum(
        accuracy(model, part, predict) * len(part)
        for part in _corrupted(images, kind, severity, CORRUPTED_AT_ONCE)
    )
    return round(hits) / len(images)


def _corrupted(images: Images, kind: str, severity: int, size: int) -> Iterator[Images]:
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        pixels = corrupt(images.take(chosen), kind, severity, index=images.index[chosen])
        yield Images(pixels, np.arange(len(pixels)), images.labels[chosen])


def undefined_extra(numbers: Numbers, model: Readable) -> dict[str, str]:
    """Dotted name of every reading that is null -> why."""
    plain = model.vision_state() is not None
    return {
        f"extra.{name}": "the baseline is not above the reference" if plain else NOT_PLAIN
        for name, value in numbers.items()
        if value is None
    }


__all__ = ["corrupted_accuracy", "read_post_hoc", "undefined_extra"]
