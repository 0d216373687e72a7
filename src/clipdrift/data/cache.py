"""Prepared images: decoded, resized and cropped once, then memory-mapped by every process.

An entry is a folder `<key>` with `pixels.npy` and `entry.json`. It is written under another name
and renamed, so it is whole or absent; a lock beside it lets the second process wait for the first.
Whoever opens it holds the pixels to their checksum, once per process.
Labels and class names are not in it: they are read anew, and their change costs no decoding.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from clipdrift.data.decode import Square, formats
from clipdrift.data.decoding import Written, write_pixels
from clipdrift.data.parts import DatasetParts, ImagePart, identity_of
from clipdrift.data.prepared import PreparedPart, require_few_bad, told_bad
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError, Fault, collecting
from clipdrift.paths import read_file
from clipdrift.spec import content_hash
from clipdrift.spec.datasets import DatasetSpec

CACHE_VERSION = 2
"""To be raised when the same source is decoded to other pixels than before."""
ENTRY = "entry.json"
"""In an entry, what it holds; the time of its last change is that of the last use."""
Report = Callable[[str], None]


def default_cache_dir() -> Path:
    """$CLIPDRIFT_CACHE, or ~/.cache/clipdrift.

    Raises:
        DataError: for a user without a home, as in some containers.
    """
    try:
        return Path(os.environ.get("CLIPDRIFT_CACHE") or "~/.cache/clipdrift").expanduser()
    except RuntimeError:
        got = "no HOME, and a user that this system does not know"
        step = "Give --cache or set CLIPDRIFT_CACHE to a folder that can be written"
        raise DataError(Fault("--cache", "a place for prepared images", got, step)) from None


def prepare(
    spec: DatasetSpec,
    square: Square,
    *,
    cache_dir: Path,
    opened: DatasetParts | None = None,
    report: Report | None = None,
) -> dict[str, PreparedPart]:
    """The parts of a dataset as squares of pixels, from the cache or decoded into it.

    Args:
        spec: where the images are; see `open_dataset` for which parts come back.
        square: what images are made into; see `Backbone.square`.
        cache_dir: made where it is missing; safe for several processes.
        opened: what `open_dataset` found, where it was asked before.
        report: called with lines such as "eurosat (train): 4,000 / 8,000 images".

    Returns:
        Parts under "train", "val" and "test", those that are there or were carved.

    Raises:
        DataError: what `open_dataset` raises; more unreadable images in a part than
            `max_bad_images`; no room for the pixels.
    """
    tell = report or (lambda line: None)
    opened = opened or open_dataset(spec)
    for note in opened.notes:
        tell(note)
    prepared: dict[str, PreparedPart] = {}
    faults: list[Fault] = []
    for name, part in opened.parts.items():
        where = f"{spec.name} ({name})"
        with collecting(faults):
            prepared[name] = _prepared(part, square, cache_dir, spec.max_bad_images, where, tell)
    if faults:
        raise DataError(faults)
    return prepared


def _prepared(
    part: ImagePart,
    square: Square,
    cache_dir: Path,
    max_bad: int,
    where: str,
    tell: Report,
) -> PreparedPart:
    key = identity_of(CACHE_VERSION, formats(), part.identity, len(part), *square.said())[:32]
    entry, size = cache_dir / key, square.size
    written = _read_entry(entry, key, len(part), size)
    if written is not None and not _intact(entry, written):
        tell(f"{where}: prepared images do not match their checksum; preparing them anew")
        written = None
    if written is None:
        _require_room(cache_dir, len(part) * size * size * 3, where)
        with _locked(cache_dir, key, where, tell):
            written = _read_entry(entry, key, len(part), size)
            if written is None or not _intact(entry, written):
                written = _write_entry(entry, key, part, square, max_bad, where, tell)
    require_few_bad(part, written.bad, max_bad, where)
    mark_used(entry)
    return _mapped(entry, part, written)


def mark_used(entry: Path) -> None:
    """Say that an entry was used now; one of a cache that is only read has no last use."""
    with suppress(OSError):
        os.utime(entry / ENTRY)


def _write_entry(
    entry: Path,
    key: str,
    part: ImagePart,
    square: Square,
    max_bad: int,
    where: str,
    tell: Report,
) -> Written:
    """Decode beside the entry and rename; whoever holds the lock may clear what a crash left."""
    unfinished = entry.with_name(f"{key}.unfinished")
    remove(unfinished)
    unfinished.mkdir()
    total = f"{len(part):,}"
    try:
        written = write_pixels(
            part,
            unfinished / "pixels.npy",
            square=square,
            progress=lambda count: tell(f"{where}: {count:,} / {total} images"),
        )
        require_few_bad(part, written.bad, max_bad, where)
        content = {"key": key, "count": written.count, "pixels_sha256": written.pixels_sha256}
        bad = {str(position): reason for position, reason in written.bad.items()}
        prints = np.ascontiguousarray(written.prints, dtype="<u8").tobytes().hex()
        with (unfinished / ENTRY).open("w", encoding="utf-8") as file:
            about = {"dataset": where, "bad": bad, "prints": prints}
            json.dump(_sealed(content | about), file)
            file.flush()
            os.fsync(file.fileno())
        remove(entry)
        unfinished.rename(entry)
    except OSError as error:
        step = "Make room, or set CLIPDRIFT_CACHE to another folder"
        fault = Fault(f"{where}, cache", "a folder to write to", str(error), step)
        raise DataError(fault) from error
    finally:
        remove(unfinished)
    return written


def _read_entry(entry: Path, key: str, count: int, size: int) -> Written | None:
    """What an entry holds; None where it is absent, torn, or not what its name says."""
    try:
        content = json.loads(read_file(entry / ENTRY))
        bad = {int(position): str(reason) for position, reason in content["bad"].items()}
        sealed = content == _sealed(content)
        prints = np.frombuffer(bytes.fromhex(content["prints"]), dtype="<u8").reshape(-1, 3)
        written = Written(int(content["count"]), str(content["pixels_sha256"]), bad, prints)
        # Mapping fails where the file is shorter than its header says; unlike np.load, this reads
        # plain arrays only, no archives.
        pixels = np.lib.format.open_memmap(entry / "pixels.npy", mode="r")
    except Exception:  # NumPy's parser of headers raises nearly every kind on a damaged one
        return None
    fits = (
        sealed
        and content["key"] == key
        and written.count + len(bad) == count
        and set(bad) <= set(range(count))
        and pixels.shape == (written.count, size, size, 3)
        and pixels.dtype == np.uint8
        and len(prints) == written.count
    )
    return written if fits else None


def _sealed(content: dict[str, object]) -> dict[str, object]:
    """The description of an entry with a checksum over it: its bad images decide about labels."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return {**rest, "checksum": content_hash(rest)}


def _intact(entry: Path, written: Written) -> bool:
    """Whether the pixels are those that were written: a disk or a hand may have changed them."""
    pixels = np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False)
    return hashlib.sha256(pixels).hexdigest() == written.pixels_sha256


def _mapped(entry: Path, part: ImagePart, written: Written) -> PreparedPart:
    kept = np.ones(len(part), dtype=np.bool_)
    kept[list(written.bad)] = False
    labels = part.labels[kept]
    digest = hashlib.sha256(written.pixels_sha256.encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(json.dumps(part.class_names).encode())
    places = np.flatnonzero(kept).tolist()
    captions = None if part.captions is None else [part.captions[place] for place in places]
    if captions is not None:
        digest.update(json.dumps(captions).encode())
    several = None if part.several is None else part.several[kept]
    if several is not None:
        digest.update(np.ascontiguousarray(several).tobytes())
    return PreparedPart(
        pixels=np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False),
        labels=labels,
        class_names=part.class_names,
        sha256=digest.hexdigest(),
        bad_images=told_bad(part, written.bad),
        names=[part.names[place] for place in places],
        prints=written.prints,
        captions=captions,
        several=several,
    )


def _require_room(cache_dir: Path, n_bytes: int, where: str) -> None:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_dir).free
    except OSError as error:
        raise DataError(
            Fault("cache folder", "a folder to write to", str(error), "Set CLIPDRIFT_CACHE")
        ) from error
    if free < n_bytes:
        raise DataError(
            Fault(
                where,
                f"{n_bytes / 1e9:.1f} GB free in the cache folder {cache_dir}",
                f"{free / 1e9:.1f} GB",
                "Make room, or set CLIPDRIFT_CACHE to a folder on another disk",
            )
        )


@contextmanager
def _locked(cache_dir: Path, key: str, where: str, tell: Report) -> Iterator[None]:
    """One process per key; the lock goes with the process, so a crash leaves nothing held."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache_dir / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"{where}: waiting for another process that prepares these images")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove(path: Path) -> None:
    """A folder with all that is in it, or a file; a link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
