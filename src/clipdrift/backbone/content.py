"""What a model's folder holds, as one number."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clipdrift.formats.source import PICKLED, is_pickled
from clipdrift.paths import MODEL_FILES, file_hash

HASHED = MODEL_FILES - {".jinja"}
"""Configuration, weights, tokenizer: what a model is read from."""


def folder_hash(folder: Path) -> str:
    """SHA-256 over config, weights and tokenizer of a model folder, by name and content."""
    digest, old = hashlib.sha256(), is_pickled(folder)
    for path in sorted(folder.iterdir()):
        if (path.suffix in HASHED and path.is_file()) or (old and path.name == PICKLED):
            digest.update(path.name.encode() + b"\0")
            digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()
