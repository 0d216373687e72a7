"""What is read of a finished run beside its result: interpolated weights, a damaged test part.

Names of the readings are those of `result.extra`:
`interpolation.<alpha>.<metric>`, `corruption.<name>.<severity>.accuracy` for damage done here, and
`corruption.<name>.accuracy` for damaged copies of the test part that the study names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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
    classified,
    main_numbers,
    read_transfers,
    read_val,
)
from clipdrift.reading.screening import Predictor
from clipdrift.records.correct import Correct
from clipdrift.spec.parts import EvaluationSpec

Numbers = dict[str, float | None]


class PostHoc(NamedTuple):
    """`result.extra`, and the images behind its accuracies as in `result.correct`."""

    numbers: Numbers
    correct: dict[str, Correct]


CORRUPTED_AT_ONCE = 1024
"""Damaged copies that exist at a time: 150 MB at 224 pixels."""


def read_post_hoc(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    asked: EvaluationSpec,
    predict: Predictor,
) -> PostHoc:
    """All that the study asks for; the model is left as it was.

    Raises:
        AdapterInactiveError: if the encoder that is scored is not the interpolated one.
    """
    found: Numbers = {}
    correct: dict[str, Correct] = {}
    plain = model.vision_state() is not None
    for alpha in asked.interpolation:
        at = PostHoc(dict.fromkeys(_names(materials, target)), {})
        if plain:
            at = _at(model, materials, target, baselines, alpha, predict)
        name = f"interpolation.{alpha:g}"
        found.update({f"{name}.{key}": value for key, value in at.numbers.items()})
        correct.update({f"extra.{name}.{key}": value for key, value in at.correct.items()})
    for kind in asked.corruptions:
        for severity in asked.corruption_severities:
            found[f"corruption.{kind}.{severity}.accuracy"] = corrupted_accuracy(
                model, target.test, kind, severity, predict
            )
    for name, images in target.corrupted.items():
        found[f"corruption.{name}.accuracy"] = classified(model, images, predict).accuracy
    return PostHoc(found, correct)


def _at(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    alpha: float,
    predict: Predictor,
) -> PostHoc:
    """Accuracies and retention at theta(alpha). Validation too: alpha is chosen on that."""
    few = target.guard_pixels(model.encoder.mean.device)
    with interpolated(model, materials.backbone, alpha) as (there, trained):
        assert_adapted(there, materials.backbone, few, trained=trained)
        val = read_val(there, target, predict)
        test = classified(there, target.test, predict)
        transfers = read_transfers(there, materials, baselines.transfers, predict, whole=True)
    found: Numbers = {"test_accuracy": test.accuracy, **main_numbers(transfers.readings)}
    correct = {**val["correct"], "test_accuracy": test}
    if len(target.val):
        found = {"val_accuracy": val["val_accuracy"], **found}
    now = {k: v for k, v in transfers.correct.items() if not k.endswith(".baseline_accuracy")}
    return PostHoc(found, {**correct, **now})


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
        int(classified(model, part, predict).hits.sum())
        for part in _corrupted(images, kind, severity, CORRUPTED_AT_ONCE)
    )
    return hits / len(images)


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
