"""CLIP_benchmark's readings, one row a model and dataset, as one row a run.

CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark) says which model read what on which dataset. It
does not say how a model was trained: target, method, rate and seed stand in the map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from clipdrift.errors import Fault, RecordError, brief, did_you_mean
from clipdrift.records.import_map import BenchmarkRuns, ImportMap

NEEDED = ("dataset", "model", "pretrained", "task", "acc1")
CLASSES, RETRIEVAL = "zeroshot_classification", "zeroshot_retrieval"
ACCURACY = "acc1"
EXTRAS = ("image_retrieval_recall@5", "text_retrieval_recall@5", "mean_average_precision")
"""Kept beside: recalls at 5 alone are no mean recall, and a set has one score in a record."""


class Spread(NamedTuple):
    """One line a run, with the name of its model, under a map that names every column."""

    header: list[str]
    lines: list[tuple[str, list[str]]]
    mapping: ImportMap
    warnings: list[str]


Readings = dict[str, dict[str, dict[str, str]]]
"""Model -> dataset -> metric -> number as text."""


def spread(
    path: Path, rows: Sequence[Mapping[str, str]], stated: ImportMap, asked: BenchmarkRuns
) -> Spread:
    """Runs of the models that the map names, each with its accuracies and those of its baseline.

    Raises:
        RecordError: with every fault.
    """
    read, left = _readings(path, rows)
    faults = [
        Fault(f"{path} {model}", f"zero-shot readings of {role}", "none", step)
        for role, names in (
            ("a run", asked),
            ("a baseline", {run["baseline"] for run in asked.values()}),
        )
        for model in names
        if model not in read
        for step in [did_you_mean(model, list(read), f"Models here are {brief(sorted(read))}")]
    ]
    faults += [
        Fault(f"{path} {model}", f"a reading on its target {run['target']!r}", "none", step)
        for model, run in asked.items()
        if model in read and plain(run["target"]) not in read[model]
        for step in [did_you_mean(run["target"], list(read[model]), "Correct the map")]
    ]
    if faults:
        raise RecordError(faults)
    found = {model: _cells(run, read) for model, run in asked.items()}
    header = list(dict.fromkeys(name for cells in found.values() for name in cells))
    others = sorted(set(read) - set(asked) - {r["baseline"] for r in asked.values()})
    warnings = [
        "test_accuracy is zero-shot, by class texts: CLIP_benchmark reads no trained head",
        *([f"models that the map does not name were left out: {brief(others)}"] if others else []),
        *([f"readings left out: {', '.join(left)}"] if left else []),
    ]
    constants = {name: value for name, value in stated.constants.items() if name not in header}
    columns = {name: name for name in header}
    lines = [(model, [cells.get(n, "") for n in header]) for model, cells in found.items()]
    mapping = replace(stated, columns=columns, constants=constants)
    return Spread(header, lines, mapping, warnings)


def plain(dataset: str) -> str:
    """A dataset's name as it can stand in a field: `vtab/pets` is `vtab-pets`."""
    return re.sub(r"[^A-Za-z0-9._@+-]", "-", dataset)


def _readings(path: Path, rows: Sequence[Mapping[str, str]]) -> tuple[Readings, list[str]]:
    """Zero-shot readings in English, and in words what else there is."""
    lacks = [name for name in NEEDED[:4] if not any(name in row for row in rows)]
    if lacks:
        step = "Name the CSV of 'clip_benchmark build', or the folder of its JSON files"
        raise RecordError(Fault(str(path), f"columns {', '.join(NEEDED)}", brief(lacks), step))
    read: Readings = {}
    left: dict[str, int] = {}
    twice = []
    for row in rows:
        kind = row.get("task", "")
        if kind not in (CLASSES, RETRIEVAL) or row.get("language", "") not in ("", "en"):
            what = kind if kind not in (CLASSES, RETRIEVAL) else f"in {row['language']}"
            left[what] = left.get(what, 0) + 1
            continue
        model = f"{row['model']} {row['pretrained']}".strip()
        sets, name = read.setdefault(model, {}), plain(row["dataset"])
        if name in sets:
            step = "Keep one of the two"
            twice.append(Fault(f"{path} {model}", "one reading a set", name, step))
        sets[name] = {key: row.get(key, "") for key in (ACCURACY, *EXTRAS)}
    if twice:
        raise RecordError(twice)
    return read, [f"{n} {what}" for what, n in left.items()]


def _cells(run: Mapping[str, str], read: Readings) -> dict[str, str]:
    """The fields of a run -> text."""
    own, before = read[run["model"]], read[run["baseline"]]
    cells = {name: run[name] for name in ("backbone", "target", "method", "role", "lr", "seed")}
    cells["target"] = plain(run["target"])
    cells["test_accuracy"] = own[cells["target"]][ACCURACY]
    for name, metrics in own.items():
        if name != cells["target"] and metrics[ACCURACY]:
            cells[f"transfer.{name}.accuracy"] = metrics[ACCURACY]
            cells[f"transfer.{name}.baseline_accuracy"] = before.get(name, {}).get(ACCURACY, "")
        cells |= {f"extra.{name}.{key}": metrics[key] for key in EXTRAS if metrics[key]}
    return cells
