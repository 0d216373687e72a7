"""A method that no plain weights amount to: proved by an encoder built anew, never merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from small_models import METHODS, adapted, land_cover, mini_clip, perturb, pixels
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder
from clipdrift.errors import AdapterInactiveError
from clipdrift.methods import FAMILIES, Family
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.methods.guard import assert_adapted
from clipdrift.reading.baseline import probe
from clipdrift.reading.model import not_read, read_drift
from clipdrift.reading.post_hoc import undefined_extra
from clipdrift.spec.method_base import MethodBase


class Bent(nn.Module):
    """x -> f(x) + tanh(a f(x)), a from 0."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.a = inner, nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y + torch.tanh(self.a * y)


class BentSpec(MethodBase):
    kind: Literal["bent"] = "bent"


def bend(encoder: ImageEncoder, spec: BentSpec, seed: int) -> None:
    for block in encoder.tower.encoder.layers:  # type: ignore[union-attr]
        block.mlp = Bent(block.mlp)


def nothing(encoder: ImageEncoder, *_: object) -> None:
    raise AssertionError("not asked for here")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "bent", Family(bend, lambda encoder: None, nothing, nothing))


@pytest.fixture
def model() -> AdaptedModel:
    return adapted(BentSpec(name="bent"))


def check(model: AdaptedModel, trained: dict[str, Tensor] | None = None) -> None:
    assert_adapted(model, mini_clip(), pixels(8), trained=trained)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 0.05])
def test_it_passes_the_guard_however_little_it_moved(model: AdaptedModel, size: float) -> None:
    perturb(model, size)
    check(model, model.snapshot())
    check(model)


def straighten(model: AdaptedModel) -> None:
    for block in model.encoder.tower.encoder.layers:  # type: ignore[union-attr]
        block.mlp.forward = block.mlp.inner.forward


def swap(model: AdaptedModel) -> None:
    projection = model.encoder.projection
    model.encoder = mini_clip().encoder()
    model.encoder.projection = projection


@pytest.mark.parametrize("plant", [straighten, swap])
@pytest.mark.parametrize("size", [1e-5, 0.05])
def test_another_encoder_in_its_place_is_caught(
    plant: Callable[[AdaptedModel], None], size: float, model: AdaptedModel
) -> None:
    perturb(model, size)
    plant(model)
    with pytest.raises(AdapterInactiveError, match="retention: expected"):
        check(model)


def test_weights_that_do_not_exist_are_null_with_a_reason(model: AdaptedModel) -> None:
    images = land_cover(10)
    before = probe(mini_clip().encoder(), images)
    reading, _ = read_drift(perturb(model), mini_clip(), images, before)
    assert reading.drift["weight_drift_rel"] is None
    assert (reading.drift["projection_drift_rel"] or 0) > 0
    assert not_read(mini_clip(), model) == {"drift.weight_drift_rel": NOT_PLAIN}
    assert not_read(mini_clip(), adapted("lora")) == {}
    found = undefined_extra({"interpolation.0.5.test_accuracy": None}, model)
    assert found == {"extra.interpolation.0.5.test_accuracy": NOT_PLAIN}


def test_other_methods_amount_to_plain_weights() -> None:
    for name in METHODS:
        assert adapted(name).vision_state() is not None
