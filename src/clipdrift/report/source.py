"""What a report is made from: records, their analysis, and the order in which all is shown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from clipdrift.analysis.frame import (
    at_chance,
    history_frame,
    per_block_frame,
    runs_frame,
    usable_records,
)
from clipdrift.analysis.statistics.fit import FITS, Fit
from clipdrift.analysis.summary import SCHEMA_VERSION
from clipdrift.errors import Fault, RecordError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report.palette import Look, looks
from clipdrift.report.printed import RunIndex
from clipdrift.spec import StudySpec, content_hash

Row = dict[str, Any]
Rows = list[Row]
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
    lr: float


def mark_of(fit: Fit | None) -> str:
    """
    >>> mark_of("damaged"), mark_of("fits"), mark_of(None)
    ('damaged', '', '')
    """
    return "" if fit is None or fit == FITS else fit


@dataclass(frozen=True)
class Study:
    """Records and analysis of one study folder, with look-ups; nothing here is computed anew."""

    folder: StudyFolder
    records: Sequence[RunRecord]
    analysis: Row
    spec: StudySpec | None

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
        return list(dict.fromkeys(row["metric"] for row in self.analysis["cells"]))

    @cached_property
    def transfers(self) -> list[str]:
        """Transfer datasets with a retention or at least an accuracy."""
        fields = (".retention_pct", ".accuracy")
        names = [m for m in self.metrics if m.startswith("transfer.") and m.endswith(fields)]
        return sorted({name.split(".", 1)[1].rsplit(".", 1)[0] for name in names})

    @cached_property
    def outcomes(self) -> list[str]:
        """One metric per transfer dataset: retention, or accuracy where that is all there is.

        None of a dataset on which the untouched model is not told from chance: what is kept of
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

    @cached_property
    def accuracy(self) -> str:
        """Target accuracy: of the test part, of the validation part where no test was read."""
        has_test = any(
            row["mean"] is not None
            for row in self.analysis["cells"]
            if row["metric"] == "test_accuracy"
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
    def cells(self) -> dict[CellId, dict[str, Row]]:
        """Cell -> metric -> row of `cells`."""
        out: dict[CellId, dict[str, Row]] = {}
        for row in self.analysis["cells"]:
            place = Place(row["backbone"], row["target"])
            cell = CellId(place, row["role"], row["method"], row["lr"])
            out.setdefault(cell, {})[row["metric"]] = row
        return out

    @cached_property
    def several_seeds(self) -> bool:
        """Whether any cell has two seeds: without that no number has an SD or an interval."""
        return any(row["n"] > 1 for row in self.analysis["cells"])

    @property
    def averaged(self) -> str:
        """What a number of a cell is, for the heads of columns."""
        return "mean ± SD over seeds" if self.several_seeds else "one seed"

    def cells_of(self, place: Place) -> list[CellId]:
        return [cell for cell in self.cells if cell.place == place]

    def fit(self, cell: CellId) -> Fit | None:
        """Whether a cell fits, underfits or is damaged; None where that is not known."""
        found: Fit | None = next(iter(self.cells[cell].values()))["fit"]
        return found

    def mark(self, cell: CellId) -> str:
        """The word for a cell that does not fit, else nothing."""
        return mark_of(self.fit(cell))

    def runs_where(
        self,
        backbone: str,
        target: str | None = None,
        methods: Collection[str] | None = None,
        lr: float | None = None,
        *,
        matched: bool = False,
    ) -> str:
        """Encoded positions of the usable runs of a backbone, target, methods and rate."""
        names = None if methods is None else frozenset(methods)
        key = (backbone, target, names, lr, matched)
        if key not in self._encoded:
            self._encoded[key] = self.index.encode(
                record.run_id
                for record in self.usable
                if record.backbone == backbone
                and (target is None or record.target == target)
                and (names is None or record.method in names)
                and (lr is None or record.learning_rate == lr)
                and (not matched or record.role == "matched")
            )
        return self._encoded[key]

    @cached_property
    def _encoded(self) -> dict[tuple[Any, ...], str]:
        return {}

    def runs_of(self, row: Row, key: str = "") -> str:
        """Encoded positions of the runs that a row of the analysis, or a field of it, is about."""
        if "run_ids" in row:
            return self.index.encode(row["run_ids"])
        if key in OF_ALL_CANDIDATES or row.get("run_id", "") is None:
            return self.runs_where(row["backbone"], row["target"], matched=True)
        if "run_id" in row:
            return self.index.encode([row["run_id"]])
        methods = [row[key] for key in ("method", "method_a", "method_b") if row.get(key)] or None
        target, lr = row.get("target"), row.get("lr")
        return self.runs_where(row["backbone"], target, methods, lr, matched=methods is None)

    def rows(self, table: str, **where: Any) -> Iterator[tuple[int, Row]]:
        """Rows of a table of the analysis with their positions, filtered by equal fields."""
        rows: Iterable[tuple[int, Row]] = enumerate(self.analysis[table])
        if "backbone" in where and "target" in where:
            rows = self._by_place(table).get((where["backbone"], where["target"]), [])
        for position, row in rows:
            if all(row.get(key) == value for key, value in where.items()):
                yield position, row

    def _by_place(self, table: str) -> dict[tuple[Any, Any], list[tuple[int, Row]]]:
        """A table's rows by backbone and target: figures ask for them hundreds of times."""
        if table not in self._places:
            found = self._places.setdefault(table, {})
            for position, row in enumerate(self.analysis[table]):
                key = (row.get("backbone"), row.get("target"))
                found.setdefault(key, []).append((position, row))
        return self._places[table]

    @cached_property
    def _places(self) -> dict[str, dict[tuple[Any, Any], list[tuple[int, Row]]]]:
        return {}


def read_study(folder: StudyFolder) -> Study:
    """Records and analysis of a folder.

    Raises:
        RecordError: if the analysis is missing, damaged, of a newer schema or of other records.
        StudyFolderError: if the folder does not exist.
    """
    records, _ = folder.records()
    path = folder.analysis_path
    step = f"Run: clipdrift analyze {shlex.quote(str(folder.path))}"
    if not path.exists():
        raise _unusable(path, "the study's analysis", "nothing there", step)
    try:
        analysis: Any = json.loads(path.read_bytes())
        version = analysis["schema_version"]
        found = analysis["generated_from"]["records_hash"]
        missing = {"cells", "paired", "warnings"} - set(analysis)
    except (OSError, ValueError, KeyError, TypeError):
        raise _unusable(path, "the study's analysis", "a damaged file", step) from None
    if version != SCHEMA_VERSION or missing:
        got = f"schema version {version}"
        raise _unusable(path, f"an analysis of schema version {SCHEMA_VERSION}", got, step)
    if found != content_hash(sorted(record.model_dump_json() for record in records)):
        raise _unusable(path, "an analysis of the records in the folder", "one of others", step)
    return Study(folder, records, analysis, folder.read_spec())


def _unusable(path: Any, expected: str, got: str, step: str) -> RecordError:
    return RecordError(Fault(str(path), expected, got, step))


__all__ = ["CellId", "Place", "Row", "Rows", "Study", "mark_of", "read_study"]
