"""Readings beside the result: names, values against a loop over single images, refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_models import adapted, land_cover, perturb
from small_study import study

from clipdrift.data.corruptions import SEVERITIES, corrupt
from clipdrift.errors import SpecError
from clipdrift.reading.post_hoc import corrupted_accuracy, undefined_extra
from clipdrift.reading.screening import Predictor
from clipdrift.spec import StudySpec, expand
from clipdrift.spec.parts import Corruption


@pytest.mark.parametrize(("kind", "severity"), [("contrast", 5), ("gaussian_noise", 2)])
def test_corrupted_accuracy_is_that_of_images_corrupted_one_by_one(
    kind: str, severity: int
) -> None:
    model = perturb(adapted("full_ft"), 0.02)
    images = land_cover(23).select(np.array([*range(3, 23)]))
    hits = 0
    for place, label in zip(images.index, images.labels, strict=True):
        one = corrupt(images.pixels[[place]], kind, severity, index=np.array([place]))
        with torch.no_grad():
            hits += int(model(torch.from_numpy(one)).argmax()) == label
    for size in (7, 64):
        gauge: Any = SimpleNamespace(predict=Predictor(size), target=SimpleNamespace(test=images))
        assert corrupted_accuracy(gauge, model, kind, severity) == hits / 20


def test_a_study_may_name_exactly_the_corruptions_there_are() -> None:
    assert sorted(get_args(Corruption)) == sorted(SEVERITIES)


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"interpolation": [0.5, 0.5]}, "evaluation.interpolation: expected distinct values"),
        ({"interpolation": [1.5]}, "evaluation.interpolation.0: expected"),
        ({"interpolation": [0.00001]}, "expected at most four decimals, got 1e-05. Round it."),
        ({"corruptions": ["fog"]}, "evaluation.corruptions.0: expected"),
        ({"corruptions": ["jpeg", "jpeg"]}, "evaluation.corruptions: expected distinct values"),
        ({"corruption_severities": [6]}, "evaluation.corruption_severities.0: expected"),
        ({"corruption_severities": []}, "evaluation.corruption_severities: expected"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(evaluation: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        study(evaluation=evaluation)
    assert words in str(refused.value)


def identity(spec: StudySpec) -> str:
    return expand(spec, precision="float32")[0].identity({"land-cover": "a"})


def test_only_what_is_asked_for_is_part_of_the_identity() -> None:
    plain = identity(study())
    assert identity(study(evaluation={"corruption_severities": [1, 5]})) == plain
    asked: list[dict[str, object]] = [
        {"interpolation": [0.5]},
        {"interpolation": [0.25]},
        {"corruptions": ["jpeg"]},
        {"corruptions": ["jpeg"], "corruption_severities": [1]},
    ]
    assert len({plain, *(identity(study(evaluation=e)) for e in asked)}) == 5


def test_the_identity_of_runs_measured_before_the_fields_were_there() -> None:
    """Pinned: a change would measure every existing study anew."""
    assert identity(study()).startswith("4857ddf75c9c65e6")
    assert identity(study(methods=["lora"])).startswith("01a0424021b911e0")
    last = [{"kind": "last_blocks", "blocks": 2}]
    assert identity(study(methods=last)).startswith("12636623c4404e44")
    assert identity(study(methods=["linear_probe"])).startswith("379e4ec6c2e3d6e0")


def test_null_readings_have_a_reason() -> None:
    numbers = {"interpolation.0.transfer.a.retention_pct": None, "x": 1.0}
    found = undefined_extra(numbers, adapted("lora"))
    assert found == {
        "extra.interpolation.0.transfer.a.retention_pct": "the baseline is not above the reference"
    }
