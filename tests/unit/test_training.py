"""The one training loop: what it feeds, at which rates, and that it is AdamW with clipping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from small_models import METHODS, adapted, land_cover
from torch import Tensor, nn

from clipdrift.data.images import Images
from clipdrift.errors import RecordError
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.spec.methods import LoraSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.engine import autocast
from clipdrift.training.loop import (
    EXPLODED_NATS,
    Diverged,
    EpochDone,
    Stopped,
    epoch_flips,
    epoch_order,
    in_batches,
    order_fingerprint,
    rate_factor,
    train,
)
from clipdrift.training.state import TrainState

Array = NDArray[np.float64]
N = 22  # two batches of eight and one of six


pytestmark = pytest.mark.usefixtures("one_thread")


def schedule(**changes: Any) -> ScheduleSpec:
    return ScheduleSpec(**{"epochs": 2, "batch_size": 8, **changes})


def fit(model: AdaptedModel, images: Images | None = None, **changes: Any) -> list[EpochDone]:
    options = {"learning_rate": 1e-3, "seed": 7, "precision": "float32", **changes}
    options.setdefault("head_rate", options["learning_rate"])
    options.setdefault("schedule", schedule())
    return list(train(model, land_cover(N) if images is None else images, **options))


class Watched:
    """A model that keeps every batch it sees, in training mode or not."""

    def __init__(self, model: AdaptedModel) -> None:
        self.model = model
        self.batches: list[NDArray[np.uint8]] = []
        self.modes: list[bool] = []
        model.register_forward_pre_hook(self._keep)

    def _keep(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.batches.append(inputs[0].numpy().copy())
        self.modes.append(model.training)


class SpyAdamW(torch.optim.AdamW):
    """AdamW that keeps the rates and the gradient norm of each step."""

    steps: list[tuple[list[float], float]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).steps = []
        self.options = options

    def step(self, *args: Any, **options: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads if g is not None))
        self.steps.append(([group["lr"] for group in self.param_groups], norm))
        return super().step(*args, **options)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[SpyAdamW]:
    monkeypatch.setattr(torch.optim, "AdamW", SpyAdamW)
    return SpyAdamW


def seen(method: str, **changes: Any) -> tuple[list[NDArray[np.uint8]], Tensor]:
    model = adapted(method, seed=changes.get("seed", 7))
    head = model.head.weight.detach().clone()
    watched = Watched(model)
    fit(model, **changes)
    assert all(watched.modes)
    return watched.batches, head


def test_all_methods_see_the_same_batches_and_start_at_the_same_head() -> None:
    """The images that arrive at the model, not those that were meant to."""
    batches, head = seen("full_ft")
    assert len(batches) == 6
    for method in ("lora", "linear_probe", "last_blocks"):
        others, other_head = seen(method, learning_rate=3e-5)
        assert torch.equal(other_head, head)
        assert len(others) == len(batches)
        for a, b in zip(batches, others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_seed_gives_another_order_and_head() -> None:
    batches, head = seen("linear_probe")
    others, other_head = seen("linear_probe", seed=11)
    assert not torch.equal(head, other_head)
    assert not any(np.array_equal(a, b) for a, b in zip(batches, others, strict=True))


def test_another_epoch_gives_another_order_and_other_flips() -> None:
    assert not np.array_equal(epoch_order(N, 7, 1), epoch_order(N, 7, 2))
    assert not np.array_equal(epoch_flips(N, 7, 1), epoch_flips(N, 7, 2))
    assert not np.array_equal(epoch_order(N, 7, 1), epoch_order(N, 1, 7))


@pytest.mark.parametrize("flip", [True, False])
def test_batches_hold_every_image_once_mirrored_as_pillow_mirrors(flip: bool) -> None:
    batches, _ = seen("full_ft", schedule=schedule(horizontal_flip=flip))
    assert [len(batch) for batch in batches] == [8, 8, 6, 8, 8, 6]
    images = land_cover(N).pixels
    mirrored = 0
    for epoch in (1, 2):
        found = np.concatenate(batches[3 * epoch - 3 : 3 * epoch])
        flips = epoch_flips(N, 7, epoch)
        for position, image in zip(epoch_order(N, 7, epoch), found, strict=True):
            expected = Image.fromarray(images[position])
            if flip and flips[position]:
                expected, mirrored = ImageOps.mirror(expected), mirrored + 1
            np.testing.assert_array_equal(image, np.asarray(expected))
    assert mirrored == (sum(epoch_flips(N, 7, e).sum() for e in (1, 2)) if flip else 0)


def test_labels_go_with_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[Tensor] = []
    loss = nn.functional.cross_entropy

    def spy(logits: Tensor, target: Tensor) -> Tensor:
        targets.append(target.clone())
        return loss(logits, target)

    monkeypatch.setattr(nn.functional, "cross_entropy", spy)
    images = land_cover(N)
    part = images.select(np.array([3, 1, 17, 8, 9, 20]))
    fit(adapted("linear_probe"), part, schedule=schedule(epochs=1, batch_size=4))
    assert torch.cat(targets).tolist() == part.labels[epoch_order(6, 7, 1)].tolist()


def test_training_does_not_write_to_the_images() -> None:
    images = land_cover(N)
    before = images.sha256()
    fit(adapted("linear_probe"), images)
    assert images.sha256() == before


@given(n=st.integers(1, 300), seed=st.integers(0, 2**31 - 1), epoch=st.integers(1, 1000))
def test_an_order_is_a_permutation_and_always_the_same(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch))
    np.testing.assert_array_equal(epoch_flips(n, seed, epoch), epoch_flips(n, seed, epoch))


def test_half_of_the_images_are_mirrored() -> None:
    flips = np.concatenate([epoch_flips(1000, 7, epoch) for epoch in range(1, 11)])
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / 100  # five standard errors


def test_the_fingerprint_follows_what_the_model_will_see() -> None:
    base = order_fingerprint(N, schedule(), 7)
    assert base == order_fingerprint(N, schedule(batch_size=4, weight_decay=0.5), 7)
    others = [
        order_fingerprint(N, schedule(), 8),
        order_fingerprint(N + 1, schedule(), 7),
        order_fingerprint(N, schedule(epochs=3), 7),
        order_fingerprint(N, schedule(horizontal_flip=False), 7),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize(
    ("warmup_fraction", "epochs"), [(0.0, 1), (0.01, 7), (0.05, 7), (0.3, 1), (0.3, 4)]
)
def test_rates_are_warm_up_and_cosine(
    spy: type[SpyAdamW], warmup_fraction: float, epochs: int
) -> None:
    """After the warm-up transformers' schedule; in it one step ahead, so that none is at zero."""
    from transformers import get_cosine_schedule_with_warmup

    rules = schedule(epochs=epochs, warmup_fraction=warmup_fraction)
    fit(adapted("lora"), schedule=rules, learning_rate=1e-4, head_rate=3e-3)
    total = epochs * 3
    warmup = max(1, round(total * warmup_fraction)) if warmup_fraction else 0
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = get_cosine_schedule_with_warmup(reference, warmup, total)
    assert len(spy.steps) == total
    for step, (rates, _) in enumerate(spy.steps):
        shape = cosine.get_last_lr()[0] if step >= warmup else (step + 1) / warmup
        assert rates == pytest.approx([3e-3 * shape, 1e-4 * shape], rel=1e-12, abs=1e-20)
        reference.step()
        cosine.step()
    assert max(rates[1] for rates, _ in spy.steps) == pytest.approx(1e-4, rel=1e-12)
    assert min(rates[1] for rates, _ in spy.steps) > 0


@pytest.mark.slow
def test_a_warm_up_from_zero_is_the_published_codes(spy: type[SpyAdamW]) -> None:
    """max(1, int(.05 x steps)) steps; step / warm-up; half a cosine after: written out."""
    rules = schedule(epochs=14, warmup_fraction=0.05, warmup="from_zero")  # 42 steps of 3 an epoch
    fit(adapted("lora"), schedule=rules, learning_rate=1e-4, head_rate=1e-4)
    cosine = [0.5 * (1 + np.cos(np.pi * done / 40)) for done in range(40)]
    factors = [rates[1] / 1e-4 for rates, _ in spy.steps]
    assert factors == pytest.approx([0.0, 0.5, *cosine], rel=1e-12, abs=1e-15)
    # 0.05 x 3 steps is none: one step, which does not move anything. 0.05 x 50 = 2.5: two steps.
    assert [rate_factor(s, 3, 0.05, "from_zero") for s in (0, 1)] == [0.0, 1.0]
    assert [rate_factor(s, 50, 0.05, "from_zero") for s in (0, 1, 2)] == [0.0, 0.5, 1.0]
    assert rate_factor(0, 50, 0.0, "from_zero") == 1.0


def test_the_factor_ends_at_zero_and_stays_there() -> None:
    assert rate_factor(100, 100, 0.05) == pytest.approx(0, abs=1e-15)
    assert rate_factor(150, 100, 0.05) == pytest.approx(0, abs=1e-15)
    assert rate_factor(0, 1, 0.0) == 1.0
    assert rate_factor(0, 1, 0.5) == 1.0


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def probe_by_hand(
    w: Array, b: Array, features: Array, labels: NDArray[np.int64], rules: ScheduleSpec, rate: float
) -> tuple[Array, Array, list[float]]:
    """A linear classifier under AdamW with clipping, in float64; returns weights and norms."""
    total = rules.epochs * math.ceil(len(labels) / rules.batch_size)
    values, norms, step = [w, b], [], 0
    m, v = [w * 0, b * 0], [w * 0, b * 0]
    for epoch in range(1, rules.epochs + 1):
        order = epoch_order(len(labels), 7, epoch)
        for start in range(0, len(order), rules.batch_size):
            chosen = order[start : start + rules.batch_size]
            x, y = features[chosen], np.eye(10)[labels[chosen]]
            error = (softmax(x @ values[0].T + values[1]) - y) / len(chosen)
            grads = [error.T @ x, error.sum(axis=0)]
            norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
            norms.append(norm)
            lr = rate * rate_factor(step, total, rules.warmup_fraction)
            step += 1
            for i, grad in enumerate(grads):
                g = grad * min(1.0, rules.clip_norm / (norm + 1e-6))
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g**2
                moment, spread = m[i] / (1 - 0.9**step), v[i] / (1 - 0.999**step)
                decayed = values[i] * (1 - lr * rules.weight_decay)
                values[i] = decayed - lr * moment / (np.sqrt(spread) + 1e-8)
    return values[0], values[1], norms


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1, "batch_size": N},
        {"epochs": 3},
        {"epochs": 3, "clip_norm": 0.3, "weight_decay": 0.3, "warmup_fraction": 0.2},
        {"epochs": 2, "clip_norm": 1e6, "weight_decay": 0.0},
    ],
    ids=str,
)
def test_training_a_probe_is_adamw_with_clipping_by_hand(changes: dict[str, Any]) -> None:
    rules = schedule(horizontal_flip=False, **changes)
    model, images = adapted("linear_probe"), land_cover(N)
    start = [p.detach().double().numpy().copy() for p in (model.head.weight, model.head.bias)]
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(images.pixels)).double().numpy()
    fit(model, images, schedule=rules, learning_rate=0.01)
    w, b, norms = probe_by_hand(start[0], start[1], features, images.labels, rules, 0.01)
    if rules.clip_norm < 1:
        assert min(norms) > rules.clip_norm  # or clipping would not be tested
    # Float32 against float64 over up to nine steps that each move every weight by the rate.
    np.testing.assert_allclose(model.head.weight.detach(), w, rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.head.bias.detach(), b, rtol=0, atol=2e-5)
    assert np.abs(w - start[0]).max() > 0.005


def test_clipping_acts_on_all_gradients_together(spy: type[SpyAdamW]) -> None:
    fit(adapted("full_ft"), schedule=schedule(clip_norm=1e6))
    free = [norm for _, norm in spy.steps]
    limit = min(free) / 2
    fit(adapted("full_ft"), schedule=schedule(clip_norm=limit))
    clipped = [norm for _, norm in spy.steps]
    assert clipped == pytest.approx([limit] * 6, rel=1e-4)


def test_gradients_within_the_limit_are_left_alone(spy: type[SpyAdamW]) -> None:
    norms = []
    for limit in (1e6, 1e7):
        fit(adapted("lora"), schedule=schedule(clip_norm=limit))
        norms.append([norm for _, norm in spy.steps])
    assert norms[0] == norms[1]


def mean_loss(model: AdaptedModel, images: Images) -> float:
    with torch.no_grad():
        logits = model(torch.from_numpy(images.pixels)).double().numpy()
    rows = np.log(softmax(logits))[np.arange(len(images)), images.labels]
    return float(-rows.mean())


def test_the_loss_of_an_epoch_is_the_mean_over_images_not_batches() -> None:
    model, images = adapted("linear_probe"), land_cover(N)
    rules = schedule(epochs=1, horizontal_flip=False)
    (done,) = fit(model, images, learning_rate=0.0, schedule=rules)
    assert done.train_loss == pytest.approx(mean_loss(model, images), rel=1e-5)
    assert (done.epoch, done.step, done.images) == (1, 3, N)
    assert done.seconds > 0


def test_training_lowers_the_loss() -> None:
    losses = [done.train_loss for done in fit(adapted("full_ft"), schedule=schedule(epochs=8))]
    assert losses[-1] < 0.3 * losses[0]


def test_epochs_are_counted_and_the_model_is_handed_out_in_eval_mode() -> None:
    model = adapted("lora")
    options: Any = {"learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7, "precision": "float32"}
    steps = []
    for done in train(model, land_cover(N), schedule=schedule(epochs=3), **options):
        assert not any(module.training for module in model.modules())
        steps.append((done.epoch, done.step, done.images))
    assert steps == [(1, 3, N), (2, 6, N), (3, 9, N)]


@pytest.mark.parametrize(
    ("max_steps", "expected"),
    [(1, [(1, 1, 8)]), (3, [(1, 3, N)]), (4, [(1, 3, N), (2, 4, 8)]), (99, [(1, 3, N), (2, 6, N)])],
)
def test_training_may_stop_early(max_steps: int, expected: list[tuple[int, int, int]]) -> None:
    done = fit(adapted("linear_probe"), schedule=schedule(max_steps=max_steps))
    assert [(d.epoch, d.step, d.images) for d in done] == expected


def weights(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


DROPOUT = LoraSpec(kind="lora", name="lora", dropout=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full_ft", "lora", "dropout"])
def test_the_same_seed_gives_the_same_weights_to_the_last_bit(method: str) -> None:
    spec = DROPOUT if method == "dropout" else METHODS[method]
    results = []
    options: Any = {"learning_rate": 1e-3, "head_rate": 1e-3, "precision": "float32"}
    for drawn in (0, 3):
        model = adapted(spec)
        for _ in train(model, land_cover(N), schedule=schedule(), seed=7, **options):
            torch.rand(drawn)  # what a reader draws between epochs must not matter
        results.append(weights(model))
    assert all(torch.equal(results[0][name], value) for name, value in results[1].items())
    other = adapted(spec)
    fit(other, seed=8)
    assert any(not torch.equal(results[0][name], value) for name, value in weights(other).items())


def test_dropout_acts_in_training() -> None:
    trained = {}
    for dropout in (0.0, 0.3):
        model = adapted(LoraSpec(kind="lora", name="lora", dropout=dropout))
        fit(model)
        trained[dropout] = model.head.weight.detach()
    assert not torch.equal(trained[0.0], trained[0.3])


def test_bfloat16_trains_float32_weights_to_nearly_the_same_place() -> None:
    models, losses = {}, {}
    for precision in ("float32", "bfloat16"):
        models[precision] = adapted("full_ft")
        done = fit(models[precision], precision=precision, learning_rate=1e-4)
        losses[precision] = done[-1].train_loss
    exact, rough = (weights(models[p]) for p in ("float32", "bfloat16"))
    assert {value.dtype for value in rough.values()} == {torch.float32}
    start = weights(adapted("full_ft"))
    moved = torch.cat([(exact[n] - start[n]).flatten() for n in start])
    apart = torch.cat([(exact[n] - rough[n]).flatten() for n in start])
    assert 0 < float(apart.norm()) < 0.5 * float(moved.norm())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


def test_autocast_is_only_for_bfloat16() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with autocast(torch.device("cpu"), precision):
            assert (a @ a).dtype == dtype


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_at_its_step(step: int, value: float) -> None:
    model = adapted("linear_probe")
    calls = []

    def spoil(_: nn.Module, __: Any, logits: Tensor) -> Tensor:
        calls.append(None)
        return logits * value if len(calls) == step else logits

    model.register_forward_hook(spoil)
    with pytest.raises(Diverged) as caught:
        fit(model)
    assert caught.value.step == step
    assert str(caught.value) == f"loss not finite at step {step}"
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(("factor", "diverges"), [(0.9, False), (1.1, True)])
def test_a_loss_that_has_exploded_stops_at_its_step(factor: float, diverges: bool) -> None:
    """All images of class 0, logits that favour another by `factor` times the bound."""
    model, part = adapted("linear_probe"), land_cover(N)
    images = Images(part.pixels, part.index, np.zeros(N, dtype=np.int64))
    favoured = torch.eye(10)[1] * factor * EXPLODED_NATS
    model.register_forward_hook(lambda _, __, logits: logits * 0 + favoured)
    if not diverges:
        assert fit(model, images)[0].train_loss == pytest.approx(factor * EXPLODED_NATS)
        return
    with pytest.raises(Diverged, match=r"^loss above 1,000 nats at step 1$"):
        fit(model, images)


def test_a_gradient_that_is_no_number_stops_before_it_is_applied() -> None:
    model = adapted("full_ft")
    model.head.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(Diverged) as caught:
        fit(model)
    assert caught.value.step == 1
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_batches_come_in_the_order_of_the_images() -> None:
    images = land_cover(N)
    for size, lengths in ((8, [8, 8, 6]), (100, [N])):
        batches = list(in_batches(images, size))
        assert [len(batch) for batch in batches] == lengths
        assert torch.equal(torch.cat(batches), torch.from_numpy(images.pixels))


def copied(state: TrainState) -> TrainState:
    """What is left of a state once the process that held the model is gone."""
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    return TrainState(state.epoch, state.step, state.images, state.seconds, tensors)


def interrupted(spec: Any, after: int, options: dict[str, Any]) -> tuple[AdaptedModel, list[Any]]:
    """Train to a step, throw everything away but the state, go on with a fresh model."""
    done, steps = [], 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == after

    try:
        for one in train(adapted(spec), land_cover(N), stop=stop, **options):
            done.append((one.epoch, one.step, one.train_loss, one.images))
        pytest.fail("training did not stop")
    except Stopped as stopped:
        state = copied(stopped.state)
    assert state.step == after
    torch.rand(after)  # the process that goes on has drawn other numbers
    model = adapted(spec)
    for one in train(model, land_cover(N), resume=state, **options):
        done.append((one.epoch, one.step, one.train_loss, one.images))
    return model, done


UNDISTURBED: dict[str, tuple[AdaptedModel, list[Any]]] = {}


@pytest.mark.parametrize("after", range(1, 7))
@pytest.mark.parametrize("method", ["full_ft", "dropout"])
def test_training_goes_on_after_any_step_to_the_same_bits(method: str, after: int) -> None:
    spec = DROPOUT if method == "dropout" else METHODS[method]
    options: dict[str, Any] = {
        "schedule": schedule(), "learning_rate": 1e-3, "head_rate": 3e-3, "seed": 7,
        "precision": "float32",
    }  # fmt: skip
    if method not in UNDISTURBED:
        model = adapted(spec)
        steps = train(model, land_cover(N), **options)
        UNDISTURBED[method] = model, [(d.epoch, d.step, d.train_loss, d.images) for d in steps]
    whole, told = UNDISTURBED[method]
    model, done = interrupted(spec, after, options)
    assert done == told
    for name, value in weights(whole).items():
        assert torch.equal(weights(model)[name], value), name


@pytest.mark.slow
def test_training_goes_on_from_an_epoch_that_was_read() -> None:
    options: Any = {
        "schedule": schedule(epochs=3), "learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7,
        "precision": "float32",
    }  # fmt: skip
    whole, states = adapted(DROPOUT), []
    for done in train(whole, land_cover(N), **options):
        states.append(copied(done.state()))
    assert [(s.epoch, s.step, s.images) for s in states] == [(1, 3, N), (2, 6, N), (3, 9, N)]
    for state in states:
        model = adapted(DROPOUT)
        epochs = [d.epoch for d in train(model, land_cover(N), resume=state, **options)]
        assert epochs == list(range(state.epoch, 4))
        assert all(torch.equal(weights(model)[n], v) for n, v in weights(whole).items())


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_limit_of_steps_counts_those_done_before(after: int) -> None:
    options: dict[str, Any] = {
        "schedule": schedule(max_steps=4), "learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7,
        "precision": "float32",
    }  # fmt: skip
    _, done = interrupted(METHODS["linear_probe"], after, options)
    assert [(epoch, step, images) for epoch, step, _, images in done] == [(1, 3, N), (2, 4, 8)]


def test_a_state_of_another_method_is_refused() -> None:
    options: Any = {
        "schedule": schedule(), "learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7,
        "precision": "float32",
    }  # fmt: skip
    state = next(iter(train(adapted("lora"), land_cover(N), **options))).state()
    with pytest.raises(RecordError, match="exactly the 2 tensors that the method trains"):
        list(train(adapted("linear_probe"), land_cover(N), resume=state, **options))
    short = {k: v for k, v in state.tensors.items() if not k.startswith("exp_avg_sq.head.bias")}
    lacking = TrainState(state.epoch, state.step, state.images, state.seconds, short)
    with pytest.raises(RecordError, match="saved state of the run: expected the optimiser's"):
        list(train(adapted("lora"), land_cover(N), resume=lacking, **options))
