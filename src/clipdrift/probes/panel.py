"""Drift signals of the panel by name: of activations, embeddings, weights, flow and gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import Signals, Value, drift_pct, mean
from clipdrift.probes.flow import MOST_TOKENS
from clipdrift.probes.representation import embedding_drift
from clipdrift.probes.similarity import MEASURES, compared
from clipdrift.probes.traces import Traces
from clipdrift.probes.weight_updates import OF_UPDATES

INSIDE, OUTSIDE = "embedding_drift_inside", "embedding_drift_outside"
ELSEWHERE = "transfer_"
"""Before the names of what is read of embeddings of transfer images."""
KEPT_VARIANCE = 0.95
OF_TRACES = {
    "gradient_erf95": "gradient_erf95",
    "flow_erf95": "flow_erf95",
    "flow_entropy_bits": "flow_entropy",
}
"""Level -> stem of its drift."""
NO_CLS = "the vision tower has no CLS token"


def activation_signals(
    adapted: ProbeReading, baseline: ProbeReading, span: Tensor | None
) -> dict[str, Value]:
    """What the captured CLS activations and embeddings tell beside CKA and embedding drift.

    Args:
        span: [E, k] orthonormal, as `text_span` gives it; None without transfer sets.

    Returns:
        `<measure>_mean`, `_last`, `_per_block` of every one of `similarity.MEASURES`, None of a
        tower without CLS; and `moved`.
    """
    n_blocks = adapted.patch_entropy_bits.shape[1]
    blocks: list[dict[str, float | None]] = [dict.fromkeys(MEASURES)] * n_blocks
    if adapted.cls_activations is not None and baseline.cls_activations is not None:
        pairs = zip(adapted.cls_activations, baseline.cls_activations, strict=True)
        blocks = [compared(now, before) for now, before in pairs]
    out: dict[str, Value] = {}
    for name in MEASURES:
        values = [block[name] for block in blocks]
        out |= {f"{name}_mean": mean(values), f"{name}_last": values[-1]}
        out[f"{name}_per_block"] = values
    return out | moved(adapted.embeddings, baseline.embeddings, span)


def moved(adapted: Tensor, baseline: Tensor, span: Tensor | None) -> dict[str, Value]:
    """`embedding_drift` [N, E against N, E] in its parts, within a span and across it.

    `embedding_drift_inside` and `_outside`: mean over images of half the squared norm of the
    movement of the embedding at unit length, in either part of the space. They sum to
    `embedding_drift`. None without a span.

    >>> moved(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.eye(2)[:, :1])
    {'embedding_drift_inside': 0.5, 'embedding_drift_outside': 0.5}
    """
    if span is None:
        return dict.fromkeys((INSIDE, OUTSIDE))
    now, before = (normalize(one.double(), dim=1, eps=0.0) for one in (adapted, baseline))
    step = now - before
    inside = (step @ span.double()).square().sum(dim=1) / 2
    outside = (step.square().sum(dim=1) / 2 - inside).clamp_min(0.0)
    return {INSIDE: _finite(inside.mean()), OUTSIDE: _finite(outside.mean())}


def elsewhere_signals(adapted: Tensor, baseline: Tensor, span: Tensor) -> dict[str, Value]:
    """`embedding_drift` and `moved` of images of the transfer sets, which no training has seen."""
    parts = moved(adapted, baseline, span)
    found = {"embedding_drift": embedding_drift(adapted, baseline), **parts}
    return {f"{ELSEWHERE}{name}": value for name, value in found.items()}


def text_span(sets: Mapping[str, Tensor]) -> Tensor:
    """The subspace of embeddings that tells the classes of some sets apart: [E, k] orthonormal.

    The leading principal directions of each set's text embeddings at unit length, centred within
    the set, that hold 0.95 of their variance over all sets: along all others a movement of an image
    changes no cosine difference between two classes by much.

    Args:
        sets: name -> [C, E] text embeddings, of classes or captions.

    >>> text_span({"two": torch.eye(3)[:2]}).abs().round(decimals=3).flatten().tolist()
    [0.707, 0.707, 0.0]
    """
    texts = [normalize(text.double(), dim=1) for text in sets.values()]
    apart = torch.cat([text - text.mean(dim=0) for text in texts])
    _, values, directions = torch.linalg.svd(apart, full_matrices=False)
    held = values.square().cumsum(0) / values.square().sum()
    few = int((held < KEPT_VARIANCE - 1e-12).sum()) + 1
    out: Tensor = directions[:few].T
    return out


def trace_signals(now: Traces, before: Traces) -> Signals:
    """Levels of flow and gradient, and their drift in percent as of the other levels."""
    levels: dict[str, Value] = {}
    drift: dict[str, Value] = {}
    for name, stem in OF_TRACES.items():
        level, was = (_level(getattr(one, name)) for one in (now, before))
        levels[name], drift[f"{stem}_pct"] = level, drift_pct(level, was)
    return Signals(levels, drift)


def _level(values: Tensor | None) -> float | None:
    return None if values is None else _finite(values.double().mean())


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def panel_reasons(*, has_cls: bool, not_plain: str | None) -> dict[str, str]:
    """Dotted name of everything of the panel that can be null -> why it is, where it is.

    Args:
        not_plain: why no plain weights amount to the model, if none do.
    """
    weights = not_plain or "no weight matrix of the blocks moved"
    found = {f"drift.{name}": weights for name in OF_UPDATES}
    near = "fewer than 11 images or directions, or activations that do not vary"
    flows = f"more than {MOST_TOKENS} tokens, whose flow would take minutes an image"
    if not has_cls:
        near = f"{NO_CLS}: there are no CLS activations to compare"
        flows = f"{NO_CLS}: nothing flows to it"
    found |= {
        f"drift.{name}": "no transfer sets, whose texts span it" for name in (INSIDE, OUTSIDE)
    }
    found |= {f"drift.{name}_{end}": near for name in MEASURES for end in ("mean", "last")}
    for level in ("flow_erf95", "flow_entropy_bits"):
        found |= {f"levels.{level}": flows, f"drift.{OF_TRACES[level]}_pct": flows}
    return found
