"""Methods that put modules into the tower: adapters behind sub-layers, prompts beside patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import adapted, land_cover, mini_clip, perturb, pixels
from small_siglip import small_siglip
from small_study import study
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, relu

from clipdrift.errors import AdapterInactiveError, MethodError, RecordError, SpecError
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.penalties.held import held_near
from clipdrift.probes.attention_maps import BlockAttention, attention_sink
from clipdrift.reading.baseline import probe
from clipdrift.reading.model import not_read, read_drift
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import AdapterSpec, VptSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

D, L, P, E, C, H = 64, 6, 49, 64, 10, 4
OUTSIDE = D * E + C * E + C  # projection and head
SPECS: dict[str, MethodBase] = {
    "houlsby": AdapterSpec(kind="adapter", name="houlsby", bottleneck=8),
    "pfeiffer": AdapterSpec(
        kind="adapter", name="pfeiffer", bottleneck=5, after=["mlp"], activation="relu"
    ),
    "shallow": VptSpec(kind="vpt", name="shallow", prompts=3),
    "deep": VptSpec(kind="vpt", name="deep", prompts=4, depth="deep"),
}
TRAINED = {
    "houlsby": L * 2 * (2 * D * 8 + 8 + D) + OUTSIDE,
    "pfeiffer": L * (2 * D * 5 + 5 + D) + OUTSIDE,
    "shallow": 3 * D + OUTSIDE,
    "deep": L * 4 * D + OUTSIDE,
}
ADAPTERS, PROMPTS = ["houlsby", "pfeiffer"], ["shallow", "deep"]
each = pytest.mark.parametrize("name", SPECS)
each_prompted = pytest.mark.parametrize("name", PROMPTS)


pytestmark = pytest.mark.usefixtures("one_thread")


def moved(name: str) -> AdaptedModel:
    return perturb(adapted(SPECS[name]), 0.03)


# --- a vision tower written once more, with adapters and prompts ---


def through(model: AdaptedModel, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Embeddings, and the attention [B, H, T, T] of every block, from the tensors by name."""
    w = {n.removeprefix("encoder."): p.detach() for n, p in model.named_parameters()}
    values = model.encoder.normalise(images)
    tower: Any = model.encoder.tower
    x = nn.functional.conv2d(values, w["tower.embeddings.patch_embedding.weight"], stride=4)
    x = x.flatten(2).transpose(1, 2)
    cls = w["tower.embeddings.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([cls, x], dim=1) + w["tower.embeddings.position_embedding.weight"]

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def dense(x: Tensor, name: str) -> Tensor:
        """A linear layer, with the adapter on it if there is one."""
        base = name if f"{name}.weight" in w else f"{name}.base"
        x = linear(x, w[f"{base}.weight"], w[f"{base}.bias"])
        if base == name:
            return x
        act = gelu if model.spec.activation == "gelu" else relu  # type: ignore[attr-defined]
        inner = act(linear(x, w[f"{name}.down.weight"], w[f"{name}.down.bias"]))
        return x + linear(inner, w[f"{name}.up.weight"], w[f"{name}.up.bias"])

    x, maps = norm(x, "tower.pre_layrnorm"), []
    prompts = w.get("tower.prompts.tokens")
    for i in range(L):
        if prompts is not None and i < len(prompts):
            patches = x[:, -P:]
            x = torch.cat([x[:, :1], prompts[i].expand(len(x), -1, -1), patches], dim=1)
        at = f"tower.encoder.layers.{i}"
        y = norm(x, f"{at}.layer_norm1")
        q, k, v = (
            dense(y, f"{at}.self_attn.{part}_proj").unflatten(-1, (H, D // H)).transpose(1, 2)
            for part in "qkv"
        )
        maps.append((q @ k.transpose(-1, -2) * (D // H) ** -0.5).softmax(-1))
        y = (maps[-1] @ v).transpose(1, 2).flatten(-2)
        x = x + dense(y, f"{at}.self_attn.out_proj")
        y = dense(norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
        x = x + dense(tower.encoder.layers[i].mlp.activation_fn(y), f"{at}.mlp.fc2")
    pooled = norm(x[:, 0], "tower.post_layernorm")
    return linear(pooled, w["projection.weight"]), maps


@each
def test_the_encoder_by_a_second_implementation(name: str) -> None:
    model = moved(name)
    with torch.no_grad():
        found = model.encoder(pixels())
    # Float32 through six blocks whose adapters were moved by noise.
    torch.testing.assert_close(found, through(model, pixels())[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, mini_clip().encoder()(pixels()), rtol=0.05, atol=0.05)


@each
def test_parameters_trained_by_closed_form(name: str) -> None:
    model = adapted(SPECS[name])
    assert sum(p.numel() for p in model.trained().values()) == TRAINED[name]
    tower = {n for n in model.trained() if n.startswith("encoder.tower.")}
    inserted = (".down.", ".up.") if name in ADAPTERS else (".prompts.tokens",)
    assert tower
    assert all(any(part in n for part in inserted) for n in tower)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("training", [False, True])
def test_adapters_start_at_the_baseline_exactly(name: str, training: bool) -> None:
    model = adapted(SPECS[name]).train(training)
    with torch.no_grad():
        assert torch.equal(model.encoder(pixels()), mini_clip().encoder()(pixels()))
    assert not model.family.moves_at_start


@each_prompted
def test_prompts_move_the_encoder_before_they_train_and_say_so(name: str) -> None:
    model = adapted(SPECS[name])
    with torch.no_grad():
        assert not torch.equal(model.encoder(pixels()), mini_clip().encoder()(pixels()))
    assert model.family.moves_at_start
    bound = (6 / (3 * 4**2 + D)) ** 0.5
    tokens = model.trained()["encoder.tower.prompts.tokens"].detach()
    assert bound * 0.95 < float(tokens.abs().max()) <= bound


@each
def test_what_is_inserted_is_drawn_by_the_seed_alone(name: str) -> None:
    first = adapted(SPECS[name], seed=7).trained()
    torch.rand(3)
    same, other = (adapted(SPECS[name], seed=s).trained() for s in (7, 8))
    assert all(torch.equal(first[n], p) for n, p in same.items())
    drawn = [n for n in first if ".down.weight" in n or "prompts" in n]
    assert drawn
    assert all(not torch.equal(first[n], other[n]) for n in drawn)
    assert len({float(first[n].detach().flatten()[0]) for n in drawn}) == len(drawn)


@each
def test_training_moves_what_is_inserted_and_nothing_of_the_tower(name: str) -> None:
    model = adapted(SPECS[name])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    options: Any = {"learning_rate": 1e-2, "head_rate": 1e-2, "seed": 7, "precision": "float32"}
    list(train(model, land_cover(22), schedule=ScheduleSpec(epochs=2, batch_size=8), **options))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == model.trained().keys()


@each
def test_bfloat16_trains_to_nearly_the_same_place(name: str) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        options: Any = {"learning_rate": 1e-3, "head_rate": 1e-2, "seed": 7, "precision": precision}
        schedule = ScheduleSpec(epochs=2, batch_size=8)
        done = list(train(adapted(SPECS[name]), land_cover(22), schedule=schedule, **options))
        losses[precision] = done[-1].train_loss
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@each
def test_what_is_saved_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    model = moved(name)
    model.save(tmp_path)
    back = reload(mini_clip(), SPECS[name], C, tmp_path)
    with torch.no_grad():
        assert torch.equal(back(pixels()), model(pixels()))
    assert back.trained().keys() == model.trained().keys()
    other = AdapterSpec(kind="adapter", name="x", bottleneck=9)
    with pytest.raises(RecordError):
        reload(mini_clip(), other if name in ADAPTERS else SPECS["houlsby"], C, tmp_path)


@each
@pytest.mark.parametrize("size", [0.3, 1e-3, 1e-5])
def test_the_guard_passes_what_trained_and_catches_what_is_off(name: str, size: float) -> None:
    model = perturb(adapted(SPECS[name]), size)
    trained = model.snapshot()
    assert_adapted(model, mini_clip(), pixels(8), trained=trained)
    tower: Any = model.encoder.tower
    if name in ADAPTERS:
        for block in tower.encoder.layers:
            block.mlp.fc2.forward = block.mlp.fc2.base.forward
    else:
        for block in tower.encoder.layers:
            block._forward_pre_hooks.clear()
    with pytest.raises(AdapterInactiveError, match="the encoder built anew"):
        assert_adapted(model, mini_clip(), pixels(8), trained=trained)


@each
def test_what_needs_plain_weights_is_null_with_its_reason(name: str) -> None:
    model, images = moved(name), land_cover(10)
    baseline = probe(mini_clip().encoder(), images)
    reading, _ = read_drift(model, mini_clip(), images, baseline)
    assert model.vision_state() is None
    lacking = {f"drift.{n}" for n, value in reading.drift.items() if value is None}
    assert lacking == {"drift.weight_drift_rel"} == set(not_read(mini_clip(), model))
    assert reading.drift["embedding_drift"] > 0  # type: ignore[operator]


# --- attention beside prompts ---


def among_originals(maps: Tensor, n: int) -> Tensor:
    """Rows and columns of CLS and patches, rows renormalised."""
    kept = [0, *range(1 + n, 1 + n + P)]
    part = maps[..., kept, :][..., kept]
    return part / part.sum(-1, keepdim=True)


@each_prompted
def test_attention_is_told_among_the_original_tokens(name: str) -> None:
    model, told = moved(name), list[BlockAttention]()
    with torch.no_grad(), attention_sink(model.encoder.tower, lambda _, a: told.append(a)):
        embeddings = model.encoder(pixels())
    expected, maps = through(model, pixels())
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-4)
    n = SPECS[name].prompts  # type: ignore[attr-defined]
    assert maps[0].shape[-1] == 1 + n + P
    for one, whole in zip(told, maps, strict=True):
        a = among_originals(whole, n)
        torch.testing.assert_close(one.cls, a[:, :, 0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.mean, a.mean(dim=1), rtol=1e-4, atol=1e-6)
        rows = a[:, :, 1:, 1:] / a[:, :, 1:, 1:].sum(-1, keepdim=True)
        bits = torch.distributions.Categorical(probs=rows).entropy().mean(-1) / torch.log(
            torch.tensor(2.0)
        )
        torch.testing.assert_close(one.patch_entropy_bits, bits, rtol=1e-4, atol=1e-4)


@each_prompted
def test_penalties_hold_the_attention_of_the_original_tokens(name: str) -> None:
    kinds = ("attention_preservation", "entropy_floor")
    penalties = [{"kind": kind, "weight": 1.0} for kind in kinds]
    spec = VptSpec.model_validate({**SPECS[name].model_dump(), "penalties": penalties})
    model = perturb(adapted(spec), 0.03)
    near = held_near(spec, model, mini_clip())
    assert near is not None
    with near.watching() as seen:
        model(pixels())
    divergence, shortfall = (v.detach() for v in near.values(seen, pixels()))
    n = spec.prompts
    now = torch.stack([among_originals(m, n)[:, :, 0] for m in through(model, pixels())[1]])
    was = torch.stack([m[:, :, 0] for m in through(adapted("full_ft"), pixels())[1]])
    kl = (was * (was / now).log()).sum(-1).mean()
    torch.testing.assert_close(divergence, kl, rtol=1e-3, atol=1e-6)
    entropies = [torch.distributions.Categorical(probs=a[..., 1:]).entropy() for a in (was, now)]
    expected = torch.relu(entropies[0] - entropies[1]).mean()
    torch.testing.assert_close(shortfall, expected, rtol=1e-3, atol=1e-6)


# --- what is refused ---


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MethodError) as caught:
        adapted(AdapterSpec(kind="adapter", name="wide", bottleneck=65))
    assert str(caught.value) == (
        "method wide bottleneck: expected at most the tower's width 64, got 65. Lower it."
    )
    with pytest.raises(SpecError, match="after: expected distinct values, got mlp twice"):
        study(methods=[{"kind": "adapter", "after": ["mlp", "mlp"]}])
    with pytest.raises(SpecError, match="depth: expected 'shallow' or 'deep'"):
        study(methods=[{"kind": "vpt", "depth": "middle"}])


def test_prompts_need_a_cls_token_and_adapters_do_not() -> None:
    with pytest.raises(MethodError, match="method shallow: expected a backbone with a CLS token"):
        build(small_siglip(), SPECS["shallow"], 3, seed=7, text_features=None)
    model = build(small_siglip(), SPECS["houlsby"], 3, seed=7, text_features=None)
    with torch.no_grad():
        assert torch.equal(model.encoder(pixels()), small_siglip().encoder()(pixels()))
    assert_adapted(perturb(model), small_siglip(), pixels(8))
