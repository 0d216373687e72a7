"""Attention maps of probe images, written as small PNGs when a run was measured."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clipdrift.analysis.rows import rate_text
from clipdrift.paths import leads_out, read_file
from clipdrift.records import RunRecord
from clipdrift.records.writing import ours
from clipdrift.report.source import Place, Study

MAX_IMAGES = 12
MAX_BYTES = 150_000
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class AttentionImage:
    caption: str
    uri: str
    runs: str


def attention_images(study: Study) -> tuple[list[AttentionImage], int]:
    """A handful of the pictures in `runs/*/attention`, and how many are left out.

    Each target and method has its turn, at its best rate first, so that methods are compared on
    the same images. A file that is no PNG, or larger than 150 kB, counts as left out.
    """
    # A record's id is text of whoever wrote it: it chooses among the folders there are.
    folders = {path.name: path for path in study.folder.runs_path.glob("*")}
    found = [
        (record, ours(folders[record.run_id] / "attention", "*.png"))
        for record in _in_turn(study)
        if record.run_id in folders
    ]
    most = max((len(paths) for _, paths in found), default=0)
    ordered = [(record, paths[i]) for i in range(most) for record, paths in found if i < len(paths)]
    home = study.folder.path
    read = ((r, path, png) for r, path in ordered if (png := small_png(path, home)))
    usable = list(islice(read, MAX_IMAGES))
    position = {record.run_id: i for i, (record, _) in enumerate(found)}
    usable.sort(key=lambda item: (position[item[0].run_id], item[1].name))
    there = sum(len(ours(path / "attention", "*.png")) for path in folders.values())
    images = [
        shown(study, _caption(study, record, path), png, record.run_id)
        for record, path, png in usable
    ]
    return images, there - len(images)


def shown(study: Study, caption: str, png: bytes, run_id: str) -> AttentionImage:
    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return AttentionImage(caption, uri, study.index.encode([run_id]))


def _in_turn(study: Study) -> Iterator[RunRecord]:
    """One run of every target and method: the first seed at the best rate, where one is known."""
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in study.usable:
        key = (record.backbone, record.target, record.method)
        groups.setdefault(key, []).append(record)
    for (*place, method), records in groups.items():
        best = study.best_methods(Place(*place)).get(method)
        rate = None if best is None else best.learning_rate
        yield min(records, key=lambda r: (r.learning_rate != rate, r.learning_rate))


def _caption(study: Study, record: RunRecord, path: Path) -> str:
    backbone = f" · {record.backbone}" if len(study.backbones) > 1 else ""
    where = f"{record.target}{backbone} · {record.method} at {rate_text(record.learning_rate)}"
    return f"{where}, seed {record.seed} · {path.stem.replace('_', ' ')}"


def small_png(path: Path, study_folder: Path) -> bytes | None:
    """The file, if it is one of the study itself."""
    try:
        data = b"" if leads_out(path, study_folder) else read_file(path, MAX_BYTES)
    except OSError:
        return None
    return data if data.startswith(PNG) else None
