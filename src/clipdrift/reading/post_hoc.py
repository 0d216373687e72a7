"""What is read of a finished run beside its result: interpolated weights, a damaged test part.

Names of the readings are those of `result.extra`:
`interpolation.<alpha>.<metric>`, and for the other paths `interpolation_with_head.`... and
`interpolation_factors.`...; `corruption.<name>.<severity>.accuracy` for damage done here, and
`corruption.<name>.accuracy` for damaged copies of the test part that the study names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from clipdrift.data.corruptions import corrupt
from clipdrift.data.images import Images
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.interpolate import interpolated, of_path
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.in_full import FEW
from clipdrift.reading.model import Readable, main_numbers
from clipdrift.reading.target import classified, on_part, score_of
from clipdrift.records.correct import Correct
from clipdrift.spec.parts import EvaluationSpec, interpolation_paths

Numbers = dict[str, float | None]


class PostHoc(NamedTuple):
    """`result.extra`, and the images behind its accuracies as in `result.correct`."""

    numbers: Numbers
    correct: dict[str, Correct]


ENDS = (0, 1)
"""Alphas at which all ways between two encoders are the same."""

CORRUPTED_AT_ONCE = 1024
"""Damaged copies that exist at a time: 150 MB at 224 pixels."""


def read_post_hoc(
    gauge: Gauge, model: AdaptedModel, asked: EvaluationSpec, start: Mapping[str, Tensor]
) -> PostHoc:
    """All that the study asks for; the model is left as it was.

    Args:
        start: `starts` of the model as it was at step 0.

    Raises:
        AdapterInactiveError: if the encoder that is scored is not the interpolated one.
    """
    found: Numbers = {}
    correct: dict[str, Correct] = {}
    straight: dict[float, PostHoc] = {}
    plain = model.vision_state() is not None
    paths = interpolation_paths(asked, model.spec)
    for path, alpha in itertools.product(paths, asked.interpolation):
        at = PostHoc(dict.fromkeys(_names(gauge)), {})
        if path == "factors" and alpha in ENDS and alpha in straight:
            at = straight[alpha]
        elif plain:
            encoder = straight.get(alpha) if path == "with_head" else None
            at = _at(gauge, model, alpha, of_path(path, start), encoder)
        if path == "encoder":
            straight[alpha] = at
        name = f"interpolation{'' if path == 'encoder' else f'_{path}'}.{alpha:g}"
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


def _at(
    gauge: Gauge,
    model: AdaptedModel,
    alpha: float,
    start: Mapping[str, Tensor],
    same_encoder: PostHoc | None,
) -> PostHoc:
    """Accuracies and retention at theta(alpha). Validation too: alpha is chosen on that.

    same_encoder: what was read of this encoder under another head, which transfer does not need.
    """
    with interpolated(model, gauge.backbone, alpha, start) as (there, trained):
        gauge.require_adapted(there, trained)
        own = {part: on_part(gauge, there, part) for part in _parts(gauge)}
        kept = same_encoder or _transfers(gauge, there)
    kind = _kind(gauge)
    found: Numbers = {
        **kept.numbers,
        **{f"{part}_{kind}": score_of(read) for part, read in own.items()},
    }
    right = {f"{p}_{kind}": read for p, read in own.items() if isinstance(read, Correct)}
    return PostHoc(found, {**kept.correct, **right})


def _parts(gauge: Gauge) -> list[Literal["val", "test"]]:
    return ["val", "test"] if len(gauge.target.val) else ["test"]


def _kind(gauge: Gauge) -> str:
    """What the score of the target is called in a record."""
    return "accuracy" if gauge.target.score_name == "accuracy" else "score"


def _transfers(gauge: Gauge, model: AdaptedModel) -> PostHoc:
    found = gauge.zero_shot(model, whole=True)
    now = {k: v for k, v in found.correct.items() if not k.endswith(".baseline_accuracy")}
    return PostHoc(main_numbers(found.readings), now)


def _names(gauge: Gauge) -> list[str]:
    """What `_at` reads."""
    transfers = [
        f"transfer.{name}.{field}"
        for name, one in gauge.transfers.items()
        for field in ("accuracy" if one.images.captions is None else "mean_recall", "retention_pct")
    ]
    return [*(f"{part}_{_kind(gauge)}" for part in _parts(gauge)), *transfers]


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
    between = "the baseline is not above the reference" if plain else NOT_PLAIN
    return {
        f"extra.{name}": between if name.startswith("interpolation") else FEW
        for name, value in numbers.items()
        if value is None
    }
