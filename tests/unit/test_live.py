"""Anyone's live model is read as it is, and is afterwards exactly as it was."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from small_models import EMBEDDED, assert_same_features, mini_clip, pixels, write_random_clip
from small_siglip import write_random_siglip
from torch import Tensor, nn
from transformers import (
    AutoModel,
    CLIPForImageClassification,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from clipdrift.backbone import load_backbone
from clipdrift.errors import AdapterInactiveError, BackboneError
from clipdrift.reading.live import live_model
from clipdrift.spec.parts import BackboneSpec


def clip(kind: Any = AutoModel, dtype: torch.dtype = torch.float32) -> Any:
    return kind.from_pretrained(EMBEDDED, dtype=dtype)


def shaken(model: nn.Module, size: float = 0.05) -> Any:
    """Every parameter that trains moved by noise."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(size * noise.to(parameter))
    return model


def with_lora(model: nn.Module, **options: Any) -> Any:
    targets = r".*vision_model.*\.(q_proj|v_proj)"
    config = peft.LoraConfig(**({"r": 4, "target_modules": targets} | options))
    return shaken(peft.get_peft_model(model, config))


def features(model: Any) -> Tensor:
    """What transformers itself makes of the images, through the model as a user would call it."""
    backbone = mini_clip()
    values = backbone.live_encoder().normalise(pixels()).to(next(model.parameters()).dtype)
    was = model.training
    with torch.no_grad():
        found = model.eval().get_image_features(pixel_values=values).pooler_output
    model.train(was)
    return found.float()


def fingerprint(model: nn.Module) -> str:
    """Everything of a model that reading must leave alone."""
    text = hashlib.sha256()
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        grad = value.grad
        text.update(f"{name} {value.dtype} {value.requires_grad} {value.device}".encode())
        text.update(value.detach().float().numpy().tobytes())
        text.update(b"" if grad is None else grad.float().numpy().tobytes())
    for name, module in model.named_modules():
        attention = getattr(getattr(module, "config", None), "_attn_implementation", "")
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks))
        text.update(f"{name} {module.training} {attention} {hooks}".encode())
    return text.hexdigest()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("store") / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


MODELS: dict[str, Callable[[], Any]] = {
    "plain": lambda: shaken(clip()),
    "peft around": lambda: with_lora(clip()),
    "peft in the tower": lambda: _peft_inside(clip()),
    "two adapters": lambda: _second_adapter(with_lora(clip())),
    "modules_to_save": lambda: with_lora(clip(), modules_to_save=["post_layernorm"]),
    "dora": lambda: with_lora(clip(), use_dora=True),
    "compiled": lambda: torch.compile(shaken(clip())),
    "compiled peft": lambda: torch.compile(with_lora(clip())),
}


def _peft_inside(model: Any) -> Any:
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "fc1"])
    model.vision_model = shaken(peft.get_peft_model(model.vision_model, config))
    return model


def _second_adapter(model: Any) -> Any:
    config = peft.LoraConfig(r=2, target_modules=r".*vision_model.*\.k_proj")
    model.add_adapter("second", config)
    model.set_adapter("second")
    return shaken(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_is_what_transformers_gives(name: str) -> None:
    model = MODELS[name]().train()
    expected = features(getattr(model, "_orig_mod", model))
    before, generator = fingerprint(model), torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        found = live_model(model, mini_clip(), pixels())
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    torch.testing.assert_close(found.encoder(pixels()).detach(), expected, rtol=1e-5, atol=1e-6)
    assert fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), generator)
    moved = found.vision_state()
    assert moved is not None
    plain = clip().vision_model
    plain.load_state_dict(moved)
    merged = clip()
    merged.vision_model = plain
    merged.visual_projection.load_state_dict(found.projection_state())
    assert_same_features(features(merged), expected)


def test_a_distributed_model_is_read(distributed: None) -> None:
    model = shaken(clip())
    wrapped = nn.parallel.DistributedDataParallel(model)
    found = live_model(wrapped, mini_clip(), pixels())
    torch.testing.assert_close(found.encoder(pixels()).detach(), features(model))


def test_low_precision_is_read_in_float32_and_stays_low() -> None:
    model = shaken(clip(dtype=torch.bfloat16))
    before = fingerprint(model)
    found = live_model(model, mini_clip(), pixels())
    assert fingerprint(model) == before
    torch.testing.assert_close(
        found.encoder(pixels()).detach(), features(copy.deepcopy(model).float())
    )


@pytest.mark.parametrize(
    "kind", [CLIPVisionModelWithProjection, CLIPVisionModel, CLIPForImageClassification]
)
def test_a_tower_without_the_rest_is_read_with_the_baselines(kind: Any) -> None:
    model = clip(kind)
    found = live_model(model, mini_clip(), pixels())
    assert found.text is None
    torch.testing.assert_close(found.encoder(pixels()).detach(), features(clip()))


def test_a_text_tower_that_moved_is_read_too() -> None:
    model = clip()
    assert live_model(model, mini_clip(), pixels()).text is None
    shaken(model.text_model)
    found = live_model(model, mini_clip(), pixels())
    assert found.text is not None
    classes = [["a photo of a red circle"], ["a drawing of a blue square"]]
    assert not torch.allclose(
        found.text.class_features(classes), mini_clip().text_features(classes), atol=1e-2
    )


def test_siglip_has_no_projection(tmp_path: Path) -> None:
    folder = write_random_siglip(tmp_path / "siglip", dtype=torch.float32)
    backbone = load_backbone(BackboneSpec(id=str(folder)))
    model = shaken(AutoModel.from_pretrained(folder, dtype=torch.float32)).eval()
    size = backbone.image_size
    images = torch.randint(0, 255, (4, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        values = backbone.live_encoder().normalise(images)
        expected = model.get_image_features(pixel_values=values).pooler_output
    found = live_model(model, backbone, images)
    torch.testing.assert_close(found.encoder(images).detach(), expected, rtol=1e-5, atol=1e-6)
    assert found.text is not None


def test_adapters_that_are_switched_off_are_refused() -> None:
    model = with_lora(clip())
    with model.disable_adapter(), pytest.raises(AdapterInactiveError, match="switched off"):
        live_model(model, mini_clip(), pixels())
    live_model(model, mini_clip(), pixels())


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    other = AutoModel.from_pretrained(write_random_clip(tmp_path), dtype=torch.float32)
    with pytest.raises(BackboneError, match="the baseline's architecture"):
        live_model(other, mini_clip(), pixels())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = clip()
        self.head = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Net, "without the attribute 'vision_model'. Pass model.backbone."),
        (lambda: nn.Linear(2, 2), "Pass the CLIP or its vision tower"),
        (lambda: "clip", "expected a torch module, got str"),
    ],
)
def test_what_cannot_be_read_says_what_to_pass(model: Callable[[], Any], words: str) -> None:
    made = model()
    with pytest.raises(BackboneError) as error:
        live_model(made, mini_clip(), pixels())
    assert words in str(error.value)


def test_hooks_are_not_run_and_files_not_opened() -> None:
    """A logger in a hook would log the reading as if it were training."""
    model, seen = shaken(clip()), []
    model.register_forward_hook(lambda *_: seen.append(os.getpid()))
    live_model(model, mini_clip(), pixels())
    assert seen == []
