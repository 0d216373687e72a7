"""Pictures of images that were lost, where the licence of their set lets them be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from clipdrift.analysis.questions.lost_images import LostImage
from clipdrift.records.lost_images import PICTURES
from clipdrift.records.writing import ours
from clipdrift.report.attention import AttentionImage, shown, small_png
from clipdrift.report.source import Study

MAX_IMAGES = 24


def lost_pictures(study: Study, found: Sequence[LostImage]) -> tuple[list[AttentionImage], int]:
    """Pictures of some rows, and how many more may be shown or were asked for.

    Each target and method has its turn.
    """
    turns: Counter[tuple[str, str, str]] = Counter()
    ranked: list[tuple[int, LostImage]] = []
    for row in found:
        if row.reason is None or study.pictures:
            turns[key := (row.backbone, row.target, row.method)] += 1
            ranked.append((turns[key], row))
    in_turn = [row for _, row in sorted(ranked, key=lambda pair: pair[0])]
    pictures = list(islice(_pictures(study, in_turn), MAX_IMAGES))
    return pictures, len(in_turn) - len(pictures)


def _pictures(study: Study, found: Sequence[LostImage]) -> Iterator[AttentionImage]:
    # A record's id is text of whoever wrote it: it chooses among the folders there are.
    folders = {path.name: path for path in study.folder.runs_path.glob("*")}
    for row in found:
        if row.run_id not in folders:
            continue
        # So does the name of a set, of which its picture's is made.
        there = {path.name: path for path in ours(folders[row.run_id] / PICTURES, "*.png")}
        path = there.get(row.file)
        png = None if path is None else small_png(path, study.folder.path)
        if png is not None:
            what = f"{row.transfer} {row.image} · {row.class_name}, taken for {row.fell_into}"
            yield shown(study, f"{what} by {row.method} on {row.target}", png, row.run_id)
