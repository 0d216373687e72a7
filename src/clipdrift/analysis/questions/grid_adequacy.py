"""Is the grid of learning rates adequate: does it hold the best rate inside, do cells train?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pandas as pd

from clipdrift.analysis.frame import in_order
from clipdrift.analysis.questions.operating import OperatingPoint, operating_points
from clipdrift.analysis.rows import Method, OfTarget, Reason, Said, rate_text
from clipdrift.analysis.statistics.fit import DAMAGED, UNDERFIT_FRACTION, UNDERFITS, fits


@dataclass(frozen=True, kw_only=True)
class GridAdequacy(OfTarget):
    """Whether the best learning rate lies at the grid's edge, and which cells do not fit.

    n_learning_rates: rates of the grid
    lowest_learning_rate: of the grid
    highest_learning_rate: of the grid
    best_learning_rate: by mean validation accuracy
    best_val_accuracy: mean over seeds there
    edge: the end of the grid that the best rate is
    n_underfit: cells that barely trained
    underfit_learning_rates: their rates
    n_damaged: past their peak at a lower rate or an earlier epoch
    damaged_learning_rates: their rates
    words: all this in words
    """

    table: ClassVar = "grid_adequacy"

    role: str
    method: Method
    n_learning_rates: Annotated[int, Said("count", "Rates")]
    lowest_learning_rate: Annotated[float, Said("rate", "Lowest")]
    highest_learning_rate: Annotated[float, Said("rate", "Highest")]
    best_learning_rate: Annotated[float | None, Said("rate", "Best")]
    best_val_accuracy: float | None
    edge: Literal["lowest", "highest"] | None
    n_underfit: Annotated[int, Said("count", "Underfitting cells")]
    underfit_learning_rates: Annotated[list[float], Said("rates")]
    n_damaged: Annotated[int, Said("count", "Damaged cells")]
    damaged_learning_rates: Annotated[list[float], Said("rates")]
    words: Annotated[str | None, Said("name", "Remark")]
    reason: Reason


def rows(
    frame: pd.DataFrame, *, underfit_fraction: float = UNDERFIT_FRACTION
) -> list[GridAdequacy]:
    """Whether the best learning rate of each method lies at the grid's edge, and which cells fit.

    Best by mean validation accuracy. At an edge the method may do better beyond it, so a
    comparison at its best rate is unfair to it.

    Returns:
        One row per backbone, target and method.
    """
    runs = in_order(frame)
    flags = fits(runs, underfit_fraction)
    out = []
    for point in operating_points(runs):
        backbone, target, role, method, _ = point.key
        own = {cell[4]: flag for cell, flag in flags.items() if cell[:4] == point.key[:4]}
        underfit = [rate for rate, flag in own.items() if flag == UNDERFITS]
        damaged = [rate for rate, flag in own.items() if flag == DAMAGED]
        best = None if point.val_accuracy is None else point.key.learning_rate
        edge = _edge(point, best)
        out.append(
            GridAdequacy(
                backbone=backbone,
                target=target,
                role=role,
                method=method,
                n_learning_rates=len(point.rates),
                lowest_learning_rate=point.rates[0],
                highest_learning_rate=point.rates[-1],
                best_learning_rate=best,
                best_val_accuracy=point.val_accuracy,
                edge=edge,
                n_underfit=len(underfit),
                underfit_learning_rates=underfit,
                n_damaged=len(damaged),
                damaged_learning_rates=damaged,
                words=_in_words(edge, underfit, damaged),
                reason=_reason(point, best),
            )
        )
    return out


def _edge(point: OperatingPoint, best: float | None) -> Literal["lowest", "highest"] | None:
    if best is None or len(point.rates) < 2:
        return None
    if best == point.rates[0]:
        return "lowest"
    return "highest" if best == point.rates[-1] else None


def _reason(point: OperatingPoint, best: float | None) -> str | None:
    if best is None:
        return "no validation accuracy in these records"
    return "one learning rate: a grid of one has no inside" if len(point.rates) < 2 else None


def _in_words(edge: str | None, underfit: list[float], damaged: list[float]) -> str | None:
    texts = []
    if edge:
        texts.append(f"the best rate is the {edge}: extend the grid")
    if underfit:
        rates = ", ".join(map(rate_text, underfit))
        texts.append(f"underfits at {rates}: it keeps what it keeps because it barely trained")
    if damaged:
        rates = ", ".join(map(rate_text, damaged))
        texts.append(f"damaged at {rates}: past its peak, it has lost of the target too")
    return "; ".join(texts) or None
