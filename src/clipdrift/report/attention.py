"""Attention maps of probe images, written as small PNGs when a run was measured."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from clipdrift.report.study import Study

MAX_IMAGES = 12
MAX_BYTES = 300_000
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class AttentionImage:
    caption: str
    uri: str
    runs: str


def attention_images(study: Study) -> tuple[list[AttentionImage], int]:
    """A handful of the maps in `runs/*/attention`, spread over the runs, and how many are left out.

    A file that is no PNG, or larger than 300 kB, counts as left out.
    """
    found = [
        (record.run_id, sorted((study.folder.run_path(record.run_id) / "attention").glob("*.png")))
        for record in study.usable
    ]
    ordered = [(run_id, path) for run_id, paths in found for path in paths]
    usable = [item for item in _in_turn(found) if _is_small_png(item[1])][:MAX_IMAGES]
    images = [
        AttentionImage(
            f"{path.stem.replace('_', ' ')} · {run_id}",
            f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}",
            study.index.encode([run_id]),
        )
        for run_id, path in usable
    ]
    return images, len(ordered) - len(images)


def _in_turn(found: list[tuple[str, list[Path]]]) -> list[tuple[str, Path]]:
    """The first map of every run, then the second of every run, and so on."""
    most = max((len(paths) for _, paths in found), default=0)
    return [(run_id, paths[i]) for i in range(most) for run_id, paths in found if i < len(paths)]


def _is_small_png(path: Path) -> bool:
    if path.stat().st_size > MAX_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


__all__ = ["AttentionImage", "attention_images"]
