"""Write the report of a study folder: the page, figures for papers, LaTeX tables."""

from __future__ import annotations

from pathlib import Path

from clipdrift.analysis.files import write_analysis
from clipdrift.errors import RecordError
from clipdrift.records import AnyFolder, StudyFolder, atomic_write
from clipdrift.report.latex import latex_tables
from clipdrift.report.packed import packed
from clipdrift.report.page import render
from clipdrift.report.read import read_study
from clipdrift.report.source import Study
from clipdrift.report.static import static_figures


def write_report(folder: AnyFolder, *, pictures: bool = False) -> Path:
    """Write `report.html`, `figures/*.png|pdf` and `tables/*.tex` from records and analysis.

    Analyses the study first where its `analysis.json` is missing, damaged or of other records.

    Args:
        pictures: show images that were lost whatever their licence; default: where it lets anyone
            pass them on.

    Returns:
        Path of the page. It needs no other file and no network.

    Raises:
        RecordError: if no record can be used.
        StudyFolderError: if the folder does not exist or cannot be written.
    """
    folder = StudyFolder.at(folder)
    study = _analysed(folder, pictures)
    for name, text in latex_tables(study).items():
        atomic_write(folder.tables_path / name, text)
    for name, data in static_figures(study):
        atomic_write(folder.figures_path / name, data)
    # The page comes last: where it exists, everything beside it does.
    atomic_write(folder.report_path, packed(render(study)))
    return folder.report_path


def _analysed(folder: StudyFolder, pictures: bool) -> Study:
    try:
        return read_study(folder, pictures=pictures)
    except RecordError:
        write_analysis(folder)
        return read_study(folder, pictures=pictures)
