"""Penalties: each against a second implementation, and a loop that adds them and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from small_models import adapted, land_cover, mini_clip, perturb, pixels
from small_siglip import small_siglip
from small_study import study
from torch import Tensor, nn

from clipdrift.errors import MethodError, SpecError
from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.penalties.held import HeldNear, held_near
from clipdrift.spec import expand
from clipdrift.spec.audit import audit
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import FullFtSpec, LastBlocksSpec, LoraSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.engine import Engine
from clipdrift.step.micro_batches import MicroBatches
from clipdrift.step.objective import Inputs, Objective
from clipdrift.study.plan import require_fit
from clipdrift.training.loop import EpochDone, Stopped, epoch_flips, epoch_order, train

N = 22  # two batches of eight and one of six
KINDS = ["l2_sp", "feature_distillation", "attention_preservation", "entropy_floor"]
each_kind = pytest.mark.parametrize("kind", KINDS)
METHODS: dict[str, dict[str, Any]] = {
    "full_ft": {"kind": "full_ft", "name": "full_ft"},
    "lora": {"kind": "lora", "name": "lora", "dropout": 0.3},
    "last_blocks": {"kind": "last_blocks", "name": "last", "blocks": 2},
}
CLASSES: dict[str, type[MethodBase]] = {
    "full_ft": FullFtSpec, "lora": LoraSpec, "last_blocks": LastBlocksSpec
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def method(name: str = "full_ft", *penalties: dict[str, Any]) -> MethodBase:
    return CLASSES[name].model_validate({**METHODS[name], "penalties": list(penalties)})


def held(spec: MethodBase, model: AdaptedModel) -> HeldNear:
    found = held_near(spec, model, mini_clip())
    assert found is not None
    return found


def rules(**changes: Any) -> ScheduleSpec:
    return ScheduleSpec(**{"epochs": 2, "batch_size": 8, **changes})


def fit(spec: MethodBase, **changes: Any) -> tuple[AdaptedModel, list[EpochDone]]:
    model = adapted(spec)
    options: dict[str, Any] = {
        "learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7, "precision": "float32",
        "schedule": rules(), **changes,
    }  # fmt: skip
    near = held_near(spec, model, mini_clip())
    return model, list(train(model, land_cover(N), held=near, **options))


# --- what each one is, computed a second time ---


def maps(tower: nn.Module, values: Tensor) -> list[Tensor]:
    """[B, H, T, T] of every block by transformers' own eager attention, with its gradient."""
    copied: Any = tower
    before = copied.config._attn_implementation
    copied.config._attn_implementation = "eager"
    try:
        return list(copied(pixel_values=values, output_attentions=True).attentions)
    finally:
        copied.config._attn_implementation = before


def rows(model: Any, images: Tensor) -> list[Tensor]:
    return [m[:, :, 0] for m in maps(model.encoder.tower, model.encoder.normalise(images))]


def by_hand(kind: str, model: AdaptedModel, start: AdaptedModel, images: Tensor) -> Tensor:
    """The penalty written once more; `start` is the model at step 0, its encoder the baseline."""
    if kind == "l2_sp":
        pairs = zip(model.encoder.parameters(), start.encoder.parameters(), strict=True)
        squares = [((p - q.detach()) ** 2).sum() for p, q in pairs]
        return sum(squares[1:], squares[0]) / 2
    if kind == "feature_distillation":
        f, g = model.encoder(images), start.encoder(images).detach()
        return (2 - 2 * nn.functional.cosine_similarity(f, g)).mean()
    now, was = rows(model, images), [r.detach() for r in rows(start, images)]
    if kind == "attention_preservation":
        return torch.stack(
            [(b * (b / a).log()).sum(-1) for a, b in zip(now, was, strict=True)]
        ).mean()
    short = [
        torch.distributions.Categorical(probs=b[..., 1:]).entropy()
        - torch.distributions.Categorical(probs=a[..., 1:]).entropy()
        for a, b in zip(now, was, strict=True)
    ]
    return torch.relu(torch.stack(short)).mean()


def value_of(spec: MethodBase, model: AdaptedModel, near: HeldNear, images: Tensor) -> Tensor:
    with near.watching() as seen:
        model(images)
    (value,) = near.values(seen, images)
    return value


@each_kind
@pytest.mark.parametrize("name", METHODS)
def test_each_penalty_and_its_gradient_by_a_second_implementation(kind: str, name: str) -> None:
    spec, images = method(name, {"kind": kind, "weight": 1.0}), pixels(5)
    model, start = adapted(spec), adapted(spec)
    near = held(spec, model)
    perturb(model, 0.03)
    found = value_of(spec, model, near, images)
    expected = by_hand(kind, model, start, images)
    # Float32 sums over hundreds of thousands of weights, or a difference of nearly equal numbers.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert float(expected.detach()) > 1e-4
    trained = [p for n, p in model.trained().items() if n.startswith("encoder.")]
    found_grads = torch.autograd.grad(found, trained, allow_unused=True)
    expected_grads = torch.autograd.grad(expected, trained, allow_unused=True)
    for g, e, p in zip(found_grads, expected_grads, trained, strict=True):
        g, e = (torch.zeros_like(p) if x is None else x for x in (g, e))
        torch.testing.assert_close(g, e, rtol=2e-3, atol=1e-5)
    assert any(g is not None and float(g.norm()) > 1e-4 for g in found_grads)


@pytest.mark.parametrize("kind", ["attention_preservation", "entropy_floor"])
def test_attention_penalties_by_scipy(kind: str) -> None:
    spec, images = method("full_ft", {"kind": kind, "weight": 1.0}), pixels(3)
    model, start = adapted(spec), adapted(spec)
    near = held(spec, model)
    perturb(model, 0.03)
    with torch.no_grad():
        now, was = (torch.stack(rows(m, images)).double().numpy() for m in (model, start))
    if kind == "attention_preservation":
        expected = scipy.stats.entropy(was, now, axis=-1).mean()
    else:
        h_now, h_was = (scipy.stats.entropy(a[..., 1:], axis=-1) for a in (now, was))
        expected = np.maximum(h_was - h_now, 0).mean()
    # Attention itself is float32.
    assert float(value_of(spec, model, near, images).detach()) == pytest.approx(expected, rel=1e-4)


def test_distances_of_embeddings_as_they_are() -> None:
    spec = method("lora", {"kind": "feature_distillation", "weight": 1.0, "normalised": False})
    model, images = adapted(spec), pixels(5)
    near = held(spec, model)
    perturb(model, 0.03)
    with torch.no_grad():
        f, g = (e(images).double().numpy() for e in (model.encoder, mini_clip().encoder()))
    found = value_of(spec, model, near, images)
    assert float(found) == pytest.approx(np.mean(np.sum((f - g) ** 2, axis=1)), rel=1e-5)


@each_kind
def test_before_the_first_step_every_penalty_is_exactly_zero(kind: str) -> None:
    spec = method("lora", {"kind": kind, "weight": 1.0})
    model = adapted(spec).train()
    assert float(value_of(spec, model, held(spec, model), pixels(4)).detach()) == 0.0


def test_a_gradient_reaches_what_the_penalty_is_about_and_nothing_else() -> None:
    last = len(mini_clip().model.vision_model.encoder.layers) - 1
    reached = {}
    for kind in KINDS:
        spec = method("full_ft", {"kind": kind, "weight": 1.0})
        model = adapted(spec)
        near = held(spec, model)
        perturb(model, 0.03)
        value_of(spec, model, near, pixels(4)).backward()
        reached[kind] = {
            name for name, p in model.trained().items() if p.grad is not None and p.grad.any()
        }
    encoder = {n for n in adapted("full_ft").trained() if n.startswith("encoder.")}
    keys = {n for n in encoder if n.endswith("k_proj.bias")}  # shift a row by a constant: no effect
    assert reached["l2_sp"] == encoder
    assert reached["feature_distillation"] | keys == encoder
    behind = {
        n
        for n in encoder
        if "projection" in n
        or "post_layernorm" in n
        or any(f"layers.{last}.{part}" in n for part in ("mlp", "layer_norm2"))
        or any(f"layers.{last}.self_attn.{part}" in n for part in ("v_proj", "out_proj"))
    }
    for kind in ("attention_preservation", "entropy_floor"):
        assert reached[kind] | keys == encoder - behind | keys, kind
        assert not reached[kind] & behind


# --- the loop ---


def bits(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_with_weight_0_training_is_plain_to_the_last_bit(name: str, precision: str) -> None:
    """Also where a frozen part is kept, dropout draws, and fast kernels are in place."""
    none = [{"kind": kind, "weight": 0.0} for kind in KINDS]
    schedule = rules(epochs=3)
    plain, told = fit(method(name), precision=precision, schedule=schedule)
    model, done = fit(method(name, *none), precision=precision, schedule=schedule)
    assert all(torch.equal(bits(model)[n], p) for n, p in bits(plain).items())
    assert [d.train_loss for d in done] == [d.train_loss for d in told]
    assert all(d.penalties == {} for d in told)
    assert set(done[-1].penalties) == set(KINDS)  # measured all the same
    assert min(done[-1].penalties.values()) > 0


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_heavier_penalty_holds_the_encoder_nearer(kind: str, precision: str) -> None:
    ends = []
    for weight in (0.0, 100.0):
        spec = method("full_ft", {"kind": kind, "weight": weight})
        _, done = fit(spec, precision=precision, schedule=rules(epochs=3))
        ends.append(done[-1].penalties[kind])
    assert ends[1] < 0.7 * ends[0]


def loop_by_hand(spec: MethodBase, weights: dict[str, float]) -> tuple[AdaptedModel, list[Any]]:
    """Training written once more, with every penalty computed by hand."""
    model, start, images, schedule = adapted(spec), adapted(spec), land_cover(N), rules()
    trained = list(model.trained().values())
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=schedule.weight_decay)
    schedule_of_rates = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: 0.5 * (1 + np.cos(np.pi * (s - 1) / 5)) if s else 1.0
    )
    means = []
    for epoch in (1, 2):
        order, sums = epoch_order(N, 7, epoch), dict.fromkeys(weights, 0.0)
        for start_at in range(0, N, 8):
            chosen = order[start_at : start_at + 8]
            batch = torch.from_numpy(images.pixels[chosen])
            flips = torch.from_numpy(epoch_flips(N, 7, epoch)[chosen])[:, None, None, None]
            batch = torch.where(flips, batch.flip(2), batch)
            labels = torch.from_numpy(images.labels[chosen])
            loss = nn.functional.cross_entropy(model.train()(batch), labels)
            for kind, weight in weights.items():
                value = by_hand(kind, model, start, batch)
                sums[kind] += float(value.detach()) * len(chosen)
                loss = loss + weight * value
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, schedule.clip_norm)
            optimiser.step()
            schedule_of_rates.step()
        means.append({kind: total / N for kind, total in sums.items()})
    return model, means


@pytest.mark.slow
def test_the_loss_is_cross_entropy_and_the_weighted_penalties() -> None:
    weights = {"l2_sp": 0.3, "feature_distillation": 2.0, "attention_preservation": 5.0}
    weights["entropy_floor"] = 3.0
    asked = [{"kind": kind, "weight": weight} for kind, weight in weights.items()]
    spec = method("full_ft", *asked)
    model, done = fit(spec)
    other, means = loop_by_hand(spec, weights)
    ends, starts = bits(other), bits(adapted(spec))
    for name, value in bits(model).items():
        if "k_proj.bias" in name:  # its gradient is rounding alone, which AdamW brings to full size
            continue
        moved, apart = ends[name] - starts[name], value - ends[name]
        # AdamW divides by small numbers, and eager attention sums in another order.
        assert float(apart.norm()) <= 1e-2 * float(moved.norm()), name
    for one, expected in zip(done, means, strict=True):
        assert one.penalties == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_parts_of_a_batch_add_up_to_it(size: int) -> None:
    spec = method("full_ft", *({"kind": kind, "weight": 1.0} for kind in KINDS))
    model = adapted(spec)
    near = held(spec, model)
    perturb(model, 0.03)
    inputs, labels = Inputs(pixels(7), pixels(7)), torch.arange(7)
    found = []
    for at_once in (None, size):
        micro = MicroBatches(Objective(model, near), model.zero_grad)
        micro.size = at_once
        terms = micro.backward(inputs, labels)
        found.append((terms, {n: p.grad for n, p in model.trained().items()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-7)
    assert found[0][0].shape == (5,)
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 4])
def test_penalised_training_goes_on_after_a_stop_to_the_same_bits(after: int) -> None:
    spec = method("lora", *({"kind": kind, "weight": 1.0} for kind in KINDS))
    whole, told = fit(spec)
    steps = iter(range(1, 99))
    with pytest.raises(Stopped) as stopped:
        fit(spec, stop=lambda: next(steps) == after)
    state = copy.deepcopy(stopped.value.state)
    model, done = fit(spec, resume=state)
    assert all(torch.equal(bits(model)[n], p) for n, p in bits(whole).items())
    assert done[-1].penalties == told[-1].penalties


def test_blocks_whose_attention_is_read_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    monkeypatch.setattr("clipdrift.step.engine.pays_to_compile", lambda *_: True)
    monkeypatch.setattr(
        "clipdrift.step.engine.compile_blocks", lambda blocks, _: compiled.append(1) or []
    )
    for kind, expected in (("attention_preservation", 0), ("feature_distillation", 1)):
        compiled.clear()
        spec = method("full_ft", {"kind": kind, "weight": 1.0})
        model = adapted(spec)
        Engine(model, land_cover(N), rules(), "bfloat16", held(spec, model))
        assert len(compiled) == expected


def test_the_untouched_backbone_stays_untouched_and_keeps_no_hook() -> None:
    before = {k: v.clone() for k, v in mini_clip().model.state_dict().items()}
    spec = method("full_ft", *({"kind": kind, "weight": 1.0} for kind in KINDS))
    model, _ = fit(spec)
    after = mini_clip().model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    for module in (*mini_clip().model.modules(), *model.modules()):
        assert not module._forward_hooks


# --- the study file ---


def faults_of(*penalties: Any, kind: str = "lora") -> str:
    with pytest.raises(SpecError) as caught:
        study(methods=[{"kind": kind, "penalties": list(penalties)}])
    return str(caught.value)


def test_penalties_that_make_no_sense_are_refused() -> None:
    l2 = {"kind": "l2_sp", "weight": 1.0}
    assert "penalties: expected distinct values, got l2_sp twice" in faults_of(l2, l2)
    assert "none on a method that leaves the vision tower as it is, got l2_sp" in faults_of(
        l2, kind="linear_probe"
    )
    assert "weight" in faults_of({"kind": "l2_sp", "weight": -1})
    assert "weight" in faults_of({"kind": "l2_sp"})
    unknown = faults_of({"kind": "l2", "weight": 1})
    assert all(repr(kind) in unknown or kind in unknown for kind in KINDS)


@pytest.mark.parametrize("kind", ["attention_preservation", "entropy_floor"])
def test_attention_is_not_held_where_there_is_no_cls_token(kind: str) -> None:
    spec = study(
        methods=[
            {"kind": "full_ft", "penalties": [{"kind": kind, "weight": 1.0}]},
            {"kind": "lora", "rank": 99},
        ]
    )
    with pytest.raises(MethodError) as caught:
        require_fit(spec, small_siglip())
    first, second = (str(fault) for fault in caught.value.faults)
    assert first.startswith(
        f"method full_ft penalties {kind}: expected a backbone with a CLS token"
    )
    assert first.endswith("Choose feature_distillation or l2_sp, or another backbone.")
    assert "method lora rank" in second


@pytest.mark.parametrize("kind", ["l2_sp", "feature_distillation"])
def test_other_penalties_work_without_a_cls_token(kind: str) -> None:
    spec = method("full_ft", {"kind": kind, "weight": 1.0})
    model = build(small_siglip(), spec, 10, seed=7, text_features=None)
    near = held_near(spec, model, small_siglip())
    assert near is not None
    perturb(model, 0.03)
    assert float(value_of(spec, model, near, pixels(3)).detach()) > 0


def test_identity_is_as_it_was_without_penalties_and_follows_them() -> None:
    def identity(penalties: list[Any]) -> str:
        spec = study(methods=["full_ft", {"kind": "lora", "penalties": penalties}])
        return expand(spec, precision="float32")[1].identity({})

    plain = study(methods=["full_ft", "lora"])
    assert identity([]) == expand(plain, precision="float32")[1].identity({})
    different = [[], *([{"kind": kind, "weight": w}] for kind in KINDS for w in (0, 1))]
    different.append([{"kind": "feature_distillation", "weight": 1, "normalised": False}])
    assert len({identity(penalties) for penalties in different}) == len(different)


def test_the_audit_tells_penalties_as_part_of_the_method() -> None:
    l2, floor = {"kind": "l2_sp", "weight": 0.01}, {"kind": "entropy_floor", "weight": 2}
    spec = study(methods=["full_ft", {"name": "held", "kind": "full_ft", "penalties": [l2, floor]}])
    rows_told = {row.factor: (row.value, row.status) for row in audit(spec)}
    assert rows_told["penalties"] == ("held: 0.01 l2_sp, 2 entropy_floor", "crossed")
    assert "penalties" not in {row.factor for row in audit(study())}
