"""Weights made after training, over every family of methods: merged gives what is live."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from small_models import adapted, mini_clip, perturb, pixels

from clipdrift.methods.guard import assert_adapted, relative
from clipdrift.methods.merged import as_model, merged, scaled, soup
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import MethodSpec

LORA = {"kind": "peft", "type": "lora"}
PLAIN: list[dict[str, Any]] = [
    {"kind": "full_ft"},
    {"kind": "last_blocks"},
    {"kind": "bitfit"},
    {"kind": "lora"},
    {"kind": "peft", "type": "ln_tuning"},
    {**LORA, "options": {"r": 4, "lora_alpha": 8, "use_dora": True}},
    {**LORA, "options": {"r": 4, "lora_alpha": 4, "init_lora_weights": "pissa"}},
    {"kind": "peft", "type": "ia3"},
]


def spec_of(fields: dict[str, Any]) -> MethodBase:
    made: MethodBase = TypeAdapter(MethodSpec).validate_python({"name": "one", **fields})
    return made


@pytest.mark.parametrize("fields", PLAIN, ids=lambda fields: str(list(fields.values())))
@torch.no_grad()
def test_the_soup_of_a_model_with_itself_is_the_model(fields: dict[str, Any]) -> None:
    spec, images = spec_of(fields), pixels()
    model = perturb(adapted(spec))
    weights = merged(model)
    assert weights is not None
    again = as_model(soup([weights, weights]), mini_clip(), spec)
    assert_adapted(again, mini_clip(), images, trained=again.snapshot())
    assert relative(again(images), model(images)) < 1e-5


@pytest.mark.parametrize("fields", PLAIN, ids=lambda fields: str(list(fields.values())))
def test_scale_zero_is_the_untouched_tower(fields: dict[str, Any]) -> None:
    weights = merged(perturb(adapted(spec_of(fields))))
    assert weights is not None
    before = mini_clip().vision_state()
    still = scaled(weights, mini_clip(), 0.0)
    assert all(torch.equal(still.tower[name], before[name]) for name in before)
    assert still.projection is weights.projection


@pytest.mark.parametrize("kind", ["adapter", "vpt"])
def test_what_has_no_plain_weights_has_no_soup(kind: str) -> None:
    assert merged(perturb(adapted(spec_of({"kind": kind})))) is None
