"""A forecast of final retention from early drift, with an interval; kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from clipdrift.analysis.signals import Floats
from clipdrift.errors import Fault, RecordError
from clipdrift.spec import content_hash

KIND, VERSION = "clipdrift forecast", 1
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_FOLDS = 20
ROUNDING = 1e-12


class Line(NamedTuple):
    """kept = intercept - slopes . moved, slopes 0 or more, held within what was seen."""

    intercept: float
    slopes: list[float]
    low: float
    high: float

    def at(self, moved: Floats) -> Floats:
        """Retention in percent for movements of shape (n, n_signals)."""
        kept = self.intercept - moved @ np.array(self.slopes)
        return np.asarray(np.clip(kept, self.low, self.high))


class Forecast(NamedTuple):
    """Retention in percent: forecast and the ends of its interval, shape (n,)."""

    kept: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Model:
    """A fitted forecast.

    line: fitted to all cells. lines: to all but those of one fold. Residual i is |kept - lines[
    folds[i]]| of a run that this line has not seen, and stands for `weights[i]` of all cells.
    """

    line: Line
    lines: list[Line]
    folds: list[int]
    residuals: list[float]
    weights: list[float]
    penalty: float

    def forecast(self, moved: Floats, level: float) -> Forecast:
        """Forecast with a CV+ interval.

        The upper end is the `level` quantile of lines[folds[i]](moved) + residuals[i], the lower
        end the 1 - level quantile of the differences. Each cell weighs 1 / (n_cells + 1), shared
        by its runs, and the missing cell lies at infinity. The interval holds a run of another
        cell of the same kind with a probability of at least 2 level - 1, and of about `level`
        in practice; runs of another target, method or backbone are not of the same kind.

        Args:
            moved: (n, n_signals), as of `movement`.
            level: in (0, 1).

        Reference: Barber, Candes, Ramdas & Tibshirani (2021), Annals of Statistics 49(1), CV+;
        ours folds by cells and weighs them equally.
        """
        at = np.array([line.at(moved) for line in self.lines])[self.folds]
        spread, weights = np.array(self.residuals)[:, None], np.array(self.weights)
        high = weighted_quantile(at + spread, weights, level)
        low = -weighted_quantile(spread - at, weights, level)
        return Forecast(self.line.at(moved), np.maximum(low, 0.0), high)


def weighted_quantile(values: Floats, weights: Floats, level: float) -> Floats:
    """Per column the least value with at least `level` of the weight at or below it.

    Args:
        values: (n, m). weights: (n,), of sum below 1; the rest lies at infinity.

    >>> values = np.array([[1.0], [2.0], [3.0]])
    >>> [float(weighted_quantile(values, np.full(3, 0.25), q)[0]) for q in (0.5, 0.75, 0.8)]
    [2.0, 3.0, inf]
    """
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weights[order], axis=0) >= level - ROUNDING
    ordered = np.take_along_axis(values, order, axis=0)
    first = np.take_along_axis(ordered, below.argmax(axis=0)[None], axis=0)[0]
    return np.where(below.any(axis=0), first, np.inf)


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
    return np.array([lines[f].at(row[None])[0] for f, row in zip(folds, moved, strict=True)])


def _line(moved: Floats, kept: Floats, penalty: float) -> Line:
    n = len(kept)
    centre, scale = moved.mean(axis=0), moved.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = -(moved - centre) / scale
    padded = np.vstack([design, np.sqrt(n * penalty) * np.eye(moved.shape[1])])
    slopes = nnls(padded, np.r_[kept - kept.mean(), np.zeros(moved.shape[1])])[0] / scale
    intercept = float(kept.mean() + centre @ slopes)
    return Line(intercept, slopes.tolist(), float(kept.min()), float(kept.max()))


@dataclass(frozen=True)
class Saved:
    """A model with what it is for: which epoch, transfer datasets, backbones and methods."""

    model: Model
    level: float
    after_epoch: int
    signals: list[str]
    transfers: list[str]
    epochs: list[int]
    backbones: list[str]
    methods: list[str]
    trained_on: Mapping[str, Any]

    def body(self) -> dict[str, Any]:
        """As plain JSON values."""
        model = {**self.model.__dict__, "line": self.model.line._asdict()}
        model["lines"] = [line._asdict() for line in self.model.lines]
        return {"kind": KIND, "version": VERSION, **self.__dict__, "model": model}

    @property
    def hash(self) -> str:
        return content_hash(self.body())

    def to_json(self) -> str:
        return json.dumps({**self.body(), "hash": self.hash}, indent=1, allow_nan=False)


def read_forecast(path: Path) -> Saved:
    """Read a saved forecast and hold it against its hash.

    Raises:
        RecordError: if it is missing, damaged, edited, or not a forecast of this version.
    """
    try:
        body = json.loads(path.read_bytes())
        found = dict(_checked(body))
        model = dict(found.pop("model"))
        model["line"] = Line(**model["line"])
        model["lines"] = [Line(**line) for line in model["lines"]]
        return Saved(model=Model(**model), **found)
    except OSError as error:
        got = str(error.strerror)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        got = str(error) if isinstance(error, _Refused) else "a damaged or edited file"
    step = "Write it anew with 'clipdrift forecast DIR --save FILE'"
    raise RecordError(Fault(str(path), f"a forecast of version {VERSION}", got, step))


class _Refused(ValueError):
    """A file that says of itself why it cannot be used."""


def _checked(body: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise _Refused("another kind of file")
    if body.get("version") != VERSION:
        raise _Refused(f"version {body.get('version')}")
    stored = body.pop("hash", None)
    if content_hash(body) != stored:
        raise _Refused("a hash that does not match its content")
    yield from ((key, value) for key, value in body.items() if key not in ("kind", "version"))


__all__ = ["Forecast", "Line", "Model", "Saved", "fit", "read_forecast", "weighted_quantile"]
