"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_only import forbid_other_machines
from small_open_clip import write_models
from synthetic_records import synthetic_records

from clipdrift.records import RunRecord

collect_ignore = ["open_clip_program.py"]
"""A program of another environment: no doctest of it can be imported here."""

# Read when the hub's library is first imported: no test asks the internet, not even by mistake.
os.environ["HF_HUB_OFFLINE"] = "1"
forbid_other_machines()


@pytest.fixture
def make_records() -> Callable[..., list[RunRecord]]:
    """Builder of made-up records in memory; see `synthetic_records` for its arguments."""
    return synthetic_records


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this call of pytest, the same one in each of its processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def open_clip_models(session_folder: Path) -> Path:
    """Folders of small models that open_clip wrote; see `small_open_clip`."""
    return write_models(session_folder / "open-clip-models")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For numbers that are compared to the last bit: sums in another order are other numbers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Weights & Biases writes below `tmp_path` only; it reads its settings once a process."""
    import wandb

    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def mlflow_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MLflow writes files below `tmp_path`."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    return tmp_path


__all__ = [
    "make_records",
    "mlflow_offline",
    "one_thread",
    "open_clip_models",
    "session_folder",
    "wandb_offline",
]
