"""A few steps of the study on real photographs, where its files lie beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from in_process import InProcess

from clipdrift.records import StudyFolder
from clipdrift.spec import load_spec
from clipdrift.study.measure import run_study

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
NEEDED = ("models/small-clip/model.safetensors", "data/eurosat/train.parquet")


@pytest.mark.shared
def test_a_few_steps_on_real_photographs(tmp_path: Path) -> None:
    missing = [name for name in NEEDED if not (SHARED / name).exists()]
    if missing:
        pytest.skip(f"the development images are not beside the checkout: {', '.join(missing)}")
    spec = load_spec(ROOT / "studies" / "real-small.yaml")
    small = spec.model_copy(
        update={
            "targets": [t for t in spec.targets if t.name == "pets"],
            "transfers": [
                t.model_copy(update={"n_images": 200})
                for t in spec.transfers
                if t.name == "cifar10"
            ],
            "methods": spec.methods[1:],
            "learning_rates": [1e-3],
            "seeds": [7],
            "schedule": spec.schedule.model_copy(update={"max_steps": 3}),
            "evaluation": spec.evaluation.model_copy(update={"epoch_transfer_images": 50}),
        }
    )
    cache = Path(os.environ.get("CLIPDRIFT_CACHE", tmp_path / "cache"))
    outcome = run_study(small, tmp_path / "study", executor=InProcess(), cache_dir=cache)
    assert (outcome.measured, outcome.failed) == (1, {})
    record = StudyFolder(tmp_path / "study").records()[0][0]
    transfer = record.result.transfer["cifar10"]
    # The model's card: 81.6 % of the CIFAR-10 test images, here 200 of them.
    assert transfer.baseline_accuracy == pytest.approx(0.816, abs=0.09)
    assert record.result.drift["weight_drift_rel"] > 0
    assert record.result.test_n_images == 204
