"""An analysis as files: JSON with its schema, and a CSV table per list."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from clipdrift.analysis.rows import Row, list_schema, object_schema, row_schema, said
from clipdrift.analysis.summary import (
    LISTS,
    SCHEMA_VERSION,
    Origin,
    Settings,
    analyze_folder,
    row_keys,
)
from clipdrift.records import StudyFolder, atomic_write

# A spreadsheet runs a cell that starts with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@")


def write_analysis(folder: StudyFolder) -> dict[str, Any]:
    """Analyse a study folder; write `analysis.json` and `tables/<key>.csv`.

    Raises:
        RecordError: if no record can be used; the faults of the unusable ones are named.
        StudyFolderError: if the folder does not exist or cannot be written.
    """
    result = analyze_folder(folder)
    for key in row_keys():
        atomic_write(folder.tables_path / f"{key}.csv", to_csv(key, result[key]))
    atomic_write(folder.analysis_path, to_json(result))
    return result


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of an analysis.

    >>> list(schema()["properties"])[:4]
    ['schema_version', 'generated_from', 'settings', 'warnings']
    """
    heads = {row.table: row_schema(row) for row in (Origin, Settings)}
    lists = {row.table: list_schema(row) for row in LISTS}
    properties = {"schema_version": {"const": SCHEMA_VERSION}, **heads, **lists}
    return object_schema(properties) | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clipdrift analysis",
        "description": "Statistics of a study, one list of flat rows per question. Undefined is "
        "null with a reason. Metric names are the fields of a run record. Accuracies are "
        "fractions, retention is in percent.",
    }


def to_json(result: Mapping[str, Any]) -> str:
    """An analysis as JSON text, one row per line, so that two of them can be compared by `diff`."""
    parts = []
    for key, value in result.items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(row, allow_nan=False) for row in value)
            text = f"[\n  {lines}\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def to_csv(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one key as CSV: lists joined by spaces, null empty, text never a formula.

    >>> print(to_csv("probe_sensitivity", [{"run_id": "=1+1", "cv": -0.5}]).splitlines()[1])
    '=1+1,,,,,,-0.5,,
    """
    return csv_of(next(row for row in LISTS if row.table == key), rows)


def csv_of(kind: type[Row], rows: Sequence[Mapping[str, Any]]) -> str:
    """As `to_csv`, of rows of any kind."""
    columns = list(said(kind))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def csv_cell(value: Any) -> Any:
    """What stands in a cell of a CSV file: lists joined by spaces, text never a formula."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        return value
    # Control characters break rows, and spreadsheets skip some of them before a formula.
    if not value.isprintable():
        value = "".join(char if char.isprintable() else " " for char in value)
    text = value.strip()
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
