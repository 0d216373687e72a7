"""Models of other libraries as folders in transformers format, made once and kept in the cache."""

from __future__ import annotations

import json
from pathlib import Path

from filelock import FileLock

from clipdrift.backbone.content import folder_hash
from clipdrift.data.cache import ENTRY, default_cache_dir, mark_used, remove
from clipdrift.errors import BackboneError, Fault
from clipdrift.formats.source import Source
from clipdrift.formats.tokens import TOKENIZERS
from clipdrift.formats.write import write_transformers
from clipdrift.paths import file_hash
from clipdrift.spec import content_hash

VERSION = 1
"""To be raised when the same files are made into another model than before."""


def converted(source: Source, where: str) -> Path:
    """A folder with the model of a source, from the cache or made now.

    Args:
        where: what faults call the model.

    Raises:
        BackboneError: if it cannot be read, is no CLIP or SigLIP, or the cache cannot be written.
    """
    model_cfg = source.model_cfg if source.whole else source.described(where)[0]
    beside = [path for name in TOKENIZERS if (path := source.folder / name).is_file()]
    try:
        read = (source.weights, source.whole) if source.whole else (source.weights, *beside)
        hashes = [folder_hash(one) if one.is_dir() else file_hash(one) for one in read]
        said = [VERSION, model_cfg, source.preprocess_cfg, hashes]
        entry = default_cache_dir() / content_hash({"converted": said})[:32]
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{entry.name}.lock")):
            if not _intact(entry):
                _make(source, entry, where)
    except OSError as error:
        step = "Check the file, make room, or set CLIPDRIFT_CACHE to another folder"
        expected, got = "a file to read and a cache to write to", str(error)
        raise BackboneError(Fault(where, expected, got, step)) from None
    mark_used(entry)
    return entry / "model"


def _make(source: Source, entry: Path, where: str) -> None:
    """Beside the entry, then renamed: it is whole or absent."""
    unfinished = entry.with_name(f"{entry.name}.unfinished")
    remove(unfinished)
    try:
        (unfinished / "model").mkdir(parents=True)
        write_transformers(source, unfinished / "model", where)
        about = {"dataset": f"{source.weights.name}, a converted model"}
        about["content"] = folder_hash(unfinished / "model")
        (unfinished / ENTRY).write_text(json.dumps(about), encoding="utf-8")
        remove(entry)
        unfinished.rename(entry)
    finally:
        remove(unfinished)


def _intact(entry: Path) -> bool:
    """Whether the model is the one that was written: a disk or a hand may have changed it."""
    try:
        about = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
        return bool(about["content"] == folder_hash(entry / "model"))
    except (OSError, ValueError, LookupError, TypeError):
        return False
