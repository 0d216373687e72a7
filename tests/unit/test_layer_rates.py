"""Layer-wise rates, blocks that train alone, and batch sizes as a factor of a study."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from small_models import mini_clip
from small_siglip import small_siglip
from small_study import study

from clipdrift.backbone import Backbone
from clipdrift.data.images import Images
from clipdrift.errors import MethodError, SpecError
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.spec import expand
from clipdrift.spec.audit import audit
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import MethodSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

RATE, DECAY = 1e-3, 0.5
PROMPTS = [["a red circle"], ["a blue square"]]


def model_of(backbone: Backbone, **fields: Any) -> AdaptedModel:
    spec: MethodBase = TypeAdapter(MethodSpec).validate_python(
        {"name": "one", "kind": "full_ft", **fields}
    )
    return build(backbone, spec, 2, seed=7, text_features=None, prompts=PROMPTS)


def depth(name: str, n_blocks: dict[bool, int]) -> int:
    """By the name of a tensor: 0 behind the blocks, n + 1 before them."""
    text = name.startswith("texts.")
    if found := re.search(r"tower\.encoder\.layers\.(\d+)\.", name):
        return n_blocks[text] - int(found[1])
    before = re.search(r"tower\.(embeddings|pre_layrnorm)\.", name)
    return n_blocks[text] + 1 if before else 0


@pytest.mark.parametrize(("make", "n_blocks"), [(mini_clip, (6, 2)), (small_siglip, (3, 3))])
def test_rates_fall_from_the_output_to_the_input(make: Any, n_blocks: tuple[int, int]) -> None:
    model = model_of(make(), layer_decay=DECAY, loss="contrastive", tower="both")
    groups = list(model.parameter_groups(RATE, RATE))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    trained = model.trained()
    assert len(rates) == len(trained) == sum(len(group["params"]) for group in groups)  # type: ignore[arg-type]
    blocks = dict(zip((False, True), n_blocks, strict=True))
    for name, p in trained.items():
        assert rates[id(p)] == pytest.approx(RATE * DECAY ** depth(name, blocks)), name
    assert len({depth(name, blocks) for name in trained}) == max(n_blocks) + 2


def fit(model: AdaptedModel) -> AdaptedModel:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(8), np.arange(8) % 2)
    schedule = ScheduleSpec(epochs=2, batch_size=4)
    list(train(model, images, schedule=schedule, learning_rate=RATE, head_rate=RATE, seed=7,
               precision="float32"))  # fmt: skip
    return model


def test_a_decay_of_one_is_none_and_a_smaller_one_moves_what_lies_deep_less() -> None:
    plain, one, half = (fit(model_of(mini_clip(), layer_decay=d)) for d in (None, 1.0, 0.3))
    for (name, p), q in zip(plain.named_parameters(), one.parameters(), strict=True):
        assert torch.equal(p, q), name
    start = dict(model_of(mini_clip()).named_parameters())
    first = "encoder.tower.encoder.layers.0.mlp.fc1.weight"
    moved = [
        float((dict(m.named_parameters())[first] - start[first]).detach().norm())
        for m in (plain, half)
    ]
    assert 0 < moved[1] < 0.1 * moved[0]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [({"first": 2}, {0, 1}), ({"last": 1}, {5}), ({"range": [2, 4]}, {2, 3})],
)
def test_blocks_that_are_named_train_alone(
    layers: dict[str, Any], expected: set[int], tmp_path: Any
) -> None:
    model = fit(model_of(mini_clip(), layers=layers))
    before = mini_clip().vision_state()
    moved = {n for n, p in (model.vision_state() or {}).items() if not torch.equal(p, before[n])}
    assert {int(name.split(".")[2]) for name in moved} == expected
    assert all(name.startswith("encoder.layers.") for name in moved)
    pixels = torch.randint(0, 256, (16, 28, 28, 3), dtype=torch.uint8)
    assert_adapted(model, mini_clip(), pixels)
    model.save(tmp_path)
    again = reload(mini_clip(), model.spec, 2, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))


def test_blocks_that_are_not_there_are_refused() -> None:
    with pytest.raises(MethodError, match="among the 6 blocks of the backbone, got last 7"):
        model_of(mini_clip(), layers={"last": 7})


# --- batch size as a factor ---


def two(first: int | None, second: int | None) -> list[dict[str, Any]]:
    sizes = {"small": first, "large": second}
    return [
        {"name": name, "kind": "full_ft", **({} if size is None else {"batch_size": size})}
        for name, size in sizes.items()
    ]


def test_a_batch_size_of_a_method_is_that_of_its_runs() -> None:
    spec = study(methods=two(16, 64), varied=["batch_size"])
    sizes = {run.method.name: run.schedule.batch_size for run in expand(spec, precision="float32")}
    assert sizes == {"small": 16, "large": 64}
    row = next(row for row in audit(spec) if row.factor == "batch size")
    assert (row.value, row.status) == ("16, 64", "varied")
    assert not any(row.factor == "batch size" for row in audit(study()))


def test_batch_sizes_that_differ_unasked_or_are_not_said_are_refused() -> None:
    with pytest.raises(SpecError, match="add batch_size to varied"):
        study(methods=two(16, 64))
    with pytest.raises(SpecError, match="a batch_size of every matched method, or of none"):
        study(methods=two(16, None), varied=["batch_size"])


def test_the_audit_shows_blocks_and_layer_wise_rates() -> None:
    spec = study(methods=["full_ft", {"name": "deep", "kind": "full_ft", "layer_decay": 0.7,
                                      "layers": {"last": 3}}])  # fmt: skip
    told = {row.factor: row.value for row in audit(spec)}
    assert told["blocks"] == "deep: last 3"
    assert told["layer-wise rates"] == "deep: 0.7 a block"
