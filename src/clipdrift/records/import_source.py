"""Where imported runs come from: a CSV table, or JSON files of which each is a run or a reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from clipdrift.errors import Fault, RecordError, did_you_mean
from clipdrift.paths import file_hash, read_file
from clipdrift.records.folder import safe_name
from clipdrift.records.import_benchmark import spread
from clipdrift.records.import_map import PEFT, ImportMap, read_map
from clipdrift.records.import_table import MAX_BYTES, read_table
from clipdrift.spec import content_hash

MAX_FILES = 10_000


class Source(NamedTuple):
    """A table of text under its map, each line with the place where it stands.

    origins: of each line file, SHA-256 and row, for the record. warnings: what it cannot hold.
    """

    study: str
    header: list[str]
    lines: list[tuple[str, list[str]]]
    origins: list[dict[str, Any]]
    mapping: ImportMap
    warnings: list[str]


class JsonFile(NamedTuple):
    """A file, its hash, and its values by dotted path."""

    name: str
    sha256: str
    values: dict[str, str]


def read_source(path: Path, map_path: Path | None) -> Source:
    """Rows, one a run, under their map; without one, the map that fits what the files hold.

    Raises:
        RecordError: if path or map cannot be read, or there is no map for such files.
    """
    stated = None if map_path is None else read_map(map_path)
    study = safe_name(path.stem)
    if not (path.is_dir() or path.suffix.lower() == ".json"):
        header, lines = read_table(path)
        if stated is None:
            raise RecordError(_no_map(path))
        origin = {"file": path.name, "sha256": file_hash(path)}
        if stated.benchmark is not None:
            rows = [dict(zip(header, line, strict=False)) for line in lines if any(line)]
            return _of_benchmark(path, rows, origin, stated)
        # Row numbers as a spreadsheet shows them: the header is row 1. Blank lines are skipped.
        numbered = [(number, line) for number, line in enumerate(lines, start=2) if any(line)]
        origins = [{**origin, "row": number} for number, _ in numbered]
        placed = [(f"row {number}", line) for number, line in numbered]
        return Source(study, header, placed, origins, stated, [])
    files = _json_files(path)
    if stated is not None and stated.benchmark is not None:
        together = {"file": path.name, "sha256": content_hash([file.sha256 for file in files])}
        rows = [_benchmark_row(file.values) for file in files]
        return _of_benchmark(path, rows, together, stated)
    if stated is None:
        stated = _known_map(path, files)
    header = [column for column in stated.columns if any(column in f.values for f in files)]
    return Source(
        study,
        header,
        [(file.name, [file.values.get(column, "") for column in header]) for file in files],
        [{"file": file.name, "sha256": file.sha256} for file in files],
        _with_paths(stated, header, files, path),
        list(stated.reasons.values()),
    )


def _of_benchmark(
    path: Path, rows: list[dict[str, str]], origin: dict[str, Any], stated: ImportMap
) -> Source:
    found = spread(path, rows, stated, stated.benchmark or {})
    origins = [{**origin, "model": name} for name, _ in found.lines]
    return Source(
        safe_name(path.stem), found.header, found.lines, origins, found.mapping, found.warnings
    )


def _benchmark_row(values: Mapping[str, str]) -> dict[str, str]:
    """A reading as CLIP_benchmark writes it to JSON, with the names of its own CSV."""
    return {name.removeprefix("metrics."): value for name, value in values.items()}


def _json_files(path: Path) -> list[JsonFile]:
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not 0 < len(paths) <= MAX_FILES:
        rule = f"1 to {MAX_FILES:,} JSON files" if paths else "JSON files of runs"
        got = f"{len(paths):,}" if paths else "none"
        raise RecordError(Fault(str(path), rule, got, "Name the folder in which they lie"))
    files, faults, left = [], [], MAX_BYTES
    for one in paths:
        try:
            data = read_file(one, left)
            left -= len(data)
            body = json.loads(data)
            if not isinstance(body, dict):
                raise ValueError("no object")
            values = dict(_flat(body))
            files.append(JsonFile(one.name, sha256(data).hexdigest(), values))
        except OSError as error:
            faults.append(Fault(str(one), "a JSON file", str(error.strerror), "Check the path"))
        except (ValueError, RecursionError):
            faults.append(Fault(str(one), "a JSON object", "other text", "Remove or restore it"))
    if faults:
        raise RecordError(faults)
    return files


def _flat(body: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Single values by dotted path; of a list of objects the last value of each key.

    >>> dict(_flat({"a": {"b": 1}, "log": [{"acc": 0.5}, {"acc": 0.75, "ok": True}]}))
    {'a.b': '1', 'log.acc': '0.75', 'log.ok': 'true'}
    """
    for key, value in body.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list):
            merged = {k: v for entry in value if isinstance(entry, dict) for k, v in entry.items()}
            yield from _flat(merged, f"{name}.")
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield name, "" if value is None else text.strip()


def _known_map(path: Path, files: list[JsonFile]) -> ImportMap:
    """The map of what writes such files.

    Raises:
        RecordError: if none is known, or what they hold does not fit a record.
    """
    if not all("run_info.experiment_name" in file.values for file in files):
        raise RecordError(_no_map(path))
    faults = []
    for file in files:
        scored = [n.removeprefix("train_info.metrics.") for n in file.values if ".metrics." in n]
        if "test accuracy" not in scored and any(name.startswith("test ") for name in scored):
            got = ", ".join(name for name in scored if name.startswith("test "))
            step = "Import the results of MetaMathQA; no other task of peft's comparison has one"
            faults.append(Fault(f"{path} {file.name}", "a result with a test accuracy", got, step))
    if faults:
        raise RecordError(faults)
    stated = any(file.values.get("train_info.metrics.test accuracy") for file in files)
    if not stated:
        got = "none that ended with a test accuracy"
        raise RecordError(Fault(str(path), "results of runs", got, "Name another folder"))
    there = {name for file in files for name in file.values}
    return replace(PEFT, columns={n: f for n, f in PEFT.columns.items() if n in there})


def _with_paths(
    mapping: ImportMap, header: list[str], files: list[JsonFile], path: Path
) -> ImportMap:
    """The map, whose columns are dotted paths that at least one file has.

    Raises:
        RecordError: if one is in none.
    """
    known = sorted({name for file in files for name in file.values})
    faults = [
        Fault(f"{path} columns", "a value in one of the files", f"none at {name!r}", step)
        for name in mapping.columns
        if name not in header
        for step in [did_you_mean(name, known, "Write paths as train_info.status")]
    ]
    if faults:
        raise RecordError(faults)
    return mapping


def _no_map(path: Path) -> Fault:
    rule = "a map of columns (--map), which only results of peft's method_comparison do without"
    step = "Write one; docs/importing.md shows how, also for CLIP_benchmark"
    return Fault(str(path), rule, "none", step)
