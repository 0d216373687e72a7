"""How far the confidence of a classifier can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
BINS = 15
MAX_LOG_TEMPERATURE = 5.0


def log_probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """log softmax(logits / T), shape [N, C].

    >>> np.exp(log_probabilities(np.array([[0.0, np.log(3.0)]]))).round(3).tolist()
    [[0.25, 0.75]]
    """
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    out: Floats = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return out


def calibration_error(log_p: Floats, labels: Labels, *, equal_mass: bool = False) -> float:
    """Expected calibration error: sum over 15 bins of n_b / N |accuracy_b - mean confidence_b|.

    Args:
        log_p: [N, C] log probabilities; the confidence is the largest probability.
        labels: [N] class numbers.
        equal_mass: bins of equal numbers of images, by rising confidence, in place of equal widths
            (i / 15, (i + 1) / 15]. Their number is told by no data: report both.

    Returns:
        A fraction, 0 to 1.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3; equal mass:
    Nixon et al. 2019, "Measuring Calibration in Deep Learning", section 3.

    >>> log_p = np.log(np.array([[0.9, 0.1], [0.9, 0.1]]))
    >>> round(calibration_error(log_p, np.array([0, 1])), 3)
    0.4
    """
    confidence = np.exp(log_p.max(axis=1))
    right = (log_p.argmax(axis=1) == labels).astype(np.float64)
    if equal_mass:
        parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    else:
        at = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        parts = [np.flatnonzero(at == i) for i in range(BINS)]
    gaps = [abs(float((right - confidence)[part].sum())) for part in parts]
    return sum(gaps) / len(labels)


def negative_log_likelihood(log_p: Floats, labels: Labels) -> float:
    """-mean log p(label), nats.

    >>> round(negative_log_likelihood(np.log(np.array([[0.5, 0.5]])), np.array([1])), 4)
    0.6931
    """
    return float(-log_p[np.arange(len(labels)), labels].mean())


def brier_score(log_p: Floats, labels: Labels) -> float:
    """Mean over images of sum over classes (p_c - [c = label])^2, 0 to 2.

    Reference: Brier 1950, "Verification of forecasts expressed in terms of probability".

    >>> round(brier_score(np.log(np.array([[0.8, 0.2]])), np.array([0])), 3)
    0.08
    """
    p = np.exp(log_p)
    p[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(p).sum(axis=1).mean())


def best_temperature(logits: Floats, labels: Labels) -> float:
    """The T at which softmax(logits / T) has the least negative log likelihood, e^-5 to e^5.

    Reference: Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda t: negative_log_likelihood(log_probabilities(logits, float(np.exp(t))), labels),
        bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))
