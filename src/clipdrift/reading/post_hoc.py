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
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.interpolate import interpolated
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import Readable, main_numbers
from clipdrift.reading.target import classified, read_val
from clipdrift.records.correct import Correct
from clipdrift.spec.parts import EvaluationSpec

Numbers = dict[str, float | None]


class PostHoc(NamedTuple):
    """`result.extra`, and the images behind its accuracies as in `result.correct`."""

    numbers: Numbers
    correct: dict[str, Correct]


CORRUPTED_AT_ONCE = 1024
"""Damaged copies that exist at a time: 150 MB at 224 pixels."""


def read_post_hoc(gauge: Gauge, model: AdaptedModel, asked: EvaluationSpec) -> PostHoc:
    """All that the study asks for; the model is left as it was.

    Raises:
        AdapterInactiveError: if the encoder that is scored is not the interpolated one.
    """
    found: Numbers = {}
    correct: dict[str, Correct] = {}
    plain = model.vision_state() is not None
    for alpha in asked.interpolation:
        at = _at(gauge, model, alpha) if plain else PostHoc(dict.fromkeys(_names(gauge)), {})
        name = f"interpolation.{alpha:g}"
        found.update({f"{name}.{key}": value for key, value in at.numbers.items()})
        correct.update({f"extra.{name}.{key}": value for key, value in at.correct.items()})
    for kind in asked.corruptions:
        for severity in asked.corruption_severities:
            found[f"corruption.{kind}.{severity}.accuracy"] = corrupted_accuracy(
                gauge, model, kind, severity
            )
    for name, images in gauge.target.corrupted.items():
        found[f"corruption.{name}.accuracy"] = classified(gauge, model, images).accuracy
    return PostHoc(found, correct)


def _at(gauge: Gauge, model: AdaptedModel, alpha: float) -> PostHoc:
    """Accuracies and retention at theta(alpha). Validation too: alpha is chosen on that."""
    with interpolated(model, gauge.backbone, alpha) as (there, trained):
        gauge.require_adapted(there, trained)
        val = read_val(gauge, there)
        test = classified(gauge, there, gauge.target.test)
        transfers = gauge.zero_shot(there, whole=True)
    found: Numbers = {"test_accuracy": test.accuracy, **main_numbers(transfers.readings)}
    correct = {**val["correct"], "test_accuracy": test}
    if val["val_accuracy"] is not None:
        found = {"val_accuracy": val["val_accuracy"], **found}
    now = {k: v for k, v in transfers.correct.items() if not k.endswith(".baseline_accuracy")}
    return PostHoc(found, {**correct, **now})


def _names(gauge: Gauge) -> list[str]:
    """What `_at` reads."""
    transfers = [
        f"transfer.{name}.{field}"
        for name in gauge.transfers
        for field in ("accuracy", "retention_pct")
    ]
    return [*(["val_accuracy"] if len(gauge.target.val) else []), "test_accuracy", *transfers]


def corrupted_accuracy(gauge: Gauge, model: AdaptedModel, kind: str, severity: int) -> float:
    """Accuracy (fraction) on corrupted copies of the test part, made a part at a time."""
    images = gauge.target.test
    hits = sum(
        int(classified(gauge, model, part).hits.sum())
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
