"""Interpolated weights against a plain CLIP that is loaded with the formula's own tensors."""

from __future__ import annotations

import pytest
import torch
from small_models import METHODS, adapted, mini_clip, perturb, pixels
from torch import Tensor

from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.interpolate import interpolated
from clipdrift.spec.methods import FullFtSpec, LoraSpec, MethodBase, PeftSpec

SPECS: dict[str, MethodBase] = {
    **METHODS,
    "lora frozen": LoraSpec(kind="lora", name="frozen", projection="frozen"),
    "lora wide": LoraSpec(kind="lora", name="wide", rank=3, alpha=7.5, modules=["fc1", "out_proj"]),
}
each_spec = pytest.mark.parametrize("name", list(SPECS))


def moved(name: str) -> AdaptedModel:
    return perturb(adapted(SPECS[name]))


def embeddings(model: AdaptedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.encoder(pixels())
    return found


def plain_at(model: AdaptedModel, alpha: float) -> Tensor:
    """Embeddings of an unwrapped CLIP whose every weight is (1 - a) theta_0 + a theta_1."""
    plain = mini_clip().encoder()
    with torch.no_grad():
        for name, after in model.vision_state().items():
            weight = plain.tower.get_parameter(name)
            weight.copy_(((1 - alpha) * weight.double() + alpha * after.double()).float())
        after = model.encoder.projection.weight
        weight = plain.projection.weight
        weight.copy_(((1 - alpha) * weight.double() + alpha * after.double()).float())
        found: Tensor = plain(pixels())
    return found


@each_spec
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_between_the_ends_it_is_the_formula(name: str, alpha: float) -> None:
    model = moved(name)
    expected = plain_at(model, alpha)
    with interpolated(model, mini_clip(), alpha):
        found = embeddings(model)
    # Merged in float64 or applied as factors: rounding through six blocks.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    if name != "linear_probe":
        assert not torch.allclose(found, embeddings(model), rtol=1e-2)


@each_spec
def test_the_ends_are_the_baseline_and_the_adapted_model_bit_by_bit(name: str) -> None:
    model = moved(name)
    live = embeddings(model)
    with torch.no_grad():
        untouched = mini_clip().encoder()(pixels())
    with interpolated(model, mini_clip(), 0.0):
        assert torch.equal(embeddings(model), untouched)
    with interpolated(model, mini_clip(), 1.0):
        assert torch.equal(embeddings(model), live)


@each_spec
def test_the_model_comes_back_also_after_an_error(name: str) -> None:
    model = moved(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def fail() -> None:
        with interpolated(model, mini_clip(), 0.5):
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_the_head_stays_adapted_and_the_yielded_tensors_are_the_live_ones() -> None:
    model = moved("lora")
    head = model.head.weight.detach().clone()
    with interpolated(model, mini_clip(), 0.0) as (there, trained):
        assert there is model
        assert torch.equal(model.head.weight, head)
        assert trained.keys() == model.trained().keys()
        assert all(torch.equal(p, trained[k]) for k, p in model.trained().items())
        for layer_name, parameter in model.trained().items():
            if ".lora_B." in layer_name:
                assert not parameter.any()


def test_loras_scaling_is_left_as_configured() -> None:
    model = moved("lora")
    layers = [m for m in model.modules() if hasattr(m, "scaling")]
    assert layers
    with interpolated(model, mini_clip(), 0.5):
        assert {layer.scaling["default"] for layer in layers} == {16 / 8}


@pytest.mark.parametrize(
    "spec",
    [
        FullFtSpec(kind="full_ft", name="full", head="frozen", head_init="text"),
        PeftSpec(kind="peft", name="ia3", type="ia3", head="frozen", head_init="text"),
    ],
    ids=lambda spec: spec.name,
)
def test_a_frozen_head_is_no_part_of_what_is_put_back(spec: MethodBase) -> None:
    text = mini_clip().text_features([["a red circle"], ["a blue square"]])
    model = perturb(build(mini_clip(), spec, 2, seed=7, text_features=text))
    with interpolated(model, mini_clip(), 0.5) as (scored, trained), torch.no_grad():
        assert not any(name.startswith("head") for name in trained)
        assert scored.trained().keys() == trained.keys()
        half = scored.encoder(pixels())
    with torch.no_grad():
        assert not torch.equal(half, model.encoder(pixels()))
        assert not torch.equal(half, mini_clip().encoder()(pixels()))
    assert torch.equal(model.head.weight, mini_clip().logit_scale * text)
