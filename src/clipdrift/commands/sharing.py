"""What makes studies go from one person to another: bundles, and a gallery of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from clipdrift.records import AnyFolder, StudyFolder
from clipdrift.records.writing import require_free

if TYPE_CHECKING:
    from clipdrift.records.bundle import Manifest
    from clipdrift.report.gallery import Card


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


def gallery(*studies: AnyFolder, out: str | Path) -> list[Card]:
    """Write a static site of studies: a page that filters them, each with its report to open.

    Folders are left as they are: what is shown of a study is made anew from a bundle of it. Records
    are there to download where a licence is stated.

    Args:
        studies: folders or bundles.
        out: new or empty folder, or an earlier gallery.

    Raises:
        RecordError: if a study has no finished run, or a bundle cannot be opened.
        StudyFolderError: if a study is not there, or `out` holds something else.
    """
    from clipdrift.report.gallery import write_gallery

    site = Path(out)
    ours = (site / "studies").is_dir() and (site / "index.html").is_file()
    require_free(site, ours=ours, step="Choose another --out")
    site.mkdir(parents=True, exist_ok=True)
    return write_gallery(_bundled(studies), site)


def _bundled(studies: tuple[AnyFolder, ...]) -> Iterator[tuple[StudyFolder, Manifest]]:
    """Each study opened from a bundle, in a folder that is there until the next is asked for."""
    from clipdrift.records.bundle import SUFFIX, open_bundle, opened, write_bundle

    for study in studies:
        with opened(study) as (folder, manifest), TemporaryDirectory(prefix="clipdrift-") as name:
            if manifest is None:
                path, copy = Path(name) / f"study{SUFFIX}", StudyFolder(Path(name) / "study")
                write_bundle(folder, path)
                folder, manifest = copy, open_bundle(path, copy.path)
            yield folder, manifest
