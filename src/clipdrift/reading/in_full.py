"""A set of classes read in full: what is gone and what only misaligned, calibration, geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipdrift.probes.calibration import (
    best_temperature,
    brier_score,
    calibration_error,
    log_probabilities,
    negative_log_likelihood,
)
from clipdrift.probes.geometry import (
    alignment,
    effective_rank,
    energy_distance,
    margins,
    modality_gap,
    uniformity,
    unit,
)
from clipdrift.probes.readout import crossed, halves, neighbour_classes, ridge_classes
from clipdrift.probes.zero_shot import cosines, largest

Labels = NDArray[np.int64]
Numbers = dict[str, float | None]
FEW = "a class of one image, or one class alone, cannot be read out"
NOT_FINITE = "an embedding that is zero or not finite"


@dataclass(frozen=True)
class InFull:
    """One model on one set, image by image and in numbers, None where undefined.

    classes: [N] int64, zero-shot. margins: [N] float32, cosine with the right class's text less the
    nearest wrong one's.
    """

    classes: Tensor
    margins: Tensor
    numbers: Numbers


def read_in_full(images: Tensor, text: Tensor, labels: Labels, scale: float) -> InFull:
    """Everything that embeddings tell of a set beside zero-shot accuracy.

    Probabilities are softmax(scale cos(image, class text)), of a SigLIP too, whose bias is the same
    for all classes. What is fitted is fitted on one half of the images and read on the other, both
    ways round: see `probes.readout.halves`.

    Args:
        images: [N, E] embeddings. text: [C, E] of the classes. labels: [N].
        scale: factor of the cosines in the logits.
    """
    cosine = cosines(images, text)
    classes = largest(cosine).cpu()
    if bool((classes < 0).any()):
        return InFull(classes, torch.full((len(labels),), torch.nan), dict.fromkeys(NAMES))
    x, t = (unit(v.cpu().double().numpy()) for v in (images, text))
    c = x @ t.T
    numbers = {**_read_out(x, labels), **_confidence(scale * c, labels), **_lie(x, t, labels)}
    apart = margins(c, labels)
    numbers["margin"] = float(apart.mean()) if len(t) > 1 else None
    told = {name: numbers[name] for name in NAMES}
    return InFull(classes, torch.from_numpy(apart).float(), told)


def head_in_full(logits: Tensor, labels: Labels) -> Numbers:
    """Calibration of a classifier from its logits [N, C]."""
    return _confidence(logits.double().numpy(), labels)


def _read_out(x: NDArray[np.float64], labels: Labels) -> Numbers:
    if _too_few(labels):
        return {"ridge_accuracy": None, "knn_accuracy": None}
    near = crossed(neighbour_classes, x, labels)
    return {
        "ridge_accuracy": _ridge_accuracy(x, labels),
        "knn_accuracy": float((near == labels).mean()),
    }


def _too_few(labels: Labels) -> bool:
    sizes = np.unique(labels, return_counts=True)[1]
    return len(sizes) < 2 or int(sizes.min()) < 2


def _ridge_accuracy(x: NDArray[np.float64], labels: Labels) -> float:
    return float((crossed(ridge_classes, x, labels) == labels).mean())


def ridge_accuracy(images: Tensor, labels: Labels) -> float | None:
    """The `ridge_accuracy` of `read_in_full` alone; None where it is undefined.

    Args:
        images: [N, E] embeddings. labels: [N].
    """
    if _too_few(labels) or not bool(images.isfinite().all()) or bool((images == 0).all(1).any()):
        return None
    return _ridge_accuracy(unit(images.cpu().double().numpy()), labels)


def _confidence(logits: NDArray[np.float64], labels: Labels) -> Numbers:
    log_p = log_probabilities(logits)
    out: Numbers = {
        "ece": calibration_error(log_p, labels),
        "ece_equal_mass": calibration_error(log_p, labels, equal_mass=True),
        "nll": negative_log_likelihood(log_p, labels),
        "brier": brier_score(log_p, labels),
        "ece_refit": None,
        "nll_refit": None,
    }
    first = halves(labels)
    if first.all():
        return out
    refit = np.empty_like(log_p)
    for half in (first, ~first):
        temperature = best_temperature(logits[~half], labels[~half])
        refit[half] = log_probabilities(logits[half], temperature)
    out["ece_refit"] = calibration_error(refit, labels)
    out["nll_refit"] = negative_log_likelihood(refit, labels)
    return out


def _lie(x: NDArray[np.float64], t: NDArray[np.float64], labels: Labels) -> Numbers:
    own = t[labels]
    return {
        "modality_gap": modality_gap(x, own),
        "energy_distance": energy_distance(x, t, labels),
        "alignment": alignment(x, own),
        "uniformity": uniformity(x) if len(x) > 1 else None,
        "effective_rank": effective_rank(x) if len(x) > 1 else None,
    }


NAMES = (
    *("ridge_accuracy", "knn_accuracy"),
    *("ece", "ece_equal_mass", "nll", "brier", "ece_refit", "nll_refit"),
    *("modality_gap", "energy_distance", "alignment", "uniformity", "effective_rank", "margin"),
)
"""What is read of a model by itself."""


def beside_baseline(now: InFull, before: InFull, labels: Labels) -> Numbers:
    """What is read of a model and of the untouched one, and what the two amount to.

    lost_pp: zero-shot, untouched less adapted. gone_pp: the same of the ridge read-out.
    misaligned_pp: the rest, which a linear read-out still finds. negative_flips: share of images
    that were right and are wrong; positive_flips the other way; churn: of another class than
    before. Undefined is None.
    """
    right, was = (np.asarray(one.classes) == labels for one in (now, before))
    lost = 100 * float(was.mean() - right.mean())
    ridge, ridge_was = now.numbers["ridge_accuracy"], before.numbers["ridge_accuracy"]
    gone = None if ridge is None or ridge_was is None else 100 * (ridge_was - ridge)
    return {
        "lost_pp": lost,
        "gone_pp": gone,
        "misaligned_pp": None if gone is None else lost - gone,
        "negative_flips": float((was & ~right).mean()),
        "positive_flips": float((right & ~was).mean()),
        "churn": float(torch.ne(now.classes, before.classes).double().mean()),
        **now.numbers,
        **{f"baseline_{name}": value for name, value in before.numbers.items()},
    }


def why_undefined(numbers: Mapping[str, float | None]) -> dict[str, str]:
    """Name -> reason of what is null."""
    lacking = numbers.get("ece") is None or numbers.get("baseline_ece") is None
    why = NOT_FINITE if lacking else FEW
    return {name: why for name, value in numbers.items() if value is None}
