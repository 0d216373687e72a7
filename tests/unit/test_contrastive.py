"""Contrastive fine-tuning with class prompts (FLYP): loss, both towers, reading, coming back."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from small_models import write_random_clip
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.images import Images
from clipdrift.errors import AdapterInactiveError
from clipdrift.materials import TransferMaterial
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.class_texts import MOST
from clipdrift.methods.guard import assert_adapted, relative
from clipdrift.methods.interpolate import interpolated
from clipdrift.methods.merged import as_model, merged, scaled, soup
from clipdrift.reading.baseline import Baselines, TransferBaseline, probe
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import read_drift
from clipdrift.reading.screening import Predictor
from clipdrift.records.correct import Correct
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import MethodSpec
from clipdrift.spec.parts import BackboneSpec, ScheduleSpec
from clipdrift.step.contrastive import AgainstTexts, contrastive_loss
from clipdrift.training.loop import EpochDone, Stopped, epoch_prompts, train

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ("red circle", "blue square", "green star", "white cross")
PROMPTS = [[f"a photo of a {word}", f"the {word}."] for word in WORDS]
C, T, S = len(PROMPTS), 2, 12

# The random CLIP: width D, MLP width M, L blocks, projection E, P patches and K positions of text.
D, M, L, E, P, VOCABULARY, K = 16, 32, 2, 8, 9, 403, 77
BLOCK = 4 * (D * D + D) + 2 * 2 * D + (D * M + M) + (M * D + D)
VISION = D + D * 3 * 4 * 4 + (P + 1) * D + 2 * D + L * BLOCK + 2 * D
TEXT = VOCABULARY * D + K * D + L * BLOCK + 2 * D
LORA = 2 * L * 8 * (D + D)
BIASES = L * (4 * D + 2 * D + M + D)

PEFT = {"kind": "peft", "type": "lora", "options": {"r": 4, "lora_alpha": 8, "use_dora": True}}
METHODS: dict[str, dict[str, Any]] = {
    "flyp": {"kind": "full_ft", "tower": "both"},
    "text alone": {"kind": "full_ft", "tower": "text"},
    "vision alone": {"kind": "full_ft"},
    "frozen projections": {"kind": "full_ft", "tower": "both", "projection": "frozen"},
    "biases": {"kind": "bitfit", "tower": "both"},
    "lora": {"kind": "lora", "tower": "both", "dropout": 0.0},
    "lora on text": {"kind": "lora", "tower": "text", "dropout": 0.0},
    "dora": {**PEFT, "tower": "both"},
}
TRAINED = {
    "flyp": VISION + TEXT + 2 * D * E + 1,
    "text alone": TEXT + D * E + 1,
    "vision alone": VISION + D * E + 1,
    "frozen projections": VISION + TEXT + 1,
    "biases": 2 * BIASES + 3 * D + 2 * D * E + 1,
    "lora": 2 * LORA + 2 * D * E + 1,
    "lora on text": LORA + D * E + 1,
    "dora": 2 * (2 * L) * (4 * (D + D) + D) + 2 * D * E + 1,
}
each = pytest.mark.parametrize("name", list(METHODS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_clip(tmp_path_factory.mktemp("clip"), dtype=torch.float32)


@cache
def _loaded(folder: Path) -> Backbone:
    return load_backbone(BackboneSpec(id=str(folder)))


@pytest.fixture
def clip(folder: Path) -> Backbone:
    return _loaded(folder)


def spec_of(fields: dict[str, Any]) -> MethodBase:
    given = {"name": "one", "loss": "contrastive", **fields}
    made: MethodBase = TypeAdapter(MethodSpec).validate_python(given)
    return made


def model_of(clip: Backbone, name: str) -> AdaptedModel:
    spec = spec_of(METHODS[name])
    return build(clip, spec, C, seed=7, text_features=None, prompts=PROMPTS)


def photos(n: int = 11) -> Images:
    pixels = np.random.default_rng(3).integers(0, 256, (n, S, S, 3), dtype=np.uint8)
    return Images(pixels, np.arange(n), np.arange(n) % C)


def some(n: int = 64) -> Tensor:
    return torch.from_numpy(photos(n).pixels)


def fit(model: AdaptedModel, **changes: Any) -> list[EpochDone]:
    options: dict[str, Any] = {"learning_rate": 3e-3, "head_rate": 3e-3, "seed": 7}
    options |= {"precision": "float32", "schedule": ScheduleSpec(epochs=2, batch_size=4)}
    return list(train(model, photos(), **{**options, **changes}))


def bits(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def read(model: AdaptedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Image embeddings, class features through the text side, logits."""
    assert model.texts is not None
    return model.encoder(some()), model.texts.class_features(), model(some())


@torch.no_grad()
def classes_of(clip: CLIPModel, backbone: Backbone, prompts: list[list[str]]) -> Tensor:
    """Class features by transformers alone: mean of unit features over templates, unit length."""
    found = []
    for group in prompts:
        tokens = backbone.tokenizer(group, padding=True, return_tensors="pt")
        each = clip.get_text_features(**tokens).pooler_output
        mean = (each / each.norm(dim=1, keepdim=True)).mean(dim=0)
        found.append(mean / mean.norm())
    return torch.stack(found)


def plain(model: AdaptedModel, folder: Path) -> CLIPModel:
    """A CLIP of transformers that holds the merged weights of both sides."""
    loaded = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    state = {f"vision_model.{k}": v for k, v in (model.vision_state() or {}).items()}
    state |= {f"visual_projection.{k}": v for k, v in model.projection_state().items()}
    state |= {f"text_model.{k}": v for k, v in (model.text_state() or {}).items()}
    state |= {f"text_projection.{k}": v for k, v in model.text_projection_state().items()}
    result = loaded.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    return loaded


# --- the loss ---


def by_hand(images: Tensor, texts: Tensor, scale: float) -> float:
    """Image by image and text by text, in Python's own arithmetic."""
    f, t = ([[v / math.hypot(*row) for v in row] for row in m.tolist()] for m in (images, texts))
    cells = [[scale * sum(a * b for a, b in zip(x, y, strict=True)) for y in t] for x in f]
    n, total = len(cells), 0.0
    for i in range(n):
        total -= cells[i][i] - math.log(sum(math.exp(v) for v in cells[i]))
        total -= cells[i][i] - math.log(sum(math.exp(row[i]) for row in cells))
    return total / (2 * n)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0, 0, 1, 0, 1]])
def test_the_loss_is_the_symmetric_one_with_images_of_a_class_as_negatives(
    labels: list[int],
) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(5, 6, generator=draw, dtype=torch.float64)
    texts = torch.randn(5, 6, generator=draw, dtype=torch.float64)[labels]
    found = contrastive_loss(images, texts, torch.tensor(7.0))
    # 5e-6: the function rounds to float32
    assert float(found) == pytest.approx(by_hand(images, texts, 7.0), rel=5e-6)


def test_images_of_one_class_cannot_come_below_the_logarithm_of_their_number() -> None:
    same = torch.ones(6, 3)
    assert float(contrastive_loss(same, same, torch.tensor(100.0))) == pytest.approx(math.log(6))


def test_of_distinct_classes_it_is_the_loss_of_transformers(clip: Backbone, folder: Path) -> None:
    model, whole = model_of(clip, "flyp"), CLIPModel.from_pretrained(folder, dtype=torch.float32)
    assert model.texts is not None
    numbers = torch.tensor([6, 1, 2, 5])
    flat = [prompt for group in PROMPTS for prompt in group]
    tokens = clip.tokenizer([flat[n] for n in numbers], padding=True, return_tensors="pt")
    values = model.encoder.normalise(some(4))
    expected = whole.eval()(**tokens, pixel_values=values, return_loss=True)
    found = AgainstTexts(model.texts, torch.no_grad)(model.encoder(some(4)), numbers)
    torch.testing.assert_close(found, expected.loss, rtol=1e-5, atol=0)
    again = image_text_contrastive_loss(expected.logits_per_text)
    torch.testing.assert_close(found, again, rtol=1e-5, atol=0)


def test_the_gradient_is_that_of_every_image_with_a_text_of_its_own(clip: Backbone) -> None:
    """Prompts that occur twice pass the text tower once."""
    numbers = torch.tensor([1, 0, 1, 1, 6])
    one, other = model_of(clip, "flyp"), model_of(clip, "flyp")
    assert one.texts is not None
    assert other.texts is not None
    seen: list[int] = []
    one.texts.register_forward_hook(lambda m, given, out: seen.append(len(out)))
    AgainstTexts(one.texts, torch.enable_grad)(one.encoder(some(5)), numbers).backward()
    assert seen == [3]
    scale = other.texts.log_scale.exp()
    contrastive_loss(other.encoder(some(5)), other.texts(numbers), scale).backward()
    for (name, a), b in zip(one.trained().items(), other.trained().values(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_prompts_are_drawn_by_seed_and_epoch_for_each_image() -> None:
    labels = np.arange(400) % 5
    drawn = epoch_prompts(labels, 3, 7, 1)
    np.testing.assert_array_equal(drawn // 3, labels)
    assert set(drawn % 3) == {0, 1, 2}
    np.testing.assert_array_equal(drawn, epoch_prompts(labels, 3, 7, 1))
    assert not np.array_equal(drawn, epoch_prompts(labels, 3, 7, 2))
    assert not np.array_equal(drawn, epoch_prompts(labels, 3, 8, 1))
    np.testing.assert_array_equal(epoch_prompts(labels, 1, 7, 1), labels)


def test_the_logit_scale_trains_and_stays_below_clips_bound(clip: Backbone) -> None:
    model = model_of(clip, "vision alone")
    assert model.texts is not None
    start = float(model.texts.log_scale.detach())
    fit(model)
    assert float(model.texts.log_scale.detach()) != start
    with torch.no_grad():
        model.texts.log_scale.fill_(MOST + 1)
    fit(model)
    assert float(model.texts.log_scale.detach()) <= MOST


# --- methods on both towers ---


@each
def test_parameters_by_closed_form_and_a_start_at_the_baseline(clip: Backbone, name: str) -> None:
    model = model_of(clip, name).eval()
    assert sum(p.numel() for p in model.trained().values()) == TRAINED[name]
    images, classes, logits = read(model)
    assert torch.equal(images, clip.encoder()(some()))
    assert torch.equal(classes, clip.text_features(PROMPTS))
    unit = images / images.norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits, clip.logit_scale * unit @ classes.T, rtol=1e-4, atol=1e-5)
    assert_adapted(model, clip, some())


@pytest.mark.slow
@each
def test_a_trained_model_is_saved_merged_and_between_the_ends(
    clip: Backbone, folder: Path, name: str, tmp_path: Path
) -> None:
    model, tower = model_of(clip, name), METHODS[name].get("tower", "vision")
    before = bits(model)
    losses = [done.train_loss for done in fit(model)]
    assert all(math.isfinite(loss) for loss in losses)
    moved = {key for key, value in bits(model).items() if not torch.equal(value, before[key])}
    assert any(key.startswith("encoder.") for key in moved) is (tower != "text")
    assert any(key.startswith("texts.encoder.") for key in moved) is (tower != "vision")
    images, classes, logits = read(model)
    assert_adapted(model, clip, some(), trained=model.snapshot())

    whole = plain(model, folder)
    values = model.encoder.normalise(some())
    with torch.no_grad():
        by_transformers = whole.get_image_features(pixel_values=values).pooler_output
    torch.testing.assert_close(images, by_transformers, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classes, classes_of(whole, clip, PROMPTS), rtol=1e-4, atol=1e-5)

    model.save(tmp_path)
    back = reload(clip, model.spec, C, tmp_path, prompts=PROMPTS)
    assert all(
        torch.equal(a, b) for a, b in zip(read(back), (images, classes, logits), strict=True)
    )
    assert back.trained().keys() == model.trained().keys()
    unprompted = reload(clip, model.spec, C, tmp_path)
    with torch.no_grad():
        assert torch.equal(unprompted(some()), logits)

    with interpolated(model, clip, 0.0) as (there, holds):
        assert_adapted(there, clip, some(), trained=holds)
        start, texts, _ = read(there)
        assert torch.equal(start, clip.encoder()(some()))
        assert torch.equal(texts, clip.text_features(PROMPTS))
    with interpolated(model, clip, 0.25) as (there, holds):
        assert_adapted(there, clip, some(), trained=holds)
        mixed = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            for own, after in zip(mixed.parameters(), whole.parameters(), strict=True):
                own.copy_((0.75 * own.double() + 0.25 * after.double()).float())
        expected = classes_of(mixed, clip, PROMPTS)
        torch.testing.assert_close(read(there)[1], expected, rtol=1e-4, atol=1e-5)
    assert all(
        torch.equal(a, b) for a, b in zip(read(model), (images, classes, logits), strict=True)
    )


@pytest.mark.slow
@each
def test_soups_and_scaled_movements_take_the_text_side_along(clip: Backbone, name: str) -> None:
    model = model_of(clip, name)
    fit(model)
    weights = merged(model)
    assert weights is not None
    again = as_model(soup([weights, weights]), clip, model.spec, PROMPTS)
    assert_adapted(again, clip, some(), trained=again.snapshot())
    for own, live in zip(read(again), read(model), strict=True):
        assert relative(own, live) < 1e-5
    still = as_model(scaled(weights, clip, 0.0), clip, model.spec, PROMPTS)
    assert model.text is None or all(
        torch.equal(value, clip.text_state()[key])
        for key, value in (still.text_state() or {}).items()
    )
    twice = as_model(scaled(weights, clip, 2.0), clip, model.spec, PROMPTS)
    if (after := twice.text_state()) is not None:
        now, before = model.text_state() or {}, clip.text_state()
        for key, value in after.items():
            expected = 2 * now[key].double() - before[key].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["flyp", "lora"])
def test_training_goes_on_where_it_stopped_to_the_last_bit(clip: Backbone, name: str) -> None:
    whole = model_of(clip, name)
    done = fit(whole)
    steps = iter([False, False, False, True])
    with pytest.raises(Stopped) as caught:
        fit(model_of(clip, name), stop=lambda: next(steps))
    state = caught.value.state
    kept = {key: value.clone() for key, value in state.tensors.items()}
    resumed = model_of(clip, name)
    last = fit(resumed, resume=type(state)(state.epoch, state.step, state.images, 0.0, kept))
    assert all(torch.equal(value, bits(resumed)[key]) for key, value in bits(whole).items())
    assert last[-1].train_loss == done[-1].train_loss


def test_bfloat16_trains_both_towers_and_leaves_float32_weights(clip: Backbone) -> None:
    model = model_of(clip, "flyp")
    before = bits(model)
    fit(model, precision="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert any(
        "texts.encoder" in k for k, v in bits(model).items() if not torch.equal(v, before[k])
    )


def test_kept_activations_of_a_frozen_vision_tower_give_the_same_training(clip: Backbone) -> None:
    """The text tower alone trains, so images are embedded once; with one epoch they are not."""
    kept, plainly = model_of(clip, "text alone"), model_of(clip, "text alone")
    passes: list[int] = []
    kept.encoder.tower.register_forward_hook(lambda *_: passes.append(1))
    fit(kept, schedule=ScheduleSpec(epochs=3, batch_size=4, horizontal_flip=False))
    assert len(passes) == 2  # one image to learn the size, then all of them
    for parameter in plainly.encoder.parameters():
        parameter.requires_grad_(True)  # nothing is frozen, so nothing is kept
    group = plainly.parameter_groups

    def texts_alone(rate: float, head_rate: float) -> Any:
        inside = {id(p) for p in plainly.encoder.parameters()}
        for found in group(rate, head_rate):
            chosen: Any = found["params"]
            yield {**found, "params": [p for p in chosen if id(p) not in inside]}

    plainly.parameter_groups = texts_alone  # type: ignore[method-assign]
    fit(
        plainly, schedule=ScheduleSpec(epochs=3, batch_size=4, horizontal_flip=False, clip_norm=1e9)
    )
    other = model_of(clip, "text alone")
    fit(other, schedule=ScheduleSpec(epochs=3, batch_size=4, horizontal_flip=False, clip_norm=1e9))
    for (key, a), b in zip(bits(other).items(), bits(plainly).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=key)


# --- reading ---


def test_transfers_are_scored_by_the_live_text_tower(clip: Backbone, folder: Path) -> None:
    model = model_of(clip, "flyp")
    fit(model, learning_rate=3e-2)
    others = [["a big red star"], ["one blue circle"], ["a dark square"], ["two lines"]]
    images = photos(97)
    material = TransferMaterial("other", ("a", "b"), others, images, images, ())
    untouched = clip.text_features(others)
    half = Correct.of(np.arange(len(images)) % 2 == 0)
    gauge = Gauge.__new__(Gauge)
    gauge.transfers, gauge.predict = {"other": material}, Predictor(16)
    probe_of = probe(clip.encoder(), images)
    gauge._baselines = Baselines(probe_of, None, {"other": TransferBaseline(untouched, half, half)})
    zero_shot = gauge.zero_shot(model, whole=True)
    found = zero_shot.readings["other"]
    whole = plain(model, folder)
    with torch.no_grad():
        values = model.encoder.normalise(torch.from_numpy(images.pixels))
        image = whole.get_image_features(pixel_values=values).pooler_output
    right = (image @ classes_of(whole, clip, others).T).argmax(dim=1).numpy() == images.labels
    assert zero_shot.correct["transfer.other.accuracy"].hits.tolist() == right.tolist()
    assert found.retention_pct == pytest.approx(100 * right.mean() / half.accuracy)
    stale = (image @ untouched.T).argmax(dim=1).numpy() == images.labels
    assert stale.mean() != right.mean()  # else this could not tell


def test_the_text_towers_movement_is_read_where_it_trains(clip: Backbone) -> None:
    images = photos(8)
    before = probe(clip.encoder(), images)
    model = model_of(clip, "flyp")
    zero, _ = read_drift(model.eval(), clip, images, before)
    assert (zero.drift["text_weight_drift_rel"], zero.drift["text_projection_drift_rel"]) == (0, 0)
    fit(model)
    found, _ = read_drift(model, clip, images, before)
    pairs = [(model.text_state() or {}, clip.text_state())]
    (moved,) = (
        math.sqrt(sum(float((now[k].double() - w.double()).square().sum()) for k, w in was.items())
                  / sum(float(w.double().square().sum()) for w in was.values()))
        for now, was in pairs
    )  # fmt: skip
    assert found.drift["text_weight_drift_rel"] == pytest.approx(moved, rel=1e-9)
    alone, _ = read_drift(model_of(clip, "vision alone").eval(), clip, images, before)
    assert not any(key.startswith("text_") for key in alone.drift)


def test_a_stale_classifier_or_another_text_tower_is_refused(clip: Backbone) -> None:
    model = model_of(clip, "flyp")
    fit(model)
    trained = model.snapshot()
    kept = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight.copy_(model_of(clip, "flyp").head.weight)
    with pytest.raises(
        AdapterInactiveError, match="expected a classifier at the class texts as the"
    ):
        assert_adapted(model, clip, some(), trained=trained)
    with torch.no_grad():
        model.head.weight.copy_(kept)
    assert_adapted(model, clip, some(), trained=trained)
    assert model.texts is not None
    model.texts.encoder = clip.text_encoder().requires_grad_(True)
    with pytest.raises(AdapterInactiveError, match="tensors that training left"):
        assert_adapted(model, clip, some(), trained=trained)


def test_adapters_on_text_that_do_not_act_are_refused(clip: Backbone) -> None:
    model = model_of(clip, "lora on text")
    fit(model, learning_rate=3e-2)
    assert model.text is not None
    for module in model.text.modules():
        if hasattr(module, "scaling"):
            module.scaling = dict.fromkeys(module.scaling, 0.0)
    model.read_texts()
    with pytest.raises(AdapterInactiveError, match="merged weights of the text tower"):
        assert_adapted(model, clip, some())


# --- what is refused ---


def test_what_only_a_contrastive_loss_has_is_refused_elsewhere() -> None:
    for key, value in (("positives", "class"), ("logit_scale", "frozen")):
        with pytest.raises(ValidationError, match="loss: contrastive"):
            spec_of({"kind": "full_ft", "loss": "cross_entropy", key: value})
