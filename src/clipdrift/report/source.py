"""What a report is made from: records, their analysis, and the order in which all is shown."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from clipdrift.analysis.frame import at_chance, history_frame, per_block_frame, runs_frame
from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.questions.operating import AtBest
from clipdrift.analysis.questions.profiles import OfProfile
from clipdrift.analysis.questions.selection import Selection
from clipdrift.analysis.rows import UNDEFINED, OfCell, Row
from clipdrift.analysis.statistics.fit import FITS, Fit
from clipdrift.analysis.summary import LISTS
from clipdrift.analysis.usable import usable_records
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report.metrics import metric
from clipdrift.report.palette import Look, looks
from clipdrift.report.printed import ROW, Printed, RunIndex, field_text
from clipdrift.spec import StudySpec

R = TypeVar("R", bound=Row)
DEFAULT_SIGNALS = ("drift.cls_entropy_pct", "drift.cka_mean", "drift.weight_drift_rel")
N_SIGNALS = 3
OF_ALL_CANDIDATES = ("n_candidates", "oracle_retention_pct", "random_retention_pct", "regret_pp")
"""Fields of `selection` that compare the chosen run with all it was chosen from."""


class Place(NamedTuple):
    """A target dataset under one backbone; places are never pooled."""

    backbone: str
    target: str


class CellId(NamedTuple):
    place: Place
    role: str
    method: str
    learning_rate: float


def mark_of(fit: Fit | None) -> str:
    """
    >>> mark_of("damaged"), mark_of("fits"), mark_of(None)
    ('damaged', '', '')
    """
    return "" if fit is None or fit == FITS else fit


def as_shown(row: CellMetric | OfProfile) -> float:
    """The mean of a row in the unit it is shown in; NaN if undefined."""
    return math.nan if row.mean is None else row.mean * metric(row.metric).scale


@dataclass(frozen=True)
class Study:
    """Records and analysis of one study folder, with look-ups; nothing here is computed anew."""

    folder: StudyFolder
    records: Sequence[RunRecord]
    analysis: dict[str, Any]
    spec: StudySpec | None
    pictures: bool = False
    """Whether images are shown that their licence does not let anyone pass on."""

    @cached_property
    def lists(self) -> dict[type[Row], list[Any]]:
        """Rows of every list of the analysis.

        Raises:
            TypeError: if a row has other fields than its kind.
        """
        return {kind: [kind.read(row) for row in self.analysis[kind.table]] for kind in LISTS}

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {id(row): i for rows in self.lists.values() for i, row in enumerate(rows)}

    @cached_property
    def usable(self) -> list[RunRecord]:
        return usable_records(self.records)

    @cached_property
    def runs(self) -> pd.DataFrame:
        return runs_frame(self.records)

    @cached_property
    def blocks(self) -> pd.DataFrame:
        return per_block_frame(self.records)

    @cached_property
    def history(self) -> pd.DataFrame:
        return history_frame(self.records)

    @cached_property
    def index(self) -> RunIndex:
        """Usable runs in the order of cells and seeds, then all others."""
        ids = [record.run_id for record in self.usable]
        return RunIndex(list(dict.fromkeys([*ids, *(r.run_id for r in self.listed)])))

    @cached_property
    def listed(self) -> list[RunRecord]:
        """Every record, usable ones first."""
        first = {record.run_id for record in self.usable}
        others = [record for record in self.records if record.run_id not in first]
        return [*self.usable, *sorted(others, key=lambda record: record.run_id)]

    @cached_property
    def looks(self) -> dict[str, Look]:
        return looks([(record.method, record.role) for record in self.records])

    @cached_property
    def places(self) -> list[Place]:
        return list(dict.fromkeys(Place(r.backbone, r.target) for r in self.usable))

    @cached_property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(place.backbone for place in self.places))

    def title(self, place: Place) -> str:
        """Name of a place; the backbone is named where there are several."""
        several = len(self.backbones) > 1
        return f"{place.target} · {place.backbone}" if several else place.target

    @cached_property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(row.metric for row in self.rows(CellMetric)))

    @cached_property
    def transfers(self) -> list[str]:
        """Transfer datasets with a retention or at least an accuracy."""
        fields = (".retention_pct", ".accuracy", ".mean_recall")
        names = [m for m in self.metrics if m.startswith("transfer.") and m.endswith(fields)]
        return sorted({name.split(".", 1)[1].rsplit(".", 1)[0] for name in names})

    @cached_property
    def outcomes(self) -> list[str]:
        """One metric per transfer dataset: retention, or accuracy where that is all there is.

        None of a dataset on which the untouched model is at chance: what is kept of
        that says nothing.
        """
        unknown = {name for _, name in self.at_chance}
        out = []
        for name in self.transfers:
            retention = f"transfer.{name}.retention_pct"
            if retention in self.metrics:
                out.append(retention)
            elif name not in unknown:
                out.append(f"transfer.{name}.accuracy")
        return out

    @cached_property
    def at_chance(self) -> dict[tuple[str, str], str]:
        """Backbone and transfer dataset -> why retention there is undefined."""
        return at_chance(self.records)

    def score_name(self, place: Place) -> str:
        """What the runs of a place are scored by on their target."""
        known = (r.result.score_name for r in self.usable if (r.backbone, r.target) == place)
        return next(known, "accuracy")

    @cached_property
    def accuracy(self) -> str:
        """Target accuracy: of the test part, of the validation part where no test was read."""
        has_test = any(
            row.mean is not None for row in self.rows(CellMetric, metric="test_accuracy")
        )
        return "test_accuracy" if has_test else "val_accuracy"

    @cached_property
    def drifts(self) -> list[str]:
        return [name for name in self.metrics if name.startswith("drift.")]

    @cached_property
    def main_drifts(self) -> list[str]:
        """The few drift signals of the first tables: the usual ones, else the first there are."""
        usual = [name for name in DEFAULT_SIGNALS if name in self.drifts]
        return [*usual, *(name for name in self.drifts if name not in usual)][:N_SIGNALS]

    @cached_property
    def cells(self) -> dict[CellId, dict[str, CellMetric]]:
        """Cell -> metric -> row of `cells`."""
        out: dict[CellId, dict[str, CellMetric]] = {}
        for row in self.rows(CellMetric):
            place = Place(row.backbone, row.target)
            cell = CellId(place, row.role, row.method, row.learning_rate)
            out.setdefault(cell, {})[row.metric] = row
        return out

    @cached_property
    def several_seeds(self) -> bool:
        """Whether any cell has two seeds: without that no number has an SD or an interval."""
        return any(row.n > 1 for row in self.rows(CellMetric))

    @property
    def averaged(self) -> str:
        """What a number of a cell is, for the heads of columns."""
        return "mean ± SD over seeds" if self.several_seeds else "one seed"

    def cells_of(self, place: Place) -> list[CellId]:
        return [cell for cell in self.cells if cell.place == place]

    @cached_property
    def _best(self) -> dict[Place, dict[str, CellId]]:
        out: dict[Place, dict[str, CellId]] = {}
        for row in sorted(self.rows(AtBest), key=lambda row: list(self.looks).index(row.method)):
            place = Place(row.backbone, row.target)
            cell = CellId(place, row.role, row.method, row.learning_rate)
            out.setdefault(place, {})[row.method] = cell
        return out

    def best_methods(self, place: Place) -> dict[str, CellId]:
        """Method -> its cell at its best rate, in the order of the legend.

        Of none where no run has a validation accuracy.
        """
        return self._best.get(place, {})

    def at_best(self, row: OfCell) -> bool:
        """Whether a row is about a method at its best rate."""
        best = self.best_methods(Place(row.backbone, row.target)).get(row.method)
        return best is not None and best.learning_rate == row.learning_rate

    def known(self, cell: CellId, metric: str) -> CellMetric | None:
        """The row of a cell and metric, if it has a mean."""
        row = self.cells[cell].get(metric)
        return None if row is None or row.mean is None else row

    def fit(self, cell: CellId) -> Fit | None:
        """Whether a cell fits, underfits or is damaged; None where that is not known."""
        return next(iter(self.cells[cell].values())).fit

    def mark(self, cell: CellId) -> str:
        """The word for a cell that does not fit, else nothing."""
        return mark_of(self.fit(cell))

    def runs_where(
        self,
        backbone: str,
        target: str | None = None,
        methods: Collection[str] | None = None,
        learning_rate: float | None = None,
        *,
        matched: bool = False,
    ) -> str:
        """Encoded positions of the usable runs of a backbone, target, methods and rate."""
        names = None if methods is None else frozenset(methods)
        key = (backbone, target, names, learning_rate, matched)
        if key not in self._encoded:
            self._encoded[key] = self.index.encode(
                record.run_id
                for record in self.usable
                if record.backbone == backbone
                and (target is None or record.target == target)
                and (names is None or record.method in names)
                and learning_rate in (None, record.learning_rate)
                and (not matched or record.role == "matched")
            )
        return self._encoded[key]

    @cached_property
    def _encoded(self) -> dict[tuple[Any, ...], str]:
        return {}

    def runs_of(self, row: Any, key: str = "") -> str:
        """Encoded positions of the runs that a row of the analysis, or a field of it, is about."""
        if hasattr(row, "run_ids"):
            return self.index.encode(row.run_ids)
        if isinstance(row, Selection) and (key in OF_ALL_CANDIDATES or row.run_id is None):
            return self.runs_where(row.backbone, row.target, matched=True)
        if hasattr(row, "run_id"):
            return self.index.encode([row.run_id])
        names = ("method", "method_a", "method_b")
        methods = [getattr(row, name) for name in names if getattr(row, name, None)] or None
        target, rate = getattr(row, "target", None), getattr(row, "learning_rate", None)
        return self.runs_where(row.backbone, target, methods, rate, matched=methods is None)

    def rows(self, kind: type[R], /, **where: Any) -> list[R]:
        """Rows of a list of the analysis, those whose fields equal all of `where`.

        Raises:
            AttributeError: if rows of this kind have no such field.
        """
        rows: list[R] = self.lists[kind]
        if "backbone" in where and "target" in where:
            rows = self._by_place(kind).get((where["backbone"], where["target"]), [])
        return [
            row for row in rows if all(getattr(row, key) == value for key, value in where.items())
        ]

    def printed(
        self, row: Row, name: str, *, unit: bool = False, runs: str | None = None
    ) -> Printed:
        """A field of a row of the analysis, from its runs or those that are given."""
        text = field_text(row, name, unit=unit)
        runs = self.runs_of(row, name) if runs is None else runs
        title = str(getattr(row, "reason", None) or "undefined") if text == UNDEFINED else ""
        value = getattr(row, name)
        sort = next(iter(value), None) if isinstance(value, list) else value
        return Printed(text, self.where(row, name), ROW, runs, sort, title)

    def where(self, row: Row, name: str) -> str:
        """Which field of `analysis.json` it is."""
        return f"{row.table}[{self._positions[id(row)]}].{name}"

    def _by_place(self, kind: type[Row]) -> dict[tuple[Any, Any], list[Any]]:
        """A list's rows by backbone and target: figures ask for them hundreds of times."""
        if kind not in self._places:
            found = self._places.setdefault(kind, {})
            for row in self.lists[kind]:
                found.setdefault((row.backbone, row.target), []).append(row)
        return self._places[kind]

    @cached_property
    def _places(self) -> dict[type[Row], dict[tuple[Any, Any], list[Any]]]:
        return {}
