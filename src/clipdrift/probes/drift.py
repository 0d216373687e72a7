"""Levels and drift of a model against its baseline, from two readings of one probe set."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.representation import embedding_drift, embedding_drift_per_image, linear_cka

Value = float | None | list[float | None]

BLOCKWISE = {
    "cls_entropy_nats": "cls_entropy",
    "erf95": "erf95",
    "gini": "gini",
    "head_diversity": "head_diversity",
    "head_diversity_paper": "head_diversity_paper",
    "patch_entropy_bits": "patch_entropy",
}
"""Quantities read in every block: name of the level -> stem of the drift, which has no unit."""

AT_CLS = (
    *(name for name in BLOCKWISE if name != "patch_entropy_bits"),
    "rollout_entropy_bits",
    "rollout_erf95",
    "rollout_gini",
)
"""Levels that a tower without a CLS token does not have; nor has it a CKA, which is of CLS."""

WHOLE = {
    "rollout_entropy_bits": "rollout_entropy",
    "rollout_erf95": "rollout_erf95",
    "rollout_gini": "rollout_gini",
}
"""Quantities read once per image, likewise."""


class Signals(NamedTuple):
    """Absolute values of a reading, and how they differ from the baseline's. None = undefined."""

    levels: dict[str, Value]
    drift: dict[str, Value]


def drift_signals(adapted: ProbeReading, baseline: ProbeReading) -> Signals:
    """Every level and drift signal of an adapted model.

    Drift of M = 100 (M_adapted - M_baseline) / M_baseline, of the mean over blocks, of the last
    block, and of each block: opposite signs cancel in the mean. CKA and embedding drift compare
    the two readings image by image.

    Args:
        adapted: reading of the model as it is now.
        baseline: reading of the untouched backbone on the same images.

    Returns:
        `levels`: `<q>`, `<q>_last`, `<q>_per_block` (list over L) for the block-wise quantities,
        `rollout_entropy_bits` (bits), `rollout_erf95` (fraction), `rollout_gini`.
        `drift`: `<stem>_pct`, `<stem>_last_pct`, `<stem>_per_block_pct` in percent,
        `rollout_*_pct`, `cka_mean`, `cka_last`, `cka_per_block` (0 to 1; 1 = unchanged),
        `embedding_drift` (0 to 2).
        Undefined is None: a baseline of 0, a CKA without variance, a value that is not finite, the
        mean over blocks of which one is undefined, and what a tower without CLS token lacks. A
        reading against itself gives drift of exactly 0, and CKA of 1 within 1e-12.

    Raises:
        ValueError: if the readings are not of the same images and blocks.

    Reference: arXiv 2604.16410 reports the block mean of the entropy; CKA as in `linear_cka`.

    >>> drift_pct(1.5, 2.0), drift_pct(1.0, 0.0)
    (-25.0, None)
    """
    _require_same_shapes(adapted, baseline)
    levels: dict[str, Value] = {}
    drift: dict[str, Value] = {}
    for name, stem in BLOCKWISE.items():
        now, before = _per_block(adapted, name), _per_block(baseline, name)
        levels[name], levels[f"{name}_last"] = mean(now), now[-1]
        levels[f"{name}_per_block"] = list(now)
        drift[f"{stem}_pct"] = drift_pct(mean(now), mean(before))
        drift[f"{stem}_last_pct"] = drift_pct(now[-1], before[-1])
        drift[f"{stem}_per_block_pct"] = [drift_pct(a, b) for a, b in zip(now, before, strict=True)]
    for name, stem in WHOLE.items():
        level, before_level = _mean_over_images(adapted, name), _mean_over_images(baseline, name)
        levels[name], drift[f"{stem}_pct"] = level, drift_pct(level, before_level)
    drift.update(_cka(adapted, baseline))
    drift["embedding_drift"] = embedding_drift(adapted.embeddings, baseline.embeddings)
    return Signals(levels, drift)


def per_image_table(adapted: ProbeReading, baseline: ProbeReading) -> dict[str, list[float | None]]:
    """Values of each probe image, as columns of a table with N rows.

    Levels and not relative drift: a mean of ratios over images is not the ratio of means that
    `drift_signals` reports, while both readings together give either.

    Args:
        adapted: reading of the model as it is now.
        baseline: reading of the untouched backbone on the same images.

    Returns:
        For each quantity that exists per image (not `head_diversity_paper`): `<q>` (mean over
        blocks) and `<q>_last`, rollout quantities as they are, each also with `_baseline`; and
        `embedding_drift`. Undefined is None; what a tower without CLS token lacks has no column.

    Raises:
        ValueError: if the readings are not of the same images and blocks.
    """
    _require_same_shapes(adapted, baseline)
    table: dict[str, list[float | None]] = {}
    for reading, suffix in ((adapted, ""), (baseline, "_baseline")):
        for name in BLOCKWISE:
            values = getattr(reading, name)
            if values is not None and values.ndim == 2:
                values = values.double()
                table[f"{name}{suffix}"] = _numbers(values.mean(dim=1))
                table[f"{name}_last{suffix}"] = _numbers(values[:, -1])
        for name in WHOLE:
            if (values := getattr(reading, name)) is not None:
                table[f"{name}{suffix}"] = _numbers(values)
    distances = embedding_drift_per_image(adapted.embeddings, baseline.embeddings)
    return {**table, "embedding_drift": _numbers(distances)}


def undefined_without_cls() -> dict[str, str]:
    """Dotted name of every level and drift that a tower without a CLS token lacks -> why.

    >>> undefined_without_cls()["drift.cka_mean"]
    'the vision tower has no CLS token: there are no CLS activations to compare'
    """
    no_cls = "the vision tower has no CLS token"
    reasons = {}
    for name in AT_CLS:
        whole = name in WHOLE
        lacks = (
            "there is no CLS row of the rollout" if whole else "there is no CLS row of attention"
        )
        stem = WHOLE[name] if whole else BLOCKWISE[name]
        fields = [f"levels.{name}", f"drift.{stem}_pct"]
        if not whole:
            fields += [f"levels.{name}_last", f"drift.{stem}_last_pct"]
        reasons.update(dict.fromkeys(fields, f"{no_cls}: {lacks}"))
    cka = ("drift.cka_mean", "drift.cka_last")
    return {
        **reasons,
        **dict.fromkeys(cka, f"{no_cls}: there are no CLS activations to compare"),
    }


def drift_pct(adapted: float | None, baseline: float | None) -> float | None:
    """Relative change in percent, 100 (adapted - baseline) / baseline; None where undefined.

    >>> drift_pct(0.5, 0.5), drift_pct(None, 0.5)
    (0.0, None)
    """
    if adapted is None or baseline is None or baseline == 0:
        return None
    change = 100 * (adapted - baseline) / baseline
    return change if math.isfinite(change) else None


def mean(values: list[float | None]) -> float | None:
    """Mean of values that are all defined; a mean over the rest would be another quantity.

    >>> mean([1.0, 2.0]), mean([1.0, None])
    (1.5, None)
    """
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(values) if len(defined) == len(values) > 0 else None


def _per_block(reading: ProbeReading, name: str) -> list[float | None]:
    """Means over images, one for each block, in float64."""
    values: Tensor | None = getattr(reading, name)
    if values is None:
        return [None] * reading.patch_entropy_bits.shape[1]
    wide = values.double()
    return _numbers(wide.mean(dim=0) if wide.ndim == 2 else wide)


def _mean_over_images(reading: ProbeReading, name: str) -> float | None:
    values: Tensor | None = getattr(reading, name)
    return None if values is None else _numbers(values.double().mean().reshape(1))[0]


def _cka(adapted: ProbeReading, baseline: ProbeReading) -> dict[str, Value]:
    blocks: list[float | None] = [None] * adapted.patch_entropy_bits.shape[1]
    if adapted.cls_activations is not None and baseline.cls_activations is not None:
        pairs = zip(adapted.cls_activations, baseline.cls_activations, strict=True)
        blocks = [linear_cka(now, before) for now, before in pairs]
    return {"cka_mean": mean(blocks), "cka_last": blocks[-1], "cka_per_block": list(blocks)}


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _require_same_shapes(adapted: ProbeReading, baseline: ProbeReading) -> None:
    now, before = (_shape(r) for r in (adapted, baseline))
    if now != before:
        raise ValueError(
            f"drift: expected readings of the same blocks, images and width, got {now} "
            f"against {before}. Read both on one probe set."
        )


def _shape(reading: ProbeReading) -> list[int]:
    """Blocks, images and, where there is a CLS token, width."""
    if reading.cls_activations is not None:
        return list(reading.cls_activations.shape)
    return list(reading.patch_entropy_bits.T.shape)
