"""One small study, measured once for all tests and test processes that look at finished runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from in_process import InProcess

from clipdrift.executors.local import LocalExecutor
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.measure import run_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache_dir(session_folder: Path) -> Path:
    return session_folder / "cache"


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands measure in their own process; see `in_process`."""
    monkeypatch.setattr(LocalExecutor, "kept", lambda *_: nullcontext(InProcess()))
    monkeypatch.setattr(
        "clipdrift.executors.local.start", lambda *_: pytest.fail("a worker was started")
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures for papers: these take seconds, and `test_report_files` has them."""
    monkeypatch.setattr("clipdrift.report.write.static_figures", lambda _: [])


@pytest.fixture(scope="session")
def small_spec() -> StudySpec:
    spec = load_spec(ROOT / "studies" / "first-look.yaml")
    probe = {"name": "linear_probe", "kind": "linear_probe", "role": "reference"}
    return StudySpec.model_validate(
        {
            **spec.model_dump(),
            "seeds": [7],
            "transfers": [{"name": "world", "builtin": "world", "n_images": 100}],
            "methods": [
                "full_ft",
                "lora",
                {"kind": "last_blocks", "role": "reference", "learning_rates": [1e-3]},
                {**probe, "learning_rates": [1e-2]},
            ],
            "evaluation": {
                **spec.evaluation.model_dump(),
                "interpolation": [0, 0.5, 1],
                "corruptions": ["contrast", "jpeg"],
                "corruption_severities": [5],
            },
        }
    )


@pytest.fixture(scope="session")
def finished_study(small_spec: StudySpec, cache_dir: Path, session_folder: Path) -> Path:
    """Folder of a finished study of six runs; tests must not change it."""
    out, done = session_folder / "finished", session_folder / "finished.done"
    with FileLock(session_folder / "finished.lock"):
        if not done.exists():
            outcome = run_study(small_spec, out, cache_dir=cache_dir, executor=InProcess())
            assert (outcome.measured, outcome.failed) == (6, {})
            done.touch()
    return out
