"""Fit a forecast of final retention: a line that falls with drift, and its left-out residuals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.forecast_model import ROUNDING, Line, Model

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_FOLDS = 20


def fit(moved: Floats, kept: Floats, cells: NDArray[np.intp]) -> Model:
    """Fit a line that falls with every signal, with the penalty that foretells best.

    Ridge regression on signals in units of their SD, slopes held at 0 or below: more drift is
    never taken for more retention. The penalty of `PENALTIES` with the least mean absolute error
    on left-out cells is kept. Cells are left out one at a time, or in 20 groups where there are
    more.

    Args:
        moved: (n, n_signals). kept: (n,). cells: (n,) number of each run's cell.
    """
    names = np.unique(cells)
    fold_of = {int(name): i % MAX_FOLDS for i, name in enumerate(names)}
    folds = np.array([fold_of[int(name)] for name in cells], dtype=np.intp)
    best: tuple[float, float, list[Line]] | None = None
    for penalty in PENALTIES:
        lines = [
            _line(moved[folds != fold], kept[folds != fold], penalty)
            for fold in range(folds.max() + 1)
        ]
        error = float(np.abs(_left_out(lines, folds, moved) - kept).mean())
        if best is None or error < best[0] - ROUNDING:
            best = (error, penalty, lines)
    assert best is not None
    _, penalty, lines = best
    sizes = np.bincount(np.searchsorted(names, cells))[np.searchsorted(names, cells)]
    return Model(
        _line(moved, kept, penalty),
        lines,
        folds.tolist(),
        np.abs(_left_out(lines, folds, moved) - kept).tolist(),
        (1 / ((len(names) + 1) * sizes)).tolist(),
        penalty,
    )


def _left_out(lines: list[Line], folds: NDArray[np.intp], moved: Floats) -> Floats:
    out = np.empty(len(moved))
    for fold, line in enumerate(lines):
        own = folds == fold
        # A stack of single runs gives each the digits that it has alone; one matrix does not.
        out[own] = line.at(moved[own, None])[:, 0]
    return out


def _line(moved: Floats, kept: Floats, penalty: float) -> Line:
    n = len(kept)
    centre, scale = moved.mean(axis=0), moved.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = -(moved - centre) / scale
    padded = np.vstack([design, np.sqrt(n * penalty) * np.eye(moved.shape[1])])
    slopes = nnls(padded, np.r_[kept - kept.mean(), np.zeros(moved.shape[1])])[0] / scale
    intercept = float(kept.mean() + centre @ slopes)
    return Line(intercept, slopes.tolist(), float(kept.min()), float(kept.max()))
