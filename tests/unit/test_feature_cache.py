"""A step that keeps embeddings is the step of the whole batch; losses with several right texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from small_models import mini_clip
from small_siglip import small_siglip
from torch import Tensor, nn
from transformers import SiglipModel

from clipdrift.backbone import Backbone
from clipdrift.data.images import Images
from clipdrift.machine.memory import out_of_memory
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.methods.interpolate import interpolated
from clipdrift.methods.merged import as_model, merged
from clipdrift.penalties.held import held_near
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import MethodSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.contrastive import AgainstTexts, contrastive_loss, sigmoid_loss
from clipdrift.step.engine import Engine
from clipdrift.step.micro_batches import MicroBatches
from clipdrift.training.loop import train

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ("red circle", "blue square", "two", "a cat")
PROMPTS = [[f"a photo of a {word}", f"the {word}"] for word in WORDS]
N = 11
NUMBERS = torch.tensor([0, 1, 3, 5, 7, 2, 2, 6, 4, 1, 0])
BACKBONES = {"clip": mini_clip, "siglip": small_siglip}
METHODS: dict[str, dict[str, Any]] = {
    "both": {"kind": "full_ft", "tower": "both"},
    "text": {"kind": "lora", "tower": "text", "dropout": 0.0},
    "vision, held": {
        "kind": "full_ft",
        "penalties": [
            {"kind": "feature_distillation", "weight": 0.7},
            {"kind": "l2_sp", "weight": 0.3},
        ],
    },
    "last blocks": {"kind": "last_blocks", "blocks": 1, "positives": "class"},
}


def images(backbone: Backbone) -> Images:
    size = backbone.image_size
    pixels = np.random.default_rng(3).integers(0, 256, (N, size, size, 3), dtype=np.uint8)
    return Images(pixels, np.arange(N), NUMBERS.numpy() // 2)


def spec_of(fields: dict[str, Any]) -> MethodBase:
    made: MethodBase = TypeAdapter(MethodSpec).validate_python(
        {"name": "one", "loss": "contrastive", **fields}
    )
    return made


def model_of(backbone: Backbone, fields: dict[str, Any]) -> AdaptedModel:
    spec = spec_of(fields)
    return build(backbone, spec, len(PROMPTS), seed=7, text_features=None, prompts=PROMPTS)


def step(
    backbone: Backbone, fields: dict[str, Any], size: int | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Terms of the loss, and the gradient of one step of all images, `size` at a time."""
    model, some = model_of(backbone, fields), images(backbone)
    with torch.no_grad():  # penalties have no gradient where nothing has moved
        draw = torch.Generator().manual_seed(1)
        for p in model.trained().values():
            p += 0.01 * torch.randn(p.shape, generator=draw)
    held = held_near(model.spec, model, backbone)
    engine = Engine(model, some, ScheduleSpec(batch_size=N), "float32", held)
    micro = MicroBatches(engine.objective, model.zero_grad, size)
    torch.manual_seed(5)
    model.train()
    flips = np.arange(N) % 2 == 0
    terms = micro.backward(engine.inputs(np.arange(N), flips), NUMBERS)
    return terms, {n: p.grad for n, p in model.trained().items() if p.grad is not None}


@pytest.mark.parametrize("kind", list(BACKBONES))
@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("size", [4, 1])
def test_the_gradient_is_that_of_the_whole_batch(kind: str, name: str, size: int) -> None:
    backbone, fields = BACKBONES[kind](), METHODS[name]
    whole, parts = step(backbone, fields, None), step(backbone, fields, size)
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-6, atol=1e-6)
    assert parts[1].keys() == whole[1].keys()
    apart = torch.cat([(parts[1][n] - g).flatten() for n, g in whole[1].items()])
    size_of = torch.cat([g.flatten() for g in whole[1].values()]).norm()
    assert size_of > 1e-2  # else nothing was compared
    relative = float(apart.norm() / size_of)
    assert relative <= (3e-6 if "penalties" in fields else 2e-6), relative


def test_the_second_pass_draws_what_the_first_drew() -> None:
    """Against parts whose graphs are all kept, drawn in the same order from the same seed."""
    backbone, fields = mini_clip(), {"kind": "lora", "tower": "both", "dropout": 0.4}
    _, found = step(backbone, fields, 4)
    model = model_of(backbone, fields)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(1)
        for p in model.trained().values():
            p += 0.01 * torch.randn(p.shape, generator=draw)
    model.train()
    assert model.texts is not None
    pixels = images(backbone).take(np.arange(N))
    pixels[::2] = pixels[::2, :, ::-1]
    distinct, place = torch.unique(NUMBERS, return_inverse=True)
    torch.manual_seed(5)
    rows = torch.cat([model.encoder(part) for part in torch.from_numpy(pixels).split(4)])
    texts = torch.cat([model.texts(part) for part in distinct.split(4)])
    contrastive_loss(rows, texts[place], model.texts.log_scale.exp()).backward()
    _, other = step(backbone, fields, 5)
    for name, p in model.trained().items():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)
    name = next(n for n in found if "lora_B" in n)
    assert not torch.allclose(found[name], other[name], rtol=1e-3)  # draws do matter


def test_a_batch_that_memory_does_not_hold_is_taken_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And training goes on as with `micro_batch`, with nothing but that told apart."""
    at_once: list[int] = []
    normalise = type(mini_clip().encoder()).normalise

    def small(self: Any, pixels: Tensor) -> Tensor:
        at_once.append(len(pixels))
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("full")
        return normalise(self, pixels)

    asked = {"learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7, "precision": "float32"}
    schedule = ScheduleSpec(epochs=1, batch_size=8)
    models = [model_of(mini_clip(), METHODS["both"]) for _ in range(2)]
    some = images(mini_clip())
    parts = schedule.model_copy(update={"micro_batch": 4})
    (planned,) = train(models[0], some, schedule=parts, **asked)  # type: ignore[arg-type]
    monkeypatch.setattr(type(models[1].encoder), "normalise", small)
    (forced,) = train(models[1], some, schedule=schedule, **asked)  # type: ignore[arg-type]
    assert (planned.micro_batch, forced.micro_batch) == (None, 4)
    assert max(at_once) == 8
    assert planned.train_loss == pytest.approx(forced.train_loss, rel=1e-6)
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
    assert out_of_memory(MemoryError())


# --- losses ---


def rows(seed: int, n: int = 5) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RIGHT = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1],
                      [0, 0, 0, 1, 1]]).bool()  # fmt: skip


def cells(scale: float) -> list[list[float]]:
    unit = [[[v / math.hypot(*row) for v in row] for row in m.tolist()] for m in (rows(0), rows(1))]
    return [[scale * sum(map(float.__mul__, x, y)) for y in unit[1]] for x in unit[0]]


def test_of_several_right_texts_any_will_do() -> None:
    table, total = cells(7.0), 0.0
    for grid in (table, [list(column) for column in zip(*table, strict=True)]):
        for i, row in enumerate(grid):
            right = [j for j in range(5) if RIGHT[i, j]]
            norm = math.log(sum(map(math.exp, row)))
            total += norm - math.log(sum(math.exp(row[j]) for j in right))
    found = contrastive_loss(rows(0), rows(1), torch.tensor(7.0), RIGHT)
    assert float(found) == pytest.approx(total / 10, rel=5e-6)
    alone = contrastive_loss(rows(0), rows(1), torch.tensor(7.0), torch.eye(5).bool())
    plain = contrastive_loss(rows(0), rows(1), torch.tensor(7.0))
    assert float(alone) == pytest.approx(float(plain), rel=1e-6)


def test_the_sigmoid_loss_counts_every_pair() -> None:
    table, bias = cells(3.0), -2.0
    for right in (torch.eye(5).bool(), RIGHT):
        total = sum(
            math.log(1 + math.exp(-(1 if right[i, j] else -1) * (table[i][j] + bias)))
            for i in range(5)
            for j in range(5)
        )
        given = None if right is not RIGHT else right
        found = sigmoid_loss(rows(0), rows(1), torch.tensor(3.0), torch.tensor(bias), given)
        assert float(found) == pytest.approx(total / 5, rel=5e-6)


def test_of_a_siglip_it_is_the_loss_of_transformers() -> None:
    backbone = small_siglip()
    model = model_of(backbone, METHODS["both"])
    assert model.texts is not None
    numbers = torch.tensor([6, 1, 2, 5])
    flat = [prompt for group in PROMPTS for prompt in group]
    whole: SiglipModel = backbone.model
    pixels = torch.from_numpy(images(backbone).pixels[:4])
    values = model.encoder.normalise(pixels)
    tokens = backbone.live_text_encoder().tokens([flat[n] for n in numbers])
    expected = whole(**tokens, pixel_values=values, return_loss=True).loss
    found = AgainstTexts(model.texts, torch.no_grad)(model.encoder(pixels), numbers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_right_texts_are_those_of_the_pair_the_caption_or_the_class() -> None:
    model = model_of(mini_clip(), METHODS["both"])
    assert model.texts is not None
    with torch.no_grad():
        embedded = model.encoder(torch.from_numpy(images(mini_clip()).pixels))
        texts = model.texts(NUMBERS)
    scale = model.texts.log_scale.exp()
    same = {
        "pair": torch.eye(N).bool(),
        "caption": NUMBERS[:, None] == NUMBERS[None],
        "class": NUMBERS[:, None] // 2 == NUMBERS[None] // 2,
    }
    losses = set()
    for name, right in same.items():
        found = AgainstTexts(model.texts, torch.no_grad, name)(embedded, NUMBERS)
        expected = contrastive_loss(embedded, texts, scale, right)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
        losses.add(round(float(found.detach()), 6))
    assert len(losses) == 3


# --- scale and bias ---


def test_a_siglip_trains_its_scale_and_bias_and_comes_back(tmp_path: Path) -> None:
    backbone, some = small_siglip(), images(small_siglip())
    schedule = ScheduleSpec(epochs=2, batch_size=4)
    model = model_of(backbone, METHODS["both"])
    start = {k: v.clone() for k, v in model.texts.beside().items()}  # type: ignore[union-attr]
    assert list(start) == ["log_scale", "bias"]
    list(train(model, some, schedule=schedule, learning_rate=1e-2, head_rate=1e-2, seed=7,
               precision="float32"))  # fmt: skip
    assert model.texts is not None
    pixels = torch.from_numpy(some.pixels)
    assert_adapted(model, backbone, pixels)
    for name, value in model.texts.beside().items():
        assert not torch.equal(value, start[name])
    model.save(tmp_path)
    again = reload(backbone, model.spec, len(PROMPTS), tmp_path, prompts=PROMPTS)
    assert again.texts is not None
    assert again.texts.beside() == model.texts.beside()
    whole = merged(model)
    assert whole is not None
    plain = as_model(whole, backbone, model.spec, PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels), model(pixels), rtol=1e-4, atol=1e-4)
    with interpolated(model, backbone, 0.0) as (there, _):
        assert there.texts is not None
        assert there.texts.beside() == start


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_a_frozen_scale_stays_where_it_was(kind: str) -> None:
    backbone = BACKBONES[kind]()
    model = model_of(backbone, {**METHODS["both"], "logit_scale": "frozen"})
    model.texts.log_scale.data.fill_(6.0)  # type: ignore[union-attr]  # beyond CLIP's bound
    before = {k: v.clone() for k, v in model.texts.beside().items()}  # type: ignore[union-attr]
    schedule = ScheduleSpec(epochs=1, batch_size=4)
    list(train(model, images(backbone), schedule=schedule, learning_rate=1e-3, head_rate=1e-3,
               seed=7, precision="float32"))  # fmt: skip
    assert model.texts is not None
    assert model.texts.beside() == before
    assert not {"texts.log_scale", "texts.bias"} & set(model.trained())
    assert isinstance(model.head, nn.Module)
