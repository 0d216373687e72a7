"""Is the grid of learning rates adequate: does it hold the best rate inside, do cells train?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.operating import OperatingPoint, operating_points
from clipdrift.analysis.statistics.fit import DAMAGED, UNDERFIT_FRACTION, UNDERFITS, fits


def rows(
    frame: pd.DataFrame, *, underfit_fraction: float = UNDERFIT_FRACTION
) -> list[dict[str, Any]]:
    """Whether the best learning rate of each method lies at the grid's edge, and which cells fit.

    Best by mean validation accuracy. At an edge the method may do better beyond it, so a
    comparison at its best rate is unfair to it.

    Args:
        frame: one row per finished run.
        underfit_fraction: share of the best cell's accuracy from which on a cell fits; see `fits`.

    Returns:
        One dict per backbone, target and method: `backbone, target, role, method, n_lrs,
        lowest_lr, highest_lr, best_lr, best_val_accuracy, at_edge, edge ("lowest", "highest"),
        underfit_fraction, n_underfit, underfit_lrs, n_damaged, damaged_lrs, words, reason`.
    """
    runs = in_order(frame)
    flags = fits(runs, underfit_fraction)
    out = []
    for point in operating_points(runs):
        backbone, target, role, method, _ = point.key
        own = {cell[4]: flag for cell, flag in flags.items() if cell[:4] == point.key[:4]}
        underfit = [lr for lr, flag in own.items() if flag == UNDERFITS]
        damaged = [lr for lr, flag in own.items() if flag == DAMAGED]
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
                "n_damaged": len(damaged),
                "damaged_lrs": damaged,
                "words": _in_words(method, best, edge, underfit, damaged),
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


def _in_words(
    method: str,
    best: float | None,
    edge: str | None,
    underfit: list[float],
    damaged: list[float],
) -> str:
    texts = []
    if edge:
        texts.append(f"the best rate of {method}, {best:g}, is the {edge} of the grid: extend it")
    if underfit:
        rates = ", ".join(f"{lr:g}" for lr in underfit)
        texts.append(
            f"{method} underfits at {rates}: it keeps what it keeps because it barely trained"
        )
    if damaged:
        rates = ", ".join(f"{lr:g}" for lr in damaged)
        texts.append(
            f"{method} is damaged at {rates}: past its peak, it has lost of the target too"
        )
    return "; ".join(texts) or "nothing to remark"


__all__ = ["rows"]
