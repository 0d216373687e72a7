"""Pictures of images that were lost, where the licence of their set lets them be shown."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from clipdrift.analysis.questions.lost_images import LostImage
from clipdrift.records.lost_images import PICTURES
from clipdrift.records.writing import ours
from clipdrift.report.attention import AttentionImage, small_png
from clipdrift.report.source import Study

MAX_IMAGES = 24


def lost_pictures(study: Study, found: Sequence[LostImage]) -> tuple[list[AttentionImage], int]:
    """Pictures of some rows that may be shown or were asked for, and how many more there are."""
    every = list(_pictures(study, found))
    return every[:MAX_IMAGES], len(every[MAX_IMAGES:])


def _pictures(study: Study, found: Sequence[LostImage]) -> Iterator[AttentionImage]:
    # A record's id is text of whoever wrote it: it chooses among the folders there are.
    folders = {path.name: path for path in study.folder.runs_path.glob("*")}
    for row in found:
        if row.run_id not in folders or (row.reason is not None and not study.pictures):
            continue
        # So does the name of a set, of which its picture's is made.
        there = {path.name: path for path in ours(folders[row.run_id] / PICTURES, "*.png")}
        path = there.get(row.file)
        png = None if path is None else small_png(path, study.folder.path)
        if png is not None:
            caption = (
                f"{row.transfer} {row.image} · {row.class_name}, taken for {row.fell_into} by "
                f"{row.method} on {row.target}"
            )
            uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            yield AttentionImage(caption, uri, study.index.encode([row.run_id]))


__all__ = ["lost_pictures"]
