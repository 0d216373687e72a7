"""One small study, measured once for all tests that look at finished runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdrift.spec import StudySpec, load_spec
from clipdrift.study import run_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_spec() -> StudySpec:
    spec = load_spec(ROOT / "studies" / "first-look.yaml")
    probe = {"name": "linear_probe", "kind": "linear_probe", "role": "reference"}
    return StudySpec.model_validate(
        {
            **spec.model_dump(),
            "seeds": [7],
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
def finished_study(
    small_spec: StudySpec, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a finished study of six runs; tests must not change it."""
    out = tmp_path_factory.mktemp("finished") / "study"
    outcome = run_study(small_spec, out, cache_dir=cache_dir, workers=2)
    assert (outcome.measured, outcome.failed) == (6, {})
    return out
