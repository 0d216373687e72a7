"""Fast ways to a training step: each equals the plain way, and leaves the model as it was."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from small_models import METHODS, adapted, land_cover, mini_clip, pixels
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from clipdrift.errors import TrainingError
from clipdrift.machine.devices import can_compile
from clipdrift.machine.memory import out_of_memory
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.spec.methods import LastBlocksSpec, LoraSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step import fast, frozen_prefix
from clipdrift.step.frozen_prefix import frozen_blocks
from clipdrift.step.kernels import FastDropout, QuickGelu
from clipdrift.step.micro_batches import MicroBatches
from clipdrift.step.objective import Inputs, Objective
from clipdrift.training.loop import EpochDone, epoch_flips, epoch_order, rate_factor, train

N = 22  # two batches of eight and one of six
LORA = LoraSpec(kind="lora", name="lora", dropout=0.0)
DROPOUT = LoraSpec(kind="lora", name="lora", dropout=0.3)
TWO_BLOCKS = LastBlocksSpec(kind="last_blocks", name="two", blocks=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def rules(**changes: Any) -> ScheduleSpec:
    return ScheduleSpec(**{"epochs": 3, "batch_size": 8, **changes})


def fit(model: AdaptedModel, schedule: ScheduleSpec, **changes: Any) -> list[EpochDone]:
    options: dict[str, Any] = {
        "learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7, "precision": "float32", **changes
    }  # fmt: skip
    return list(train(model, land_cover(N), schedule=schedule, **options))


def plain(model: AdaptedModel, schedule: ScheduleSpec, *, bfloat16: bool = False) -> AdaptedModel:
    """The loop written once more, without anything that makes it fast."""
    images = land_cover(N)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, weight_decay=schedule.weight_decay, fused=True)
    total, step = schedule.epochs * 3, 0
    for epoch in range(1, schedule.epochs + 1):
        order = epoch_order(N, 7, epoch)
        flips = epoch_flips(N, 7, epoch) & schedule.horizontal_flip
        for start in range(0, N, 8):
            chosen = order[start : start + 8]
            batch = torch.from_numpy(images.pixels[chosen])
            mirrored = torch.from_numpy(flips[chosen])[:, None, None, None]
            batch = torch.where(mirrored, batch.flip(2), batch)
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model.train()(batch)
            cross_entropy(logits.float(), torch.from_numpy(images.labels[chosen])).backward()
            nn.utils.clip_grad_norm_(trained, schedule.clip_norm)
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * rate_factor(step, total, schedule.warmup_fraction)
            optimiser.step()
            step += 1
    return model


def trained(model: AdaptedModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.trained().values()])


def apart(model: AdaptedModel, other: AdaptedModel, start: AdaptedModel) -> float:
    """Distance of two trained models as a part of how far training moved them."""
    moved = trained(other) - trained(start)
    return float((trained(model) - trained(other)).norm() / moved.norm())


# --- batches that do not fit ---


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]


class Small:
    """Stands before a model and has no memory for more than `most` images at a time."""

    def __init__(self, model: AdaptedModel, most: int, error: BaseException) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []
        model.register_forward_pre_hook(self._check)

    def _check(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.sizes.append(len(inputs[0]))
        if len(inputs[0]) > self.most:
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_a_batch_that_does_not_fit_is_split_with_equal_results(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    model, start = adapted("full_ft"), adapted("full_ft")
    small = Small(model, 3, error)
    with caplog.at_level(logging.WARNING):
        done = fit(model, rules())
    # Float32 sums in another order, over nine steps of AdamW, which divides by small numbers.
    assert apart(model, plain(adapted("full_ft"), rules()), start) < 1e-3
    assert [d.micro_batch for d in done] == [2, 2, 2]
    assert small.sizes[:6] == [8, 4, 2, 2, 2, 2]
    assert set(small.sizes[2:]) == {2}
    assert [r.message for r in caplog.records] == [
        "out of memory: batches of 8 are taken 4 images at a time",
        "out of memory: batches of 8 are taken 2 images at a time",
    ]


def test_unequal_parts_weigh_as_their_images_do() -> None:
    """Seven images as four and three: the gradient of the mean over seven, not of two means."""
    images, labels = pixels(7), torch.arange(7)
    gradients = []
    for size in (None, 4):
        model = adapted("full_ft")
        micro = MicroBatches(Objective(model), model.zero_grad)
        micro.size = size
        loss = micro.backward(Inputs(images), labels)
        gradients.append((loss, [p.grad for p in model.trained().values()]))
    model = adapted("full_ft")
    expected = cross_entropy(model(images), labels)
    expected.backward()
    assert torch.equal(gradients[0][0], expected.detach().reshape(1))
    for p, whole, split in zip(
        model.trained().values(), gradients[0][1], gradients[1][1], strict=True
    ):
        assert p.grad is not None
        assert whole is not None
        assert split is not None
        assert torch.equal(whole, p.grad)
        # Rounding of float32 sums; the gradient of key biases is nothing else.
        torch.testing.assert_close(split, p.grad, rtol=1e-3, atol=1e-6)


def test_what_a_failed_backward_pass_left_is_removed() -> None:
    model, images, labels = adapted("full_ft"), pixels(6), torch.arange(6)
    failing = [True]

    def once(grad: Tensor) -> Tensor:
        if failing.pop() if failing else False:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grad

    model.encoder.tower.embeddings.class_embedding.register_hook(once)
    micro = MicroBatches(Objective(model), model.zero_grad)
    micro.backward(Inputs(images), labels)
    assert micro.size == 3
    other = adapted("full_ft")
    cross_entropy(other(images), labels).backward()
    for p, q in zip(model.trained().values(), other.trained().values(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6)


def test_dropout_draws_depend_on_the_parts_and_not_on_where_memory_ran_out() -> None:
    found, images, labels = [], pixels(8), torch.arange(8)
    for size in (None, 4):
        model = adapted(DROPOUT).train()
        if size is None:
            Small(model, 4, MemoryError())
        micro = MicroBatches(Objective(model), model.zero_grad)
        micro.size = size
        torch.manual_seed(0)
        micro.backward(Inputs(images), labels)
        found.append([p.grad for p in model.trained().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_memory_for_one_image_says_so() -> None:
    model = adapted("full_ft")
    Small(model, 0, MemoryError())
    with pytest.raises(TrainingError) as caught:
        fit(model, rules())
    assert str(caught.value) == (
        "memory: expected enough for the training step of one image, got less. Use fewer workers, "
        "a smaller backbone or another device."
    )


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    model = adapted("full_ft")
    small = Small(model, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        fit(model, rules())
    assert small.sizes == [8]
    assert not out_of_memory(ValueError("out of range"))


# --- the frozen part, computed once ---


@pytest.mark.parametrize(
    ("method", "expected"),
    [("full_ft", 0), ("lora", 0), ("linear_probe", None), ("last_blocks", -1), ("two", -2)],
)
def test_the_frozen_part_ends_at_the_lowest_trained_block(
    method: str, expected: int | None
) -> None:
    model = adapted(TWO_BLOCKS if method == "two" else METHODS[method])
    blocks = len(model.encoder.tower.encoder.layers)
    assert frozen_blocks(model) == (blocks + expected if expected else expected)
    model.encoder.tower.embeddings.class_embedding.requires_grad_(True)
    assert frozen_blocks(model) == 0


def test_a_frozen_part_that_draws_dropout_is_not_kept() -> None:
    model = adapted("last_blocks")
    config: Any = model.encoder.tower.config
    config.attention_dropout = 0.1
    assert frozen_blocks(model) == 0


def images_through(model: AdaptedModel) -> list[int]:
    """Filled with the size of every batch that the embeddings of the tower see."""
    sizes: list[int] = []
    embeddings: Any = model.encoder.tower.embeddings
    embeddings.register_forward_pre_hook(
        lambda _, given, named: sizes.append(len(named.get("pixel_values", *given))),
        with_kwargs=True,
    )
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("method", ["linear_probe", "last_blocks", "two"])
def test_the_frozen_part_is_computed_once_per_image_and_flip_with_equal_results(
    method: str, flip: bool
) -> None:
    spec = TWO_BLOCKS if method == "two" else METHODS[method]
    schedule = rules(epochs=4, horizontal_flip=flip)
    model, names = adapted(spec), [name for name, _ in adapted(spec).named_parameters()]
    sizes = images_through(model)
    fit(model, schedule)
    assert sum(sizes) == 1 + N * (2 if flip else 1)
    assert [name for name, _ in model.named_parameters()] == names
    # Float32 in batches of other sizes, over twelve steps of AdamW.
    assert apart(model, plain(adapted(spec), schedule), adapted(spec)) < 1e-3


def test_what_does_not_fit_is_computed_in_every_epoch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(frozen_prefix, "MOST_BYTES", 1000)
    model = adapted("last_blocks")
    sizes = images_through(model)
    with caplog.at_level(logging.WARNING):
        fit(model, rules())
    assert sum(sizes) == 1 + 3 * N
    assert "the frozen part is computed in every epoch" in caplog.text
    assert torch.equal(trained(model), trained(plain(adapted("last_blocks"), rules())))


@pytest.mark.parametrize("changes", [{"epochs": 1}, {"max_steps": 4}], ids=str)
def test_nothing_is_kept_where_that_saves_nothing(changes: dict[str, Any]) -> None:
    model = adapted("linear_probe")
    sizes = images_through(model)
    fit(model, rules(**changes))
    assert sizes == [8, 8, 6, 8][: len(sizes)]


# --- bfloat16 kernels ---


def test_an_error_in_training_puts_the_kernels_back() -> None:
    model = adapted(LORA)
    blocks: Any = model.encoder.tower.encoder.layers

    def fail(block: Any, _: Any) -> None:
        assert block.self_attn.config._attn_implementation == fast.ATTENTION
        raise KeyError

    hook = blocks[0].register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        fit(model, rules(), precision="bfloat16")
    hook.remove()
    assert torch.equal(model.eval()(pixels()), adapted(LORA).eval()(pixels()))
    assert not any(isinstance(module, fast.FastDropout) for module in model.modules())
    assert blocks[0].self_attn.config._attn_implementation == "sdpa"


def test_attention_in_float32_is_nearer_to_the_truth() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 17, 8).bfloat16() for _ in range(3))
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), scale=0.4)
    found, weights = fast._attend_in_float32(nn.Module(), query, key, value, None, scaling=0.4)
    assert weights is None
    assert found.dtype == torch.bfloat16
    # Half a unit in the last of bfloat16's eight bits.
    torch.testing.assert_close(found.transpose(1, 2).double(), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_quick_gelu_and_its_gradient_are_those_of_its_formula(dtype: torch.dtype) -> None:
    values = torch.linspace(-8, 8, 401).to(dtype)
    x, y = (values.clone().requires_grad_() for _ in range(2))
    exact = y.double() * torch.sigmoid(1.702 * y.double())
    found = QuickGelu()(x)
    found.sum().backward()
    exact.sum().backward()
    # bfloat16 keeps eight bits, and the product in between is rounded as well.
    rtol, atol = (1e-12, 1e-12) if dtype == torch.float64 else (2**-6, 2**-8)
    torch.testing.assert_close(found.double(), exact, rtol=rtol, atol=atol)
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(x.grad.double(), y.grad.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(3)
    x = torch.ones(1000, 401, requires_grad=True)
    out = FastDropout(p)(x)
    n = x.numel()
    dropped = out == 0
    assert abs(float(dropped.double().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5
    kept = out.detach()[~dropped]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=2e-4, atol=0)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    # All four words of a number are used, and neighbours know nothing of each other.
    columns = dropped.double().flatten()[: n // 4 * 4].view(-1, 4)
    assert columns.mean(dim=0).sub(p).abs().max() < 5 * (p * (1 - p) * 4 / n) ** 0.5
    correlations = torch.corrcoef(columns.T) - torch.eye(4)
    assert correlations.abs().max() < 5 / (n / 4) ** 0.5


def test_dropout_follows_the_generator_and_rests_outside_of_training() -> None:
    x, draws = torch.ones(7, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(FastDropout(0.5)(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert FastDropout(0.5).eval()(x) is x


def test_own_kernels_stand_in_for_the_modules_and_go_again() -> None:
    model = adapted(DROPOUT).train()
    blocks: Any = model.encoder.tower.encoder.layers
    before = list(model.modules())
    with fast.own_kernels(blocks):
        kinds = [type(module) for module in blocks.modules()]
        assert kinds.count(FastDropout) == 2 * len(blocks)
        assert kinds.count(QuickGelu) == len(blocks)
        assert nn.Dropout not in kinds
    assert all(a is b for a, b in zip(before, model.modules(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dropout_of_the_fast_step_is_reproducible(precision: str) -> None:
    found = []
    for seed in (7, 7, 8):
        model = adapted(DROPOUT)
        fit(model, rules(epochs=1), precision=precision, seed=seed)
        found.append(trained(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.slow
def test_the_fast_bfloat16_step_is_the_plain_one_up_to_its_rounding() -> None:
    for spec in (METHODS["full_ft"], LORA, TWO_BLOCKS):
        model, schedule = adapted(spec), rules(epochs=2, horizontal_flip=False)
        fit(model, schedule, precision="bfloat16")
        reference = plain(adapted(spec), schedule)
        rough = plain(adapted(spec), schedule, bfloat16=True)
        ours, theirs = (apart(m, reference, adapted(spec)) for m in (model, rough))
        assert 0 < ours < 1.2 * theirs  # not farther from float32 than autocast alone


def test_only_training_sees_the_fast_kernels() -> None:
    model = adapted(LORA)
    blocks: Any = model.encoder.tower.encoder.layers
    options: Any = {"learning_rate": 1e-3, "head_rate": 1e-3, "seed": 7, "precision": "bfloat16"}
    seen: set[tuple[str, bool]] = set()
    blocks[0].register_forward_pre_hook(
        lambda block, _: seen.add(
            (block.self_attn.config._attn_implementation, "forward" in block.__dict__)
        )
    )
    for _ in train(model, land_cover(N), schedule=rules(), **options):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert blocks[0].self_attn.config._attn_implementation == "sdpa"
        assert not model.training
    assert seen == {(fast.ATTENTION, False)}
    assert mini_clip().model.vision_model.config._attn_implementation == "sdpa"


def test_compiled_blocks_take_batches_of_their_size_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: dict[str, list[int]] = {"fast": [], "plain": []}

    def compile_(function: Any, **options: Any) -> Any:
        assert options == {"dynamic": False}

        def compiled(hidden: Tensor, *args: Any, **named: Any) -> Any:
            sizes["fast"].append(len(hidden))
            return function(hidden, *args, **named)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(fast, "WORTH_COMPILING", 0)
    monkeypatch.setattr(fast, "can_compile", lambda device: True)
    model = adapted(LORA)
    blocks: Any = model.encoder.tower.encoder.layers
    fit(model, rules(epochs=2), precision="bfloat16")
    assert sizes["fast"] == [8] * 4 * len(blocks)
    assert all("forward" not in block.__dict__ for block in blocks)
    fit(adapted(LORA), rules(epochs=2), precision="float32")
    assert len(sizes["fast"]) == 4 * len(blocks)  # float32 is left alone


def test_a_compiler_that_fails_does_not_stop_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def compile_(function: Any, **_: Any) -> Any:
        def compiled(*_: Any, **__: Any) -> Any:
            raise TorchDynamoException("Python.h: no such file")

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(fast, "WORTH_COMPILING", 0)
    monkeypatch.setattr(fast, "can_compile", lambda device: True)
    model = adapted("full_ft")
    with caplog.at_level(logging.WARNING):
        fit(model, rules(epochs=1), precision="bfloat16")
    messages = [record.message for record in caplog.records]
    assert messages == ["training goes on uncompiled: Python.h: no such file"]
    expected = plain(adapted("full_ft"), rules(epochs=1))
    assert apart(model, expected, adapted("full_ft")) < 0.5  # it did train


def test_only_long_trainings_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "can_compile", lambda device: True)
    blocks = nn.ModuleList([nn.Linear(1000, 1000, bias=False)])
    images = int(fast.WORTH_COMPILING / 1e6 / 50)
    assert not fast.pays_to_compile(blocks, 50, images)
    assert fast.pays_to_compile(blocks, 50, images + 1)
    blocks.append(nn.Dropout(0.1))
    assert not fast.pays_to_compile(blocks, 50, images + 1)
    blocks[1] = nn.Dropout(0.0)
    monkeypatch.setattr(fast, "can_compile", lambda device: False)
    assert not fast.pays_to_compile(blocks, 50, images + 1)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("shutil.which", lambda name: name if name == "clang++" else None)
    assert can_compile(cpu)
    assert not can_compile(torch.device("mps"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not can_compile(cpu)
