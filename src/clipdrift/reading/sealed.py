"""Tensors and facts in one safetensors file with a checksum over all of it.

safetensors checks the shape of a file and not its content: a flipped bit in a weight goes unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipdrift.records import atomic_write
from clipdrift.spec import canonical_json

FACTS, SEAL = "facts", "sha256"


def save_sealed(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors with facts that JSON can hold, whole or not at all.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = canonical_json(dict(facts))
    atomic_write(path, save(on_cpu, metadata={FACTS: text, SEAL: _seal(on_cpu, text)}))


def load_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts as they were written; None if the file is missing, torn or altered."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata[SEAL] != _seal(tensors, metadata[FACTS]):
            return None
        return tensors, json.loads(metadata[FACTS])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None


def _seal(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
