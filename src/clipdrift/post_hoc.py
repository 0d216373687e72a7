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
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.guard import assert_adapted
from clipdrift.methods.interpolate import interpolated
from clipdrift.reading import Baselines, classify, main_numbers, read_transfers, val_accuracy
from clipdrift.spec.parts import EvaluationSpec

Numbers = dict[str, float | None]


def read_post_hoc(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    asked: EvaluationSpec,
) -> Numbers:
    """All that the study asks for; the model is left as it was.

    Raises:
        AdapterInactiveError: if the encoder that is scored is not the interpolated one.
    """
    found: Numbers = {}
    for alpha in asked.interpolation:
        numbers = _at(model, materials, target, baselines, alpha, asked.batch_size)
        found.update({f"interpolation.{alpha:g}.{name}": value for name, value in numbers.items()})
    for kind in asked.corruptions:
        for severity in asked.corruption_severities:
            accuracy = corrupted_accuracy(
                model, target.test, kind, severity, batch_size=asked.batch_size
            )
            found[f"corruption.{kind}.{severity}.accuracy"] = accuracy
    for name, images in target.corrupted.items():
        accuracy = classify(model, images, batch_size=asked.batch_size).accuracy
        found[f"corruption.{name}.accuracy"] = accuracy
    return found


def _at(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    alpha: float,
    batch_size: int,
) -> Numbers:
    """Accuracies and retention at theta(alpha). Validation too: alpha is chosen on that."""
    few = target.guard_pixels(model.encoder.mean.device)
    with interpolated(model, materials.backbone, alpha) as trained:
        assert_adapted(model, materials.backbone, few, trained=trained)
        found: Numbers = {}
        if len(target.val):
            found["val_accuracy"] = val_accuracy(model, target, batch_size=batch_size)
        found["test_accuracy"] = classify(model, target.test, batch_size=batch_size).accuracy
        transfers = read_transfers(
            model, materials, baselines.transfers, whole=True, batch_size=batch_size
        )
    return {**found, **main_numbers(transfers)}


def corrupted_accuracy(
    model: AdaptedModel, images: Images, kind: str, severity: int, *, batch_size: int
) -> float:
    """Target accuracy (fraction) on corrupted copies of some images, made batch by batch."""
    hits = sum(
        classify(model, batch, batch_size=batch_size).accuracy * len(batch)
        for batch in _corrupted(images, kind, severity, batch_size)
    )
    return round(hits) / len(images)


def _corrupted(images: Images, kind: str, severity: int, size: int) -> Iterator[Images]:
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        pixels = corrupt(images.take(chosen), kind, severity, index=images.index[chosen])
        yield Images(pixels, np.arange(len(pixels)), images.labels[chosen])


def undefined_extra(numbers: Numbers) -> dict[str, str]:
    """Dotted name of every reading that is null -> why."""
    return {
        f"extra.{name}": "the baseline is not above the reference"
        for name, value in numbers.items()
        if value is None
    }


__all__ = ["corrupted_accuracy", "read_post_hoc", "undefined_extra"]
