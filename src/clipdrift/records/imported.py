"""Records of runs that were measured elsewhere, read through a map of their columns."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.errors import Fault, RecordError, StudyFolderError
from clipdrift.records.bundle import is_bundle, open_bundle
from clipdrift.records.folder import StudyFolder, safe_name
from clipdrift.records.import_map import COSTS, EPOCH1, TEST_IMAGES, ImportMap, is_count
from clipdrift.records.import_source import Source, read_source
from clipdrift.records.import_table import FLAGS, STATES, Row, Table
from clipdrift.records.ranges import ABOVE
from clipdrift.records.readings import EpochReading, Result
from clipdrift.records.schema import RunRecord, read_record
from clipdrift.records.transfer import TransferReading
from clipdrift.records.writing import atomic_write
from clipdrift.spec import content_hash

UNSTATED = "unstated"
TIMING = "timing."
WRITERS = 16


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote, and what it left out."""

    folder: Path
    n_rows: int
    n_records: int
    extra_signals: tuple[str, ...]
    ignored_columns: tuple[str, ...]
    constant_columns: tuple[str, ...]
    warnings: tuple[str, ...]


def import_runs(source: str | Path, map_path: str | Path | None, out: str | Path) -> ImportSummary:
    """Write one record per run of a table, or of a folder of JSON files, to `out`/runs.

    The map names the field of each column (`columns`), the unit of accuracies where it is not the
    fraction (`units`), values that hold for all rows (`constants`) and `reference_methods`. Counts
    of images and classes (`test_n_images`, `transfer.<name>.n_images`, `.n_classes`) give
    accuracies their error from images, and take away retention where the baseline is at chance.
    Columns not in the map are kept as `extra.<column>` if they are numeric and not the same in all
    rows, else left out; but `epoch1_<signal>` is read after epoch 1, and `status` or `diverged` is
    the state of the run: what diverged or failed is listed and in no mean. Empty, NaN and infinite
    cells are null with the reason in the record. Importing the same files again changes nothing.

    A bundle (`clipdrift.bundle`) is opened: the study as it was, every file held by its hash.
    Of JSON files, each a run, a column is the dotted path of a value, and what the map does not
    name is left out. Results of peft's method_comparison need no map. A map with `clip_benchmark`
    names the runs among the models of a CSV or of JSON files of CLIP_benchmark.

    Args:
        source: comma-separated UTF-8 text, with a header in row 1; a JSON file or a folder of
            them; a bundle.
        map_path: YAML; None where clipdrift knows what wrote the files.
        out: new or empty folder, or the result of the same import.

    Raises:
        RecordError: with every fault of map, table or bundle, before anything is written.
        StudyFolderError: if `out` holds other runs or cannot be written.
    """
    path, out = Path(source), Path(out)
    if is_bundle(path):
        return _opened(path, map_path, out)
    read = read_source(path, None if map_path is None else Path(map_path))
    cells, mapping = Table(path, read.header, read.lines, read.mapping), read.mapping
    rows, extras = cells.rows()
    records, warnings = _records(rows, read)
    _write(records, StudyFolder(out))
    if "backbone" not in (*mapping.columns.values(), *mapping.constants):
        warnings.append(f"no column for backbone: all runs are taken as of one, {UNSTATED!r}")
    left = [name for name in read.header if name not in (*cells.columns, *extras)]
    constant = tuple(filter(cells.numeric, left))
    return ImportSummary(
        folder=out,
        n_rows=len(rows),
        n_records=len(records),
        extra_signals=tuple(extras),
        ignored_columns=tuple(name for name in left if name not in constant),
        constant_columns=constant,
        warnings=(*read.warnings, *warnings),
    )


def _opened(path: Path, map_path: str | Path | None, out: Path) -> ImportSummary:
    if map_path is not None:
        step = "Leave it out: a bundle holds records"
        raise RecordError(Fault("--map", "no map for a bundle", str(map_path), step))
    open_bundle(path, out)
    n = len(StudyFolder(out).records()[0])
    return ImportSummary(out, n, n, (), (), (), ())


def _records(rows: list[Row], read: Source) -> tuple[list[RunRecord], list[str]]:
    """One record per distinct row; rows that repeat another one whole are said, not counted."""
    records: dict[str, RunRecord] = {}
    first: dict[str, str] = {}
    warnings = []
    for row, origin in zip(rows, read.origins, strict=True):
        record = _record(row, origin, read.study, read.mapping)
        if record.run_id in records:
            text = f"{row.place} repeats {first[record.run_id]}: counted once"
            warnings.append(text)
            records[record.run_id].warnings.append(text)
            continue
        records[record.run_id], first[record.run_id] = record, row.place
    return list(records.values()), warnings


def _record(row: Row, origin: dict[str, Any], study: str, mapping: ImportMap) -> RunRecord:
    keys = row.keys
    method = keys["method"]
    role = keys.get("role", "reference" if method in mapping.reference_methods else "matched")
    rate, seed = float(keys["lr"]), int(float(keys["seed"]))
    backbone = keys.get("backbone", UNSTATED)
    values = {field: cell.value for field, cell in row.cells.items()}
    state = "diverged" if FLAGS[keys.get("diverged", "").lower()] else None
    state = state or STATES[keys.get("status", "finished").lower()]
    told = [] if state == "finished" else [state]
    identity = content_hash([backbone, keys["target"], method, role, rate, seed, values, *told])
    name = "-".join([safe_name(keys["target"]), safe_name(method), f"lr{rate!r}", f"seed{seed}"])
    final = {f: v for f, v in values.items() if not f.startswith((EPOCH1, TIMING))}
    early = {
        field.removeprefix(EPOCH1): value
        for field, value in values.items()
        if field.startswith(EPOCH1)
    }
    history = [EpochReading(epoch=1, step=0, **_reading(early))] if early else []
    return RunRecord(
        run_id=f"{name}-{identity[:8]}",
        identity=identity,
        status=state,
        reason=f"{state}, says the imported table" if told else None,
        study=study,
        backbone=backbone,
        target=keys["target"],
        method=method,
        role="reference" if role == "reference" else "matched",
        learning_rate=rate,
        seed=seed,
        history=history,
        result=Result(**_reading(final)),
        undefined={
            **mapping.reasons,
            **{field: cell.reason for field, cell in row.cells.items() if cell.reason},
        },
        timing={f.removeprefix(TIMING): v for f, v in values.items() if f.startswith(TIMING)},
        provenance={"imported": origin},
    )


def _reading(values: Mapping[str, float | None]) -> dict[str, Any]:
    """Numbers by dotted field as the parts of a `Reading`; a bare signal is a drift."""
    out: dict[str, Any] = defaultdict(dict)
    for field, value in values.items():
        group, _, rest = field.partition(".")
        if value is not None and is_count(field):
            value = int(value)
        if group == "transfer":
            name, _, part = rest.rpartition(".")
            out["transfer"].setdefault(name, {})[part] = value
        elif group in ("drift", "levels", "extra") and rest:
            out[group][rest] = value
        elif field in ("val_accuracy", "test_accuracy", TEST_IMAGES, *COSTS):
            out[field] = value
        else:
            out["drift"][field] = value
    if "transfer" in out:
        out["transfer"] = {name: _transfer(parts) for name, parts in out["transfer"].items()}
    return dict(out)


def _transfer(parts: Mapping[str, float | None]) -> TransferReading:
    """A transfer reading; retention and difference follow where accuracy and baseline are given."""
    accuracy, baseline = parts.get("accuracy"), parts.get("baseline_accuracy")
    derived = {}
    kept = 100 * accuracy / baseline if accuracy is not None and baseline else math.nan
    # A baseline like 1e-277 is above zero, and what is kept of it is no number that a run can have.
    if accuracy is not None and baseline and ABOVE.holds(kept):
        derived = {
            "retention_pct": kept,
            "delta_accuracy_pp": 100 * (accuracy - baseline),
        }
    return TransferReading.model_validate({"accuracy": None, **derived, **parts})


def _write(records: list[RunRecord], folder: StudyFolder) -> None:
    folder.create()
    plan = {record.run_id: record.identity for record in records}
    others = _names(folder) - plan.keys()
    study = folder.spec_path.exists()
    if study or others:
        got = "the runs of a study" if study else f"{len(others)} other runs"
        step = "Choose another --out; studies are kept apart"
        raise StudyFolderError(Fault(str(folder.path), "a new or empty folder", got, step))
    folder.write_run_ids(plan)  # first: a folder with a part of the rows says so
    # Each write waits for the disk; waiting side by side is several times faster.
    with ThreadPoolExecutor(WRITERS) as pool:
        paths = [folder.record_path(record.run_id) for record in records]
        list(pool.map(atomic_write, paths, (record.to_json() for record in records)))


def refuse_imported(folder: StudyFolder) -> None:
    """A plan of a study would hide the runs of an import.

    Raises:
        StudyFolderError: if the folder holds some.
    """
    for name in () if folder.spec_path.exists() else sorted(_names(folder)):
        with suppress(RecordError):
            if "imported" in read_record(folder.record_path(name)).provenance:
                got, step = "one of imported runs", "Choose another --out; studies are kept apart"
                raise StudyFolderError(Fault(str(folder.path), "a study's folder", got, step))


def _names(folder: StudyFolder) -> set[str]:
    """Runs of the folder: those of its plan, or all with a record."""
    try:
        planned = folder.planned()
    except RecordError:  # damaged: written anew
        planned = None
    there = folder.runs_path.glob("*/record.json")
    return {path.parent.name for path in there} if planned is None else set(planned)
