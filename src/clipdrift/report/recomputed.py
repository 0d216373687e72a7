"""Compute every number of a report again from the records, and name those that differ."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clipdrift.analysis.files import to_csv
from clipdrift.analysis.questions.caveats import Caveat
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.analysis.summary import analyze_folder, row_keys
from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records import StudyFolder
from clipdrift.report.latex import latex_tables
from clipdrift.report.metrics import metric
from clipdrift.report.page import render
from clipdrift.report.page_reader import Item, Page, read_page
from clipdrift.report.printed import COUNT, MEAN, MEAN_SD, VALUE, RunIndex, mean_sd_text
from clipdrift.report.source import Study

# Another machine may sum in another order; what is printed has at most seven digits.
TOLERANCE = 1e-5
NOTHING = "nothing"
NUDGES = (0.0, 1e-12, -1e-12)
"""Of a mean: 8.75 is 8.8 or 8.7 by the last bit of a sum, and that hangs on its order."""


@dataclass(frozen=True)
class Difference:
    """A number that the records do not give.

    number: what it is, such as "test_accuracy, mean_sd" or "text".
    place: where it stands.
    ours: computed again from the records.
    theirs: as it stands in the file.
    """

    number: str
    place: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.place}: {self.number}: expected {self.ours}, got {self.theirs}"


def audit_report(folder: StudyFolder) -> list[Difference]:
    """Everything in the report of a folder that its records do not give.

    Means, SDs and counts are computed from the records by the runs that the page itself names.
    Then analysis, page and tables are made again and compared with the files, text by text and
    point by point. Nothing is written.

    Returns:
        One entry per number, text or point that differs, per record that cannot be used, and one
        where planned runs have no record; empty if all agree and the study is whole.

    Raises:
        RecordError: if there is no report, or no record can be used.
        StudyFolderError: if the folder does not exist.
    """
    try:
        page = read_file(folder.report_path).decode(errors="replace")
    except OSError as error:
        got = "nothing there" if isinstance(error, FileNotFoundError) else str(error.strerror)
        step = f"Run: clipdrift report {shlex.quote(str(folder.path))}"
        raise RecordError(Fault(str(folder.report_path), "the study's report", got, step)) from None
    stored = _stored_analysis(folder)
    settings = stored.get("settings") if isinstance(stored, dict) else None
    preset = settings.get("preset") if isinstance(settings, dict) else None
    analysis = analyze_folder(folder, published=preset)
    records, faults = folder.records()
    theirs = read_page(page)
    pictures = isinstance(theirs.data, dict) and theirs.data.get("pictures") is True
    study = Study(folder, records, analysis, folder.read_spec(), pictures)
    found = [
        *_incomplete(study, faults),
        *_from_records(study, theirs),
        *_texts(read_page(render(study)), theirs),
        *_numbers("analysis.json", analysis, stored),
        *_table_files(study),
    ]
    return list({difference.place: difference for difference in reversed(found)}.values())[::-1]


def _incomplete(study: Study, faults: Sequence[Fault]) -> Iterator[Difference]:
    """Planned runs without a record, and records that cannot be used."""
    for row in study.rows(Caveat, kind="runs_to_do"):
        yield Difference("runs", str(study.folder.plan_path), "a record of each", row.detail)
    for fault in faults:
        yield Difference("record", fault.where, fault.expected, fault.got)


def _stored_analysis(folder: StudyFolder) -> Any:
    try:
        return json.loads(read_file(folder.analysis_path))
    except (OSError, ValueError):
        return None


def _from_records(study: Study, page: Page) -> Iterator[Difference]:
    """Numbers that say of themselves which statistic of which runs they are."""
    index = RunIndex(page.run_ids)
    runs = study.runs.set_index("run_id")
    for item in page.items.values():
        name, stat = item.given.get("data-metric", ""), item.given.get("data-stat", "")
        if stat not in (MEAN_SD, MEAN, VALUE, COUNT):
            continue
        try:
            ids = index.decode(item.given.get("data-runs", ""))
            ours = [_again(runs, ids, name, stat, nudge) for nudge in NUDGES]
        except (KeyError, ValueError) as error:
            ours = [f"runs and a metric of the records ({error})"]
        unit = metric(name).unit if name else ""
        if item.text.removesuffix(unit).strip() not in ours:
            yield Difference(f"{name}, {stat}".removeprefix(", "), item.label, ours[0], item.text)


def _again(runs: Any, ids: list[str], name: str, stat: str, nudge: float) -> str:
    """A statistic as text, from the records alone; SD with ddof 1."""
    if not name:
        return str(len(ids))
    values = runs.loc[ids, name].to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    if stat == COUNT:
        return str(values.size)
    if not values.size:
        return UNDEFINED
    mean = float(values.mean()) * (1 + nudge)
    if stat == MEAN_SD and values.size > 1:
        return mean_sd_text(name, mean, float(values.std(ddof=1)))
    return metric(name).number(mean)


def _texts(ours: Page, theirs: Page) -> Iterator[Difference]:
    for place in dict.fromkeys([*ours.items, *theirs.items]):
        mine, other = ours.items.get(place), theirs.items.get(place)
        label = (mine or other or Item(place, place, {})).label
        if mine is None or other is None:
            yield Difference("text", label, _text(mine), _text(other))
            continue
        if mine.text != other.text:
            yield Difference("text", label, mine.text, other.text)
        for name in dict.fromkeys([*mine.given, *other.given]):
            a, b = mine.given.get(name), other.given.get(name)
            if a != b and not _close(a, b):
                yield Difference(name, f"{label}, {name}", a or NOTHING, b or NOTHING)
    yield from _numbers("page data", ours.data, theirs.data)


def _text(item: Item | None) -> str:
    return NOTHING if item is None else item.text


def _numbers(place: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    """Leaves of two trees of plain JSON that differ."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys([*ours, *theirs]):
            yield from _numbers(f"{place}, {key}", ours.get(key), theirs.get(key))
    elif isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip(ours, theirs, strict=False))
        entries: Iterator[Difference] = (
            found for i, pair in pairs for found in _numbers(f"{place} [{i}]", *pair)
        )
        if len(ours) != len(theirs):
            yield Difference("length", place, *(f"{len(of)} entries" for of in (ours, theirs)))
            entries = islice(entries, 1)  # those after it stand at other places
        yield from entries
    elif ours != theirs and not _close(ours, theirs):
        yield Difference("value", place, _short(ours), _short(theirs))


def _close(ours: object, theirs: object) -> bool:
    try:
        a, b = float(ours), float(theirs)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)


def _short(value: object) -> str:
    text = NOTHING if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _table_files(study: Study) -> Iterator[Difference]:
    """The tables for papers and spreadsheets, line by line."""
    folder = study.folder.tables_path
    for key in row_keys():
        ours = _rows(to_csv(key, study.analysis[key]))
        yield from _numbers(f"tables/{key}.csv", ours, _rows(_content(folder / f"{key}.csv")))
    for name, text in latex_tables(study).items():
        theirs = _content(folder / name).splitlines()
        yield from _numbers(f"tables/{name}", text.splitlines(), theirs)


def _content(path: Path) -> str:
    try:
        return read_file(path).decode(errors="replace")
    except OSError:
        return ""


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))
