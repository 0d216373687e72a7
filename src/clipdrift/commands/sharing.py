"""What makes studies go from one person to another: bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.records import AnyFolder, StudyFolder

if TYPE_CHECKING:
    from clipdrift.records.bundle import Manifest


def bundle(
    folder: AnyFolder,
    out: str | Path,
    *,
    title: str | None = None,
    licence: str | None = None,
    citation: str | None = None,
    weights: bool = False,
    images: bool = False,
) -> Manifest:
    """Write what the analysis of a study reads into one file, the same bytes for the same study.

    Records, study file, plan and tables of single readings, each with its hash, and a README with
    the head of a dataset card. `import_runs` opens it.

    Args:
        folder: a study; what it said of itself as a bundle is kept where it was opened from one.
        out: a file whose name ends in .tar.xz.
        title: default the name of the study.
        licence: its SPDX id, such as CC-BY-4.0.
        citation: how to cite it, as text.
        weights: with the weights of every run.
        images: with the pictures beside the records.

    Raises:
        RecordError: if a record cannot be used.
        StudyFolderError: if the folder is not there, or `out` cannot be written.
    """
    from clipdrift.records.bundle import write_bundle

    return write_bundle(
        StudyFolder.at(folder),
        Path(out),
        title=title,
        licence=licence,
        citation=citation,
        weights=weights,
        images=images,
    )
