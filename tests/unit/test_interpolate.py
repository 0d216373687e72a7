"""Interpolated weights against a plain CLIP that is loaded with the formula's own tensors."""

from __future__ import annotations

import pytest
import torch
from small_models import METHODS, adapted, mini_clip, perturb, pixels
from torch import Tensor

from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.interpolate import interpolated, of_path, starts
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import FullFtSpec, LoraSpec, PeftSpec

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


@pytest.mark.slow
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


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_factors_of_lora_lie_between_each_by_itself(alpha: float) -> None:
    """W_0 + (alpha_lora / r) a B ((1 - a) A_0 + a A), by hand; the projection straight."""
    fresh = adapted("lora")
    start = starts(fresh)
    model = perturb(fresh)
    update = {}
    for name, factor in model.trained().items():
        if ".lora_B." in name:
            a_name = name.replace(".lora_B.", ".lora_A.")
            first, last = start[a_name].double(), model.trained()[a_name].detach().double()
            between = (1 - alpha) * first + alpha * last
            weight = name.removeprefix("encoder.tower.").partition(".lora_B.")[0] + ".weight"
            update[weight] = 16 / 8 * alpha * factor.detach().double() @ between
    assert len(update) == 12
    plain = mini_clip().encoder()
    with torch.no_grad():
        for name, added in update.items():
            parameter = plain.tower.get_parameter(name)
            parameter.copy_((parameter.double() + added).float())
        plain.projection.weight.lerp_(model.encoder.projection.weight, alpha)
        expected = plain(pixels())
    with interpolated(model, mini_clip(), alpha, of_path("factors", start)):
        found = embeddings(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    straight = plain_at(model, alpha)
    # At the ends the paths meet; between them A lags behind.
    assert torch.allclose(found, straight, rtol=1e-4, atol=2e-5) == (alpha in (0.0, 1.0))


@pytest.mark.parametrize(
    "spec",
    [
        FullFtSpec(kind="full_ft", name="full", head_init="text"),
        LoraSpec(kind="lora", name="lora", head_init="text"),
        PeftSpec(kind="peft", name="ia3", type="ia3", head_init="text"),
    ],
    ids=lambda spec: spec.name,
)
def test_a_head_that_starts_at_the_texts_lies_between_too(spec: MethodBase) -> None:
    """WiSE-FT whole: at 0 the zero-shot classifier of the untouched model, bit by bit."""
    text = mini_clip().text_features([["a red circle"], ["a blue square"], ["a green ring"]])
    model = build(mini_clip(), spec, 3, seed=7, text_features=text)
    start = of_path("with_head", starts(model))
    assert {name: value.shape for name, value in start.items()} == {
        "head.weight": text.shape, "head.bias": (3,),
    }  # fmt: skip
    perturb(model)
    with torch.no_grad():
        head = {k: v.detach().clone() for k, v in model.head.named_parameters()}
        zero_shot = mini_clip().encoder()(pixels()) @ text.T
        adapted_logits = model(pixels())
        for alpha in (0.0, 0.25, 1.0):
            with interpolated(model, mini_clip(), alpha, start) as (there, trained):
                weight = (1 - alpha) * text + alpha * head["weight"]
                torch.testing.assert_close(there.head.weight, weight, rtol=1e-6, atol=1e-6)
                torch.testing.assert_close(there.head.bias, alpha * head["bias"])
                assert torch.equal(there.head.weight, trained["head.weight"])
                logits = there(pixels())
                torch.testing.assert_close(
                    there.encoder(pixels()), plain_at(model_of(spec), alpha), rtol=1e-4, atol=2e-5
                )
            if alpha == 0:
                torch.testing.assert_close(logits, zero_shot, rtol=1e-5, atol=1e-5)
            if alpha == 1:
                torch.testing.assert_close(logits, adapted_logits, rtol=1e-4, atol=1e-4)
        assert all(torch.equal(value, head[k]) for k, value in model.head.named_parameters())


def model_of(spec: MethodBase) -> AdaptedModel:
    """The same adapted encoder again."""
    text = mini_clip().text_features([["a red circle"], ["a blue square"], ["a green ring"]])
    return perturb(build(mini_clip(), spec, 3, seed=7, text_features=text))


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
