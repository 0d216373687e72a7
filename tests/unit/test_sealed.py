"""Sealed tensors come back whole or not at all, wherever a bit was changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipdrift.reading.sealed import load_sealed, save_sealed

TENSORS = {
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    "generator": torch.arange(5, dtype=torch.uint8),
    "step": torch.tensor(3.0),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}
FACTS = {"epoch": 2, "seconds": 0.1 + 0.2, "history": [{"loss": None}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_sealed(tmp_path / "deep" / "state.safetensors", TENSORS, FACTS)
    return tmp_path / "deep" / "state.safetensors"


def test_tensors_and_facts_come_back_to_the_last_bit(path: Path) -> None:
    saved = load_sealed(path)
    assert saved is not None
    tensors, facts = saved
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


def test_any_reader_of_safetensors_can_open_it(path: Path) -> None:
    assert torch.equal(load_file(path)["weights"], TENSORS["weights"])


@pytest.mark.slow
def test_every_flipped_byte_is_seen(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        saved = load_sealed(path)
        if saved is not None:  # a space of padding in the header: nothing that is read
            assert saved[1] == FACTS
            assert all(torch.equal(saved[0][name], tensor) for name, tensor in TENSORS.items())
            assert chr(whole[place]) == " ", place


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 12))
def test_a_torn_file_is_seen(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert load_sealed(path) is None


def test_missing_and_unsealed_files_are_none(path: Path, tmp_path: Path) -> None:
    assert load_sealed(tmp_path / "none") is None
    assert load_sealed(tmp_path) is None
    save_file(TENSORS, path)
    assert load_sealed(path) is None
