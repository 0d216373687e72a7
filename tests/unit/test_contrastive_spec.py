"""The loss and the towers of a method in a study: what may be said, refused, and matched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_study import study

from clipdrift.data.images import Images
from clipdrift.errors import SpecError
from clipdrift.materials import Materials, TargetMaterial
from clipdrift.run.conditions import fingerprints
from clipdrift.spec import RunConfig, content_hash, expand
from clipdrift.spec.audit import audit

FLYP: dict[str, Any] = {"name": "flyp", "kind": "full_ft", "loss": "contrastive", "tower": "both"}
CONTENT = {"backbone": "a", "land-cover": "b", "digits": "c"}


def refusal(*methods: dict[str, Any] | str) -> str:
    with pytest.raises(SpecError) as caught:
        study(methods=list(methods))
    return str(caught.value)


def run_of(method: dict[str, Any] | str) -> RunConfig:
    return expand(study(methods=[method]), precision="float32")[0]


def test_a_batch_of_one_image_has_nothing_to_tell_it_from() -> None:
    alone = {"epochs": 1, "batch_size": 1}
    with pytest.raises(SpecError) as caught:
        study(methods=[FLYP, "full_ft"], schedule=alone)
    assert (
        "schedule.batch_size: expected 2 or more with loss: contrastive (flyp), which compares "
        "images, got 1. Raise it, or choose another loss."
    ) in str(caught.value)
    assert study(methods=["full_ft"], schedule=alone).schedule.batch_size == 1


@pytest.mark.parametrize("tower", ["text", "both"])
@pytest.mark.parametrize("kind", ["full_ft", "bitfit", "lora"])
def test_a_text_tower_needs_a_loss_that_reads_text(kind: str, tower: str) -> None:
    assert (
        "methods.0: expected tower: vision with loss: cross_entropy, which reads no text, got "
        f"{tower}. Set loss: contrastive, or leave tower out."
    ) in refusal({"kind": kind, "tower": tower})
    assert run_of({"kind": kind, "tower": tower, "loss": "contrastive"}).method.tower == tower


@pytest.mark.parametrize("kind", ["adapter", "vpt", "last_blocks"])
def test_a_method_of_the_vision_tower_alone_says_so(kind: str) -> None:
    assert (
        f"expected tower: vision with kind: {kind}, got both. Leave tower out, or choose full_ft, "
        "bitfit, lora or peft."
    ) in refusal({"kind": kind, "tower": "both", "loss": "contrastive"})
    assert run_of({"kind": kind, "loss": "contrastive"}).method.loss == "contrastive"


@pytest.mark.parametrize("kind", ["linear_probe", "lp_ft"])
def test_a_method_that_trains_a_classifier_has_no_contrastive_loss(kind: str) -> None:
    text = refusal({"kind": kind, "loss": "contrastive"})
    assert text == (
        "study:5 methods.0: expected loss: cross_entropy where a classifier trains, got "
        "contrastive. Leave loss out, or choose a method that trains a part of the encoder."
    )


@pytest.mark.parametrize(
    ("key", "value"), [("head", "trained"), ("head_init", "random"), ("head_lr", 1e-3)]
)
def test_a_contrastive_loss_has_no_head(key: str, value: object) -> None:
    assert (
        "expected no head with loss: contrastive, whose classes are read zero-shot, got "
        f"{key}: {value}. Leave {key} out."
    ) in refusal({**FLYP, key: value})
    method = run_of(FLYP).method
    assert (method.head, method.head_init, method.head_lr) == ("frozen", "text", "matched")


def test_penalties_hold_the_vision_tower_and_need_one_that_trains() -> None:
    held = {"penalties": [{"kind": "l2_sp", "weight": 1.0}]}
    assert "none on a method that leaves the vision tower as it is, got l2_sp" in refusal(
        {**FLYP, "tower": "text", **held}
    )
    assert run_of({**FLYP, **held}).method.penalties


def test_it_is_matched_with_methods_that_have_a_head_and_the_audit_says_so() -> None:
    for methods in (["full_ft", FLYP], [FLYP, "lora"]):
        rows = {row.factor: (row.value, row.status) for row in audit(study(methods=methods))}
        told = "flyp: contrastive with class prompts, both adapted, no head"
        assert rows["loss"] == (told, "crossed")
        assert rows["head"] == ("trained", "shared")
        assert rows["head init"] == ("random", "shared")
    assert "loss" not in {row.factor for row in audit(study(methods=["full_ft", "lora"]))}
    assert "methods.1.projection: expected 'trained'" in refusal(
        "full_ft", {**FLYP, "projection": "frozen"}
    )


def test_its_conditions_are_the_prompts_and_not_a_head() -> None:
    images = Images(torch.zeros(4, 2, 2, 3).byte().numpy(), *[torch.arange(4).numpy()] * 2)

    def marks(method: dict[str, Any] | str, prompts: list[list[str]]) -> dict[str, str]:
        target = TargetMaterial("land-cover", prompts, images, images, images, images, "s", (), {})
        backbone: Any = type("Backbone", (), {"sha256": "b"})
        materials = Materials(backbone, {"land-cover": target}, {})
        return fingerprints(run_of(method), materials, {"weight": torch.ones(2)})

    plain, flyp = marks("full_ft", [["a"]]), marks(FLYP, [["a"]])
    assert plain.keys() - flyp.keys() == {"head", "head_init", "head_lr"}
    assert flyp.keys() - plain.keys() == {"prompts"}
    assert {k: v for k, v in flyp.items() if k in plain} == {
        k: v for k, v in plain.items() if k in flyp
    }
    assert marks(FLYP, [["b"]])["prompts"] != flyp["prompts"] == content_hash([["a"]])


def test_what_is_not_asked_for_is_no_part_of_an_identity() -> None:
    for kind in ("full_ft", "lora", "bitfit", "last_blocks"):
        plain = run_of(kind).identity(CONTENT)
        said = {"kind": kind, "loss": "cross_entropy", "tower": "vision"}
        assert run_of(said).identity(CONTENT) == plain
        assert run_of({"kind": kind, "loss": "contrastive"}).identity(CONTENT) != plain
    towers = {run_of({**FLYP, "tower": t}).identity(CONTENT) for t in ("vision", "text", "both")}
    assert len(towers) == 3


def test_the_identity_of_a_run_of_before_is_what_it_was() -> None:
    """As it was computed when methods had neither field."""
    run = run_of("full_ft")
    assert {"loss", "tower"} <= run.model_dump()["method"].keys()
    assert run.identity(CONTENT) == (
        "22756de4fdfa3aaf1e8840930c479cb7099bf7f05cc89595858ea4a9d3a6866b"
    )


def test_a_recorded_configuration_is_read_back_as_it_was() -> None:
    run = run_of(FLYP)
    assert RunConfig.model_validate(run.model_dump(mode="json")) == run
