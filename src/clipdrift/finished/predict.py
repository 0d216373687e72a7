"""Classes of images that nobody labelled: files, folders, patterns and tables, in batches."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clipdrift.data.beside import below
from clipdrift.data.decode import open_image, suffixes
from clipdrift.data.decoding import decoded
from clipdrift.data.parts import ImagePart, Loaded
from clipdrift.data.tables import parquet_rows
from clipdrift.errors import ClipdriftError, DataError, Fault, first_faults
from clipdrift.finished.classifier import Classifier

BATCH = 64
TABLES = (".parquet", ".pq")
Source = tuple[str, Callable[[], Loaded]]
"""Name of an image, and what opens it."""


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    label, score: of the most likely class, from 0 to 1; None where the image cannot be read, for
    the `reason`. top: the most likely classes with their scores, that one first.
    """

    file: str
    label: str | None
    score: float | None
    top: list[tuple[str, float]]
    reason: str | None = None


def predict(
    model: Classifier, images: Sequence[str | Path], *, top: int = 3, image_column: str = "image"
) -> Iterator[Prediction]:
    """Classify images in their order, as many in memory as one batch holds.

    Args:
        images: files, folders (with all that lies below), patterns such as "photos/**/*.jpg", and
            Parquet files.
        top: classes that are told of each.
        image_column: of a Parquet file: bytes, or a struct with `bytes`, as the Hub writes it.

    Raises:
        DataError: with all that is not there or holds no image, before anything is classified.
    """
    sources = _sources(images, image_column)
    part = ImagePart(
        labels=np.zeros(len(sources), dtype=np.int64),
        names=[name for name, _ in sources],
        class_names=(),
        load=lambda position: sources[position][1](),
        identity="",
    )
    return _classified(model, part, min(top, len(model.classes)))


def _classified(model: Classifier, part: ImagePart, top: int) -> Iterator[Prediction]:
    batch: list[tuple[str, np.ndarray | str]] = []
    for name, result in zip(part.names, decoded(part, model.square), strict=True):
        batch.append((name, result if isinstance(result, str) else result[0]))
        if len(batch) == BATCH:
            yield from _told(model, batch, top)
            batch = []
    yield from _told(model, batch, top)


def _told(
    model: Classifier, batch: list[tuple[str, np.ndarray | str]], top: int
) -> Iterator[Prediction]:
    pixels = [one for _, one in batch if not isinstance(one, str)]
    scores = iter(model(torch.from_numpy(np.stack(pixels))) if pixels else ())
    for name, one in batch:
        if isinstance(one, str):
            yield Prediction(name, None, None, [], one)
            continue
        best, at = next(scores).topk(top)
        classes = [model.classes[i] for i in at.tolist()]
        yield Prediction(
            name, classes[0], float(best[0]), list(zip(classes, best.tolist(), strict=True))
        )


def _sources(images: Sequence[str | Path], image_column: str) -> list[Source]:
    found: list[Source] = []
    faults: list[Fault] = []
    for given in images:
        try:
            own = _of(str(given), image_column)
            found += own
            if not own:
                raise DataError(_nothing(str(given), "none there"))
        except ClipdriftError as error:
            faults += error.faults
    if faults or not found:
        raise DataError(first_faults(faults or [_nothing("images", "none")], "images"))
    return found


def _of(given: str, image_column: str) -> list[Source]:
    path = Path(given).expanduser()
    if path.is_dir():
        return _files(one for one in below(path) if one.suffix.lower() in suffixes())
    if path.suffix.lower() in TABLES and path.is_file():
        rows = parquet_rows(path, image_column, (), where=given, name=given)
        return [(name, partial(rows.load, row)) for row, name in enumerate(rows.names)]
    if path.exists():
        return _files([path])
    if not glob.has_magic(given):
        raise DataError(_nothing(given, "nothing there"))
    files = sorted(map(Path, glob.iglob(str(path), recursive=True)))
    return _files(one for one in files if one.suffix.lower() in suffixes())


def _files(paths: Iterator[Path] | Sequence[Path]) -> list[Source]:
    return [(str(path), partial(open_image, path)) for path in paths]


def _nothing(given: str, got: str) -> Fault:
    expected = "images: files, folders, patterns or Parquet files"
    return Fault(given, expected, got, "Check the path; quote a pattern so that the shell keeps it")
