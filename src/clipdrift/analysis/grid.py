"""Is the grid of learning rates adequate: does it hold the best rate inside, do cells train?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from clipdrift.analysis.cells import UNDERFIT_FRACTION, underfitting
from clipdrift.analysis.frame import in_order
from clipdrift.analysis.operating import OperatingPoint, operating_points


def rows(
    frame: pd.DataFrame, *, underfit_fraction: float = UNDERFIT_FRACTION
) -> list[dict[str, Any]]:
    """Whether the best learning rate of each method lies at the grid's edge, and what underfits.

    Best by mean validation accuracy. At an edge the method may do better beyond it, so a
    comparison at its best rate is unfair to it.

    Args:
        frame: one row per finished run.
        underfit_fraction: a cell underfits where its mean test accuracy is below this share of the
            best cell of the same backbone and target.

    Returns:
        One dict per backbone, target and method: `backbone, target, role, method, n_lrs,
        lowest_lr, highest_lr, best_lr, best_val_accuracy, at_edge, edge ("lowest", "highest"),
        underfit_fraction, n_underfit, underfit_lrs, words, reason`.
    """
    runs = in_order(frame)
    flags = underfitting(runs, underfit_fraction)
    out = []
    for point in operating_points(runs):
        backbone, target, role, method, _ = point.key
        own = {key.lr: flag for key, flag in flags.items() if key[:4] == point.key[:4]}
        underfit = [lr for lr, flag in own.items() if flag]
        best = None if point.val_accuracy is None else point.key.lr
        edge = _edge(point, best)
        out.append(
            {
                "backbone": backbone,
                "target": target,
                "role": role,
                "method": method,
                "n_lrs": len(point.rates),
                "lowest_lr": point.rates[0],
                "highest_lr": point.rates[-1],
                "best_lr": best,
                "best_val_accuracy": point.val_accuracy,
                "at_edge": None if best is None or len(point.rates) < 2 else edge is not None,
                "edge": edge,
                "underfit_fraction": underfit_fraction,
                "n_underfit": len(underfit),
                "underfit_lrs": underfit,
                "words": _in_words(method, best, edge, underfit),
                "reason": _reason(point, best),
            }
        )
    return out


def _edge(point: OperatingPoint, best: float | None) -> str | None:
    if best is None or len(point.rates) < 2:
        return None
    return {point.rates[0]: "lowest", point.rates[-1]: "highest"}.get(best)


def _reason(point: OperatingPoint, best: float | None) -> str | None:
    if best is None:
        return "no validation accuracy in these records"
    return "one learning rate: a grid of one has no inside" if len(point.rates) < 2 else None


def _in_words(method: str, best: float | None, edge: str | None, underfit: list[float]) -> str:
    texts = []
    if edge:
        texts.append(f"the best rate of {method}, {best:g}, is the {edge} of the grid: extend it")
    if underfit:
        rates = ", ".join(f"{lr:g}" for lr in underfit)
        texts.append(f"{method} underfits at {rates}: what it keeps there is no merit")
    return "; ".join(texts) or "nothing to remark"


__all__ = ["rows"]
