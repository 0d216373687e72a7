"""Heads that stay at the class texts, and heads that are probed before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import METHODS, adapted, land_cover, mini_clip, perturb, pixels
from small_study import study
from torch import Tensor

from clipdrift.errors import SpecError
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.run.head_first import probe_head
from clipdrift.spec import expand
from clipdrift.spec.audit import audit
from clipdrift.spec.method_base import MethodBase, asked_of_method
from clipdrift.spec.methods import FullFtSpec, LoraSpec, LpFtSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import Stopped, train

PROMPTS = [[f"a photo of a {name}"] for name in ("red circle", "blue square", "green star")]
FROZEN: dict[str, Any] = {"head": "frozen", "head_init": "text"}
FULL = FullFtSpec(kind="full_ft", name="full", **FROZEN)
LORA = LoraSpec(kind="lora", name="lora", **FROZEN)
each_frozen = pytest.mark.parametrize("spec", [FULL, LORA], ids=lambda spec: spec.name)
OPTIONS: dict[str, Any] = {"seed": 7, "precision": "float32"}


pytestmark = pytest.mark.usefixtures("one_thread")


def at_texts(spec: MethodBase) -> AdaptedModel:
    text = mini_clip().text_features(PROMPTS)
    return build(mini_clip(), spec, len(PROMPTS), seed=7, text_features=text)


def bits(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def fit(model: AdaptedModel, **changes: Any) -> AdaptedModel:
    images = land_cover(22)
    few = images.select((images.labels < model.head.weight.shape[0]).nonzero()[0])
    options = {"schedule": ScheduleSpec(epochs=2, batch_size=4), "learning_rate": 1e-3, **OPTIONS}
    list(train(model, few, head_rate=1e-2, **{**options, **changes}))
    return model


# --- a head that stays at the class texts ---


@each_frozen
def test_a_frozen_head_is_zero_shot_classification_by_transformers(spec: MethodBase) -> None:
    """Logits of the whole CLIP, its temperature included."""
    model, backbone = at_texts(spec), mini_clip()
    tokens = backbone.tokenizer([p for (p,) in PROMPTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = backbone.model(
            pixel_values=model.encoder.normalise(pixels()),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
        ).logits_per_image
        found = model(pixels())
    # Cosines of float32 embeddings, times the logit scale.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert backbone.logit_scale == pytest.approx(float(backbone.model.logit_scale.exp()))
    assert backbone.logit_scale > 1


@each_frozen
def test_a_frozen_head_does_not_train_and_all_else_does(spec: MethodBase) -> None:
    model = at_texts(spec)
    before = bits(model)
    assert not any(name.startswith("head") for name in model.trained())
    (group,) = model.parameter_groups(1e-4, 1e-3)
    assert group["lr"] == 1e-4
    fit(model)
    changed = {n for n, p in bits(model).items() if not torch.equal(p, before[n])}
    assert changed == model.trained().keys()


def test_training_against_the_texts_lowers_the_loss_and_moves_the_encoder() -> None:
    model, images = at_texts(FULL), land_cover(30)
    few = images.select((images.labels < 3).nonzero()[0])

    def loss() -> float:
        with torch.no_grad():
            logits = model.eval()(torch.from_numpy(few.take(slice(None))))
            return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(few.labels)))

    before = loss()
    fit(model, schedule=ScheduleSpec(epochs=6, batch_size=4), learning_rate=3e-4)
    assert loss() < 0.5 * before


@each_frozen
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_frozen_head_is_kept_in_float32(spec: MethodBase, precision: str) -> None:
    """bfloat16 has steps of 1/8 at the logits of CLIP; fast steps cast frozen weights."""
    model = at_texts(spec)
    weight = model.head.weight.clone()
    seen: list[torch.dtype] = []
    model.head.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    model.head.register_forward_hook(lambda head, _, __: seen.append(head.weight.dtype))
    fit(model, precision=precision, schedule=ScheduleSpec(epochs=1, batch_size=4))
    assert set(seen) == {torch.float32}
    assert torch.equal(model.head.weight, weight)


@each_frozen
def test_a_frozen_head_comes_back_and_passes_the_guard(spec: MethodBase, tmp_path: Path) -> None:
    model = perturb(at_texts(spec))
    model.save(tmp_path)
    back = reload(mini_clip(), spec, len(PROMPTS), tmp_path)
    with torch.no_grad():
        assert torch.equal(back(pixels()), model(pixels()))
    assert back.trained().keys() == model.trained().keys()
    assert_adapted(back, mini_clip(), pixels(), trained=model.snapshot())


def faults_of(method: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        study(methods=[method])
    return str(caught.value)


def test_only_texts_can_be_frozen_and_only_where_something_else_trains() -> None:
    random = faults_of({"kind": "lora", "head": "frozen"})
    assert "expected head_init: text with head: frozen, got random" in random
    for kind in ("linear_probe", "lp_ft"):
        assert ".head: expected 'trained', got 'frozen'" in faults_of({"kind": kind, **FROZEN})


def test_a_trained_head_leaves_identities_as_they_were() -> None:
    def identity(**changes: Any) -> str:
        spec = study(methods=[{"kind": "lora", "head_init": "text", **changes}])
        return expand(spec, precision="float32")[0].identity({})

    assert identity() == identity(head="trained") != identity(head="frozen")
    config = expand(study(), precision="float32")[0]
    assert config.model_dump(mode="json")["method"]["head"] == "trained"


# --- LP-FT ---

LP_FT = LpFtSpec(kind="lp_ft", name="lp_ft", probe_epochs=3, probe_lr=1e-2)
LP_LORA = LoraSpec(kind="lora", name="lp_lora", rank=2, probe_epochs=3, probe_lr=1e-2)


@pytest.mark.parametrize(("method", "then", "precision"), [
    (LP_FT, "full_ft", "float32"), (LP_FT, "full_ft", "bfloat16"),
    (LP_LORA, LP_LORA, "float32"),
])  # fmt: skip
def test_the_first_stage_is_a_linear_probe_to_the_last_bit(
    method: MethodBase, then: MethodBase | str, precision: str
) -> None:
    schedule = ScheduleSpec(epochs=9, batch_size=4)
    model, before = adapted(method), bits(adapted(method))
    trains = model.trained().keys()
    done = probe_head(model, land_cover(22), method, schedule=schedule, seed=7, precision=precision)
    assert [(d.epoch, d.step, d.images) for d in done] == [(1, 6, 22), (2, 12, 22), (3, 18, 22)]
    probe = adapted("linear_probe")
    list(
        train(
            probe, land_cover(22), schedule=ScheduleSpec(epochs=3, batch_size=4),
            learning_rate=1e-2, head_rate=1e-2, seed=7, precision=precision,
        )
    )  # fmt: skip
    assert torch.equal(model.head.weight, probe.head.weight)
    assert torch.equal(model.head.bias, probe.head.bias)
    assert not torch.equal(model.head.weight, before["head.weight"])
    encoder = {n: p for n, p in bits(model).items() if n.startswith("encoder.")}
    assert all(torch.equal(p, before[n]) for n, p in encoder.items())
    assert model.trained().keys() == trains
    assert trains == adapted(then).trained().keys()


def test_after_the_probe_it_is_full_fine_tuning_from_that_head() -> None:
    model, other = adapted(LP_FT), adapted("full_ft")
    schedule = ScheduleSpec(epochs=1, batch_size=4)
    probe_head(model, land_cover(22), LP_FT, schedule=schedule, seed=7, precision="float32")
    other.head.load_state_dict(model.head.state_dict())
    for one in (model, other):
        list(train(one, land_cover(22), schedule=schedule, learning_rate=1e-4, head_rate=1e-4,
                   **OPTIONS))  # fmt: skip
    assert all(torch.equal(p, bits(other)[n]) for n, p in bits(model).items())


def test_a_probe_that_is_stopped_leaves_the_encoder_trainable() -> None:
    model = adapted(LP_FT)
    with pytest.raises(Stopped):
        probe_head(
            model, land_cover(22), LP_FT, schedule=ScheduleSpec(), seed=7, precision="float32",
            stop=lambda: True,
        )  # fmt: skip
    assert model.trained().keys() == adapted("full_ft").trained().keys()


def test_the_audit_tells_of_the_probe_as_part_of_the_method() -> None:
    probed = {"probe_epochs": 4, "probe_lr": 3e-3}
    spec = study(methods=["full_ft", {"kind": "lp_ft", **probed}, {"kind": "lora", **probed}])
    rows = {row.factor: (row.value, row.status) for row in audit(spec)}
    told = "4 epochs at 0.003, before the schedule"
    assert rows["probe first"] == (f"lp_ft: {told}; lora: {told}", "crossed")
    assert rows["head"] == ("trained", "shared")
    assert "probe first" not in {row.factor for row in audit(study())}


def test_only_a_head_that_trains_is_probed_and_not_asking_changes_no_identity() -> None:
    for method in ({"kind": "linear_probe"}, {"kind": "full_ft", "loss": "contrastive"}):
        with pytest.raises(SpecError, match="probe_epochs"):
            study(methods=[{**method, "probe_epochs": 2}])
    asked = {"probe_epochs", "probe_lr"}
    assert not asked & asked_of_method(FULL.model_dump()).keys()
    assert asked < asked_of_method(LP_FT.model_dump()).keys()


def test_bias_tuning_trains_every_bias_and_no_other_weight() -> None:
    names = {n for n in adapted(METHODS["bitfit"]).trained() if n.startswith("encoder.tower")}
    every = {f"encoder.tower.{n}" for n, _ in mini_clip().model.vision_model.named_parameters()}
    assert names == {n for n in every if n.endswith(".bias")}
    assert {n.split(".")[-2] for n in names} == {
        *("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        *("layer_norm1", "layer_norm2", "pre_layrnorm", "post_layernorm"),
    }
