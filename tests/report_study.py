"""Study folders of made-up records for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clipdrift.analysis.files import write_analysis
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.report.latex import latex_tables
from clipdrift.report.packed import packed
from clipdrift.report.page import render
from clipdrift.report.read import read_study


def study_folder(path: Path, records: Iterable[RunRecord]) -> StudyFolder:
    """A folder of these records with its analysis; the report is for the test to write."""
    folder = StudyFolder(path)
    folder.create()
    for number, record in enumerate(records):
        if Path(record.run_id).name != record.run_id:  # no name of a folder
            record = record.model_copy(update={"run_id": f"run-{number}"})
        atomic_write(folder.record_path(record.run_id), record.to_json())
    write_analysis(folder)
    return folder


def write_page(folder: StudyFolder) -> Path:
    """The page of an analysed study and its LaTeX tables, as an audit reads them: the figures for
    papers take longer than all else, and `test_report_files` looks at them.
    """
    study = read_study(folder)
    for name, text in latex_tables(study).items():
        atomic_write(folder.tables_path / name, text)
    atomic_write(folder.report_path, render(study))
    return folder.report_path


def write_packed_page(folder: StudyFolder) -> Path:
    """The same as `clipdrift report` leaves it: for tests that open it in a browser."""
    atomic_write(write_page(folder), packed(folder.report_path.read_text(encoding="utf-8")))
    return folder.report_path


__all__ = ["study_folder", "write_packed_page", "write_page"]
