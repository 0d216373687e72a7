"""The guard passes every adapted model and catches each way of scoring another one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from small_models import EMBEDDED, METHODS, adapted, land_cover, mini_clip, perturb, pixels
from torch import Tensor

from clipdrift.backbone import ImageEncoder, load_backbone
from clipdrift.errors import AdapterInactiveError
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.methods.guard import assert_adapted, relative
from clipdrift.probes.zero_shot import retention_pct
from clipdrift.reading.baseline import score
from clipdrift.reading.screening import Predictor
from clipdrift.spec.methods import LoraSpec
from clipdrift.spec.parts import BackboneSpec

FROZEN = LoraSpec(kind="lora", name="frozen", projection="frozen")
SIZES = [0.3, 0.05, 1e-4, 1e-7, 1e-9, 1e-12]


def disable(model: AdaptedModel) -> None:
    """What peft's disable_adapter does."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)


def scale_to_zero(model: AdaptedModel) -> None:
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] = 0.0


def swap_for_plain_clip(model: AdaptedModel) -> None:
    """The published bug: trained weights loaded into a plain CLIP, strict=False, keys dropped."""
    plain = mini_clip().encoder()
    with warnings.catch_warnings(record=True):
        plain.load_state_dict(lora_keys_of(model), strict=False)
    plain.projection.load_state_dict(model.encoder.projection.state_dict())
    model.encoder = plain


def lora_keys_of(model: AdaptedModel) -> dict[str, Tensor]:
    return {k: v for k, v in model.encoder.state_dict().items() if "lora_" in k or "base_" in k}


def reinitialise(model: AdaptedModel) -> None:
    """Adapters wrapped anew and never loaded."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.reset_lora_parameters("default", init_lora_weights=True)


def switch_to_an_empty_adapter(model: AdaptedModel) -> None:
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
    with warnings.catch_warnings(record=True):  # peft warns of a second adapter: it is meant
        peft.inject_adapter_in_model(config, model.encoder.tower, adapter_name="empty")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter("empty")


PLANTED: list[Callable[[AdaptedModel], None]] = [
    disable,
    scale_to_zero,
    swap_for_plain_clip,
    reinitialise,
    switch_to_an_empty_adapter,
]
each_bug = pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)


IMAGES = 8
"""As a run has for it."""


def check(model: AdaptedModel, trained: dict[str, Tensor] | None) -> None:
    assert_adapted(model, mini_clip(), pixels(IMAGES), trained=trained)


@pytest.mark.parametrize("name", list(METHODS))
def test_an_untouched_model_passes(name: str) -> None:
    model = adapted(name)
    check(model, None)
    check(model, model.snapshot())


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*METHODS, "frozen"])
def test_a_trained_model_passes_however_little_it_moved(name: str, size: float) -> None:
    model = perturb(adapted(FROZEN if name == "frozen" else name), size)
    check(model, model.snapshot())
    check(model, None)


@pytest.mark.parametrize("size", [0.3, 0.01, 1e-4])
def test_a_model_that_moved_only_in_its_projection_passes(size: float) -> None:
    model = adapted("lora")
    with torch.no_grad():
        model.encoder.projection.weight.add_(size)
    check(model, model.snapshot())


def test_a_model_in_training_mode_is_checked_without_dropout() -> None:
    model = perturb(adapted("lora")).train()
    check(model, model.snapshot())
    assert not model.training


@pytest.mark.slow
@each_bug
@pytest.mark.parametrize("size", [0.3, 0.01, 1e-4, 1e-6, 1e-7])
@pytest.mark.parametrize("spec", [METHODS["lora"], FROZEN], ids=["projection", "frozen"])
def test_each_planted_bug_is_caught(
    plant: Callable[[AdaptedModel], None], size: float, spec: LoraSpec
) -> None:
    model = perturb(adapted(spec), size)
    trained = model.snapshot()
    plant(model)
    with pytest.raises(AdapterInactiveError) as caught:
        check(model, trained)
    text = str(caught.value)
    assert text.startswith("retention: expected ")
    assert text.endswith("or reload the run with 'clipdrift evaluate'.")


@pytest.mark.parametrize("plant", [disable, scale_to_zero], ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("projection", [0.0, 1.5])
@pytest.mark.parametrize("size", [0.05, 1e-3, 1e-5])
def test_adapters_that_are_off_are_caught_on_images_alone(
    plant: Callable[[AdaptedModel], None], projection: float, size: float
) -> None:
    """The factors are there and right, only without effect, however far the projection moved."""
    model = adapted("lora")
    with torch.no_grad():
        for name, parameter in model.trained().items():
            if "lora_B" in name:
                parameter.fill_(size)
        model.encoder.projection.weight.mul_(1 + projection)
    check(model, None)
    plant(model)
    with pytest.raises(AdapterInactiveError, match="embeddings"):
        check(model, None)


@pytest.mark.parametrize("name", ["full_ft", "last_blocks"])
def test_an_untouched_encoder_in_place_of_a_fine_tuned_one_is_caught(name: str) -> None:
    model = perturb(adapted(name))
    trained = model.snapshot()
    model.encoder = mini_clip().encoder()
    with pytest.raises(AdapterInactiveError, match="tensors that training left"):
        check(model, trained)


def test_the_tensors_that_are_wrong_are_counted_and_named() -> None:
    model = perturb(adapted("lora"))
    trained = model.snapshot()
    with torch.no_grad():
        model.head.bias[3] += 1e-6
    with pytest.raises(AdapterInactiveError) as caught:
        check(model, trained)
    assert "expected the 27 tensors that training left, got 1 that are not, first 'head.bias'" in (
        str(caught.value)
    )


def test_a_live_path_that_is_not_the_weights_is_caught() -> None:
    """Something between the tower and its score, here a hook, that the weights do not show."""
    model = perturb(adapted("full_ft"))

    def hook(_: Any, __: Any, embeddings: Tensor) -> Tensor:
        return embeddings * 0.9

    model.encoder.projection.register_forward_hook(hook)
    with pytest.raises(AdapterInactiveError, match="equal to those of the merged weights"):
        check(model, model.snapshot())


@each_bug
def test_without_the_guard_each_bug_reads_as_retention_of_100(
    plant: Callable[[AdaptedModel], None],
) -> None:
    """What makes the guard worth its time: nothing else in the numbers looks wrong."""
    images = land_cover(60)
    text = torch.nn.functional.normalize(class_means(images), dim=-1)

    def accuracy(encoder: ImageEncoder) -> float:
        return score(encoder, images, text, Predictor(30)).accuracy

    baseline = accuracy(mini_clip().encoder())
    assert 0.3 < baseline < 1
    model = perturb(adapted(FROZEN), 0.3)
    trained = model.snapshot()
    honest = retention_pct(accuracy(model.encoder), baseline)
    assert honest is not None
    assert honest < 80
    plant(model)
    assert retention_pct(accuracy(model.encoder.eval()), baseline) == 100.0
    with pytest.raises(AdapterInactiveError):
        check(model, trained)


def test_the_untouched_backbone_lends_its_modules_and_gets_them_back() -> None:
    before = {name: (p, p.clone()) for name, p in mini_clip().model.named_parameters()}
    model = perturb(adapted("full_ft"), 0.3)
    check(model, model.snapshot())
    after = dict(mini_clip().model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[n] is p and torch.equal(p, value) for n, (p, value) in before.items())


def test_the_untouched_tower_sees_the_same_images_once() -> None:
    passes: list[int] = []
    backbone = load_backbone(BackboneSpec())
    model = build(backbone, METHODS["lora"], 10, seed=7, text_features=None)
    images = pixels(IMAGES)

    def count(_: Any, __: Any, ___: Any) -> None:
        passes.append(1)

    backbone.model.vision_model.register_forward_hook(count)
    for _ in range(3):
        assert_adapted(model, backbone, images)
    assert len(passes) == 1  # untouched; before training merged is the same
    perturb(model)
    assert_adapted(model, backbone, images.clone())
    assert len(passes) == 2  # merged
    assert_adapted(model, backbone, images.flip(0))
    assert len(passes) == 4  # other images: untouched and merged


def class_means(images: Any) -> Tensor:
    """Class embeddings that the untouched encoder does well with, in place of prompts."""
    with torch.no_grad():
        features = mini_clip().encoder()(torch.from_numpy(images.pixels))
    unit = torch.nn.functional.normalize(features, dim=-1)
    return torch.stack([unit[images.labels == c].mean(dim=0) for c in range(10)])


def test_the_embedded_weights_hold_no_adapter() -> None:
    """What strict=False would have to ignore, and the guard may not."""
    assert not [key for key in load_file(EMBEDDED / "model.safetensors") if "lora" in key]
    assert lora_keys_of(adapted("lora"))


def test_relative_difference_by_hand() -> None:
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]])
    assert relative(a, b) == pytest.approx((9 + 36) ** 0.5 / 10, rel=1e-6)
    assert relative(b, b) == 0.0
