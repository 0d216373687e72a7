"""Readings beside the result: names, values against a loop over single images, refusals."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_models import adapted, land_cover, mini_clip, perturb
from small_study import study

from clipdrift.analysis.statistics import extras
from clipdrift.data.corruptions import SEVERITIES, corrupt
from clipdrift.errors import SpecError
from clipdrift.materials import TargetMaterial, load_materials
from clipdrift.methods.interpolate import starts
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.post_hoc import (
    PostHoc,
    corrupted_accuracy,
    read_post_hoc,
    undefined_extra,
)
from clipdrift.reading.screening import Predictor
from clipdrift.reading.start import model_at_start
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec, expand
from clipdrift.spec.parts import Corruption, interpolation_paths


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
    half: dict[str, object] = {"interpolation": [0.5]}
    assert identity(study(evaluation=half)).startswith("80040977d50c0e02")
    assert identity(study(evaluation=half, methods=["lora"])).startswith("dffc99b04aefe6c2")


PATHS = ["encoder", "with_head", "factors"]


@pytest.mark.parametrize(
    ("method", "paths"),
    [
        ({"kind": "full_ft"}, ["encoder"]),
        ({"kind": "full_ft", "head_init": "text"}, ["encoder", "with_head"]),
        ({"kind": "full_ft", "head_init": "text", "head": "frozen"}, ["encoder"]),
        ({"kind": "full_ft", "loss": "contrastive"}, ["encoder"]),
        ({"kind": "lora"}, ["encoder", "factors"]),
        ({"kind": "lora", "head_init": "text"}, PATHS),
    ],
)
def test_a_method_has_the_paths_that_it_can_have(method: dict[str, str], paths: list[str]) -> None:
    def asked(**evaluation: object) -> StudySpec:
        return study(methods=[method], evaluation=evaluation)

    whole = asked(interpolation=[0.5], interpolation_paths=PATHS)
    assert interpolation_paths(whole.evaluation, whole.methods[0]) == paths
    nothing = asked(interpolation_paths=PATHS)
    assert interpolation_paths(nothing.evaluation, nothing.methods[0]) == []
    assert identity(nothing) == identity(asked())
    encoder = identity(asked(interpolation=[0.5], interpolation_paths=["encoder"]))
    assert (identity(whole) == encoder) == (paths == ["encoder"])


@pytest.fixture(scope="module")
def lora_from_texts(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PostHoc, TargetMaterial]:
    """What is read along all three paths of a LoRA whose head started at the class texts."""
    folder = tmp_path_factory.mktemp("paths")
    spec = study(
        transfers=[{"name": "world", "builtin": "world", "n_images": 100}],
        methods=[{"kind": "lora", "head_init": "text"}],
        splits={"val_per_class": 2, "test_per_class": 3},
        evaluation={"interpolation": [0, 0.5, 1], "interpolation_paths": PATHS},
    )
    materials = load_materials(spec, cache_dir=folder / "cache")
    out = StudyFolder(folder / "out")
    out.create()
    ensure_baselines(spec, materials, out, lambda text: None)
    (config, *_) = expand(spec, precision="float32")
    gauge = Gauge.of_run(config, materials, out)
    model = model_at_start(gauge, config, "cpu")
    start = starts(model)
    perturb(model, 0.1)
    return read_post_hoc(gauge, model, spec.evaluation, start), gauge.target


@pytest.mark.slow
def test_every_path_is_read_under_a_name_of_its_own(
    lora_from_texts: tuple[PostHoc, TargetMaterial],
) -> None:
    found, known = lora_from_texts[0]
    names = [extras.interpolated(f"extra.{name}") for name in found]
    assert Counter(name.path for name in names if name) == dict.fromkeys(extras.PATHS, 3 * 4)
    accuracy = "test_accuracy"
    # At the ends encoder and factors are the same model; the head is the adapted one at 1 only.
    for alpha in (0, 1):
        plain = found[f"interpolation.{alpha}.{accuracy}"]
        assert found[f"interpolation_factors.{alpha}.{accuracy}"] == plain
    assert found[f"interpolation_with_head.1.{accuracy}"] == found[f"interpolation.1.{accuracy}"]
    # Transfer is read without a head; where factors lie between, the encoder is another one.
    for alpha in ("0", "0.5", "1"):
        kept = found[f"interpolation.{alpha}.transfer.world.accuracy"]
        assert found[f"interpolation_with_head.{alpha}.transfer.world.accuracy"] == kept
    assert found["interpolation.0.transfer.world.retention_pct"] == 100
    for name in ("interpolation_with_head.0.5", "interpolation_factors.0.5"):
        assert known[f"extra.{name}.{accuracy}"].accuracy == found[f"{name}.{accuracy}"]


@pytest.mark.slow
def test_with_the_head_alpha_0_is_the_zero_shot_classifier(
    lora_from_texts: tuple[PostHoc, TargetMaterial],
) -> None:
    found, target = lora_from_texts
    images = torch.from_numpy(target.test.take(slice(None)))
    with torch.no_grad():
        texts = mini_clip().text_features(target.prompts)
        predicted = (mini_clip().encoder()(images) @ texts.T).argmax(dim=1).numpy()
    hits = (predicted == target.test.labels).mean()
    assert found.numbers["interpolation_with_head.0.test_accuracy"] == hits


def test_null_readings_have_a_reason() -> None:
    numbers = {"interpolation.0.transfer.a.retention_pct": None, "x": 1.0}
    found = undefined_extra(numbers, adapted("lora"))
    assert found == {
        "extra.interpolation.0.transfer.a.retention_pct": "the baseline is not above the reference"
    }
