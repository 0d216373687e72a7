"""Read what a report is made from, or say what is missing."""

from __future__ import annotations

import json
import shlex
from typing import Any

from clipdrift.analysis.summary import SCHEMA_VERSION, row_keys
from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records import StudyFolder
from clipdrift.report.source import Study
from clipdrift.spec import content_hash


def read_study(folder: StudyFolder, *, pictures: bool = False) -> Study:
    """Records and analysis of a folder.

    Args:
        pictures: as of a `Study`.

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
        analysis: Any = json.loads(read_file(path))
        version = analysis["schema_version"]
        found = analysis["generated_from"]["records_hash"]
        missing = set(row_keys()) - set(analysis)
    except (OSError, ValueError, KeyError, TypeError):
        raise _unusable(path, "the study's analysis", "a damaged file", step) from None
    if version != SCHEMA_VERSION or missing:
        got = f"schema version {version}"
        raise _unusable(path, f"an analysis of schema version {SCHEMA_VERSION}", got, step)
    if found != content_hash(sorted(record.model_dump_json() for record in records)):
        raise _unusable(path, "an analysis of the records in the folder", "one of others", step)
    study = Study(folder, records, analysis, folder.read_spec(), pictures)
    try:
        study.lists  # noqa: B018
    except TypeError:
        raise _unusable(path, "rows as this version writes them", "others", step) from None
    return study


def _unusable(path: Any, expected: str, got: str, step: str) -> RecordError:
    return RecordError(Fault(str(path), expected, got, step))
