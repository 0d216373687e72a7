"""Every adapter of peft's that works on the vision tower: start, merge, reload, counts, faults."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import adapted, land_cover, mini_clip, perturb, pixels
from small_siglip import small_siglip
from tiny_study import tiny
from torch import Tensor

from clipdrift.errors import AdapterInactiveError, MethodError, RecordError, SpecError
from clipdrift.methods import FAMILIES
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted, relative
from clipdrift.methods.interpolate import interpolated
from clipdrift.methods.peft_config import REFUSED, usable_types
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import LoraSpec, PeftSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.engine import autocast
from clipdrift.step.fast import fast_kernels
from clipdrift.study.plan import require_fit
from clipdrift.training.loop import Stopped, train

D, M, E, C = 64, 256, 64, 10
N = 2
"""Blocks that are adapted here, of six, so that thirty types are tried soon."""
BESIDE = D * E + C * E + C
"""Projection and head, which train beside every adapter."""

OPTIONS: dict[str, dict[str, Any]] = {
    "adamss": {"r": 8, "num_subspaces": 2},
    "lora": {"r": 4},
    "boft": {"boft_block_size": 8},
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 50},
    "pvera": {"r": 16},
    "vera": {"r": 16},
    "lora with dora": {"r": 4, "use_dora": True, "lora_dropout": 0.1},
    "lora with rslora": {"r": 4, "use_rslora": True},
    "lora with pissa": {"r": 4, "init_lora_weights": "pissa"},
    "lora with pissa_niter": {"r": 4, "init_lora_weights": "pissa_niter_4"},
    "lora with olora": {"r": 4, "init_lora_weights": "olora"},
    "lora with orthogonal": {"r": 4, "init_lora_weights": "orthogonal"},
}
NAMES = sorted({*usable_types(), *OPTIONS})
TO_ROUNDING = {"deft", "frod", "hra", "osf"} | {
    f"lora with {init}" for init in ("pissa", "pissa_niter", "olora", "orthogonal")
}
"""Their start moves base weights against the adapter, or passes through a factorisation."""
NOT_MERGED = {"lily"}
each = pytest.mark.parametrize("name", NAMES)


def spec_of(name: str, **changes: Any) -> PeftSpec:
    fields = {"type": name.partition(" with ")[0], "options": OPTIONS.get(name, {})}
    return PeftSpec(kind="peft", name="x", **{**fields, "layers": {"last": N}, **changes})


def trained(model: AdaptedModel, **changes: Any) -> AdaptedModel:
    options: dict[str, Any] = {"learning_rate": 3e-3, "head_rate": 3e-3, "precision": "float32"}
    schedule = ScheduleSpec(epochs=1, batch_size=8)
    for _ in train(model, land_cover(24), schedule=schedule, seed=7, **{**options, **changes}):
        pass
    return model


def embeddings(model: AdaptedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval().encoder(pixels())
    return found


def baseline() -> Tensor:
    with torch.no_grad():
        found: Tensor = mini_clip().encoder()(pixels())
    return found


def faults(name: str = "lora", **changes: Any) -> str:
    """What a study is told before anything of it is trained."""
    try:
        require_fit(tiny(methods=[spec_of(name, **changes).model_dump()]), mini_clip())
    except MethodError as error:
        return str(error)
    return ""


def test_all_types_of_peft_are_either_tried_here_or_refused_with_a_reason() -> None:
    assert {*usable_types(), *REFUSED} == {
        kind.value.lower() for kind in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    }
    assert len(usable_types()) >= 30


@each
def test_it_starts_at_the_baseline_trains_and_comes_back_bit_by_bit(
    name: str, tmp_path: Path
) -> None:
    model = adapted(spec_of(name))
    start = embeddings(model)
    assert relative(start, baseline()) < (1e-6 if name in TO_ROUNDING else 1e-30)
    before = {key: value.clone() for key, value in model.trained().items()}

    trained(model)
    assert_adapted(model, mini_clip(), pixels(), trained=model.snapshot())
    live = embeddings(model)
    assert relative(live, baseline()) > 1e-3
    moved = {key for key, value in model.trained().items() if not torch.equal(value, before[key])}
    assert moved >= {"head.weight", "encoder.projection.weight"}
    assert any(key.startswith("encoder.tower.") for key in moved)

    model.save(tmp_path)
    back = reload(mini_clip(), spec_of(name), C, tmp_path)
    assert torch.equal(embeddings(back), live)
    assert back.trained().keys() == model.trained().keys()
    assert not [p for p in tmp_path.rglob("*") if p.suffix not in {".json", ".safetensors", ""}]
    if name != "lora with pissa_niter":  # peft draws its start anew: only our files reload it
        assert torch.equal(loaded_by_peft(model, tmp_path), pooled(model))


def pooled(model: AdaptedModel) -> Tensor:
    with torch.no_grad():
        values = model.encoder.normalise(pixels())
        found: Tensor = model.encoder.tower(pixel_values=values).pooler_output
    return found


def loaded_by_peft(model: AdaptedModel, folder: Path) -> Tensor:
    """What the untouched tower makes of images under the saved adapter, read by peft's own code."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        tower = mini_clip().encoder().tower
        wrapped = peft.PeftModel.from_pretrained(tower, folder / "adapter").eval()
        values = model.encoder.normalise(pixels())
        found: Tensor = wrapped(pixel_values=values).pooler_output
    return found


@each
def test_merged_weights_are_plain_and_between_the_ends_lies_their_mean(name: str) -> None:
    model = perturb(adapted(spec_of(name)), 0.02)
    live = embeddings(model)
    assert relative(live, baseline()) > 1e-3
    state = model.vision_state()
    if name in NOT_MERGED:
        assert state is None
        with (
            pytest.raises(ValueError, match="expected plain weights"),
            interpolated(model, mini_clip(), 0.5),
        ):
            pass
        return
    assert state is not None
    plain = mini_clip().encoder()
    assert state.keys() == dict(plain.tower.named_parameters()).keys()
    plain.tower.load_state_dict(state, strict=False)
    plain.projection.load_state_dict(model.encoder.projection.state_dict())
    with torch.no_grad():
        assert relative(plain(pixels()), live) < 5e-6
    with interpolated(model, mini_clip(), 0.25) as (there, holds):
        assert_adapted(there, mini_clip(), pixels(), trained=holds)
        found = dict(there.encoder.tower.named_parameters())
        for key, value in mini_clip().vision_state().items():
            expected = 0.75 * value.double() + 0.25 * state[key].double()
            torch.testing.assert_close(found[key].double(), expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(there.head.weight, model.head.weight)
    with interpolated(model, mini_clip(), 0.0) as (there, _):
        assert torch.equal(embeddings(there), baseline())
    assert torch.equal(embeddings(model), live)


COUNTS: dict[str, int] = {
    "lora": 2 * N * 4 * (D + D),
    "lora with dora": 2 * N * (4 * (D + D) + D),
    "lora with pissa": 2 * N * 4 * (D + D),
    "ia3": N * (D + D + M),
    "loha": 2 * N * 2 * 8 * (D + D),
    "vera": 2 * N * (D + 16),
    "ln_tuning": N * 2 * 2 * D,
    "beft": 2 * N * D,
    "fourierft": 2 * N * 50,
    "hra": 2 * N * 8 * D,
    # 64 x 64 by blocks of 8: 8 skew-symmetric blocks of 64 numbers each, and a scale per output
    "boft": 2 * N * (8 * 8 * 8 + D),
    # one strictly upper triangle of 32 x 32 for each of the two blocks
    "oft": 2 * N * 2 * (32 * 31 // 2),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_trained_by_closed_form(name: str) -> None:
    """Which also have to fit: nothing is said against them before training."""
    assert faults(name) == ""
    found = sum(p.numel() for p in adapted(spec_of(name)).trained().values())
    assert found == COUNTS[name] + BESIDE


def test_adapters_are_drawn_by_the_seed_alone() -> None:
    first, same, other = (adapted(spec_of("lora"), seed=s).trained() for s in (7, 7, 8))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first if ".lora_A." in key)
    encoder, before = mini_clip().encoder(), torch.get_rng_state()
    FAMILIES["peft"].adapt(encoder, spec_of("loha"), 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["peft", "lora"])
@pytest.mark.parametrize(
    ("layers", "places"),
    [
        ({"first": 2}, {0, 1}),
        ({"last": 3}, {3, 4, 5}),
        ({"range": [1, 4]}, {1, 2, 3}),
        (None, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_layers_are_those_asked_for(kind: str, layers: Any, places: set[int]) -> None:
    spec: MethodBase = spec_of("lora", layers=layers, modules=["k_proj", "fc1"])
    if kind == "lora":
        spec = LoraSpec(kind="lora", name="x", layers=layers, modules=["k_proj", "fc1"])
    found = {key.split(".lora_")[0] for key in adapted(spec).trained() if ".lora_" in key}
    assert found == {
        f"encoder.tower.encoder.layers.{i}.{which}"
        for i in places
        for which in ("self_attn.k_proj", "mlp.fc1")
    }


def test_norms_outside_the_blocks_train_only_where_no_blocks_are_asked_for() -> None:
    def places(**changes: Any) -> set[str]:
        found = adapted(spec_of("ln_tuning", **changes)).trained()
        names = (key.removeprefix("encoder.tower.").split(".ln_tuning")[0] for key in found)
        return {name for name in names if "layers" not in name or ".0." in name} - {
            "head.weight", "head.bias", "encoder.projection.weight",
        }  # fmt: skip

    within = {"encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"}
    assert places(layers=None) == within | {"pre_layrnorm", "post_layernorm"}
    assert places(layers={"first": 1}) == within
    assert places(layers=None, modules=["post_layernorm"]) == {"post_layernorm"}


def disable(model: AdaptedModel) -> None:
    for module in model.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.enable_adapters(False)


def scale_to_zero(model: AdaptedModel) -> None:
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.scaling["default"] = 0.0


def swap_for_plain_clip(model: AdaptedModel) -> None:
    projection = model.encoder.projection
    model.encoder = mini_clip().encoder()
    model.encoder.projection = projection


@pytest.mark.parametrize("plant", [disable, swap_for_plain_clip], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["loha", "ia3", "ln_tuning", "oft", "lora with pissa", "lily"])
def test_each_planted_bug_is_caught(name: str, plant: Any) -> None:
    model = perturb(adapted(spec_of(name)), 1e-3)
    holds = model.snapshot()
    plant(model)
    with pytest.raises(AdapterInactiveError, match="retention: expected"):
        assert_adapted(model, mini_clip(), pixels(8), trained=holds)


@pytest.mark.parametrize("name", ["lora", "lora with rslora", "lora with dora"])
def test_a_scaling_that_is_not_the_configured_one_is_caught(name: str) -> None:
    model = perturb(adapted(spec_of(name)), 1e-2)
    scale_to_zero(model)
    with pytest.raises(AdapterInactiveError, match="merged weights"):
        assert_adapted(model, mini_clip(), pixels(8), trained=model.snapshot())


@each
def test_a_bfloat16_step_is_near_plain_autocast_and_has_gradients(name: str) -> None:
    model = perturb(adapted(spec_of(name)), 0.02).eval()
    plain = bfloat16_logits(model).detach()
    with fast_kernels(model.encoder.tower.encoder.layers):  # type: ignore[union-attr, arg-type]
        found = bfloat16_logits(model)
        # Attention in float32 moves logits by about what bfloat16 rounds.
        torch.testing.assert_close(found, plain, rtol=2e-2, atol=0.02 * plain.abs().max().item())
        loss = torch.nn.functional.cross_entropy(found, torch.arange(6))
        loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.trained().values())


def bfloat16_logits(model: AdaptedModel) -> Tensor:
    with autocast(torch.device("cpu"), "bfloat16"):
        found: Tensor = model(pixels(6))
    return found.float()


@pytest.mark.parametrize("name", ["loha", "lora with pissa", "vera"])
def test_saved_tensors_are_counted_key_by_key(name: str, tmp_path: Path) -> None:
    perturb(adapted(spec_of(name))).save(tmp_path)
    for file in sorted(tmp_path.rglob("*.safetensors")):
        if file.name == "head.safetensors":
            continue
        whole = file.read_bytes()
        tensors = load_file(file)
        tensors.pop(min(tensors))
        save_file(tensors, file)
        with pytest.raises(RecordError, match="1 missing, 0 left over, 0 of another shape"):
            reload(mini_clip(), spec_of(name), C, tmp_path)
        file.write_bytes(whole)
    reload(mini_clip(), spec_of(name), C, tmp_path)
    with pytest.raises(RecordError, match="of another shape"):
        reload(mini_clip(), spec_of(name, layers={"first": 1}), C, tmp_path)


def test_base_weights_that_an_init_moved_are_saved_and_only_those(tmp_path: Path) -> None:
    adapted(spec_of("lora with pissa")).save(tmp_path / "moved")
    adapted(spec_of("lora with dora")).save(tmp_path / "still")
    assert set(load_file(tmp_path / "moved" / "fixed.safetensors")) == {
        f"encoder.layers.{i}.self_attn.{which}.base_layer.weight"
        for i in (4, 5)
        for which in ("q_proj", "v_proj")
    }
    assert not (tmp_path / "still" / "fixed.safetensors").exists()


TYPES = "expected a type of peft (adamss, beft, boft, "


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "loraa"}, "got 'loraa'. Did you mean 'lora' or"),
        ({"type": "DoRA"}, "got 'dora'. Write {type: lora, options: {use_dora: true}}."),
        ({"type": "pissa"}, "Write {type: lora, options: {init_lora_weights: pissa}}."),
        ({"type": "xyzzy"}, "got 'xyzzy'. Choose one of them."),
        (
            {"type": "prefix-tuning"},
            (
                "got prefix_tuning: it puts tokens into the input of a language model. "
                "Choose another type."
            ),
        ),
        ({"type": "AdaLora"}, "got adalora: it has to be told of every step by a training loop"),
    ],
)
def test_a_type_that_cannot_be_had_is_refused_by_name(changes: Any, words: str) -> None:
    text = faults(**{"options": {}, **changes})
    assert text.startswith(f"method x type: {TYPES}")
    assert words in text
    assert "\n" not in text


OF_LORA = "(init_lora_weights, lora_alpha, lora_bias, lora_dropout, r, use_dora, use_rslora)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_aplha": 1}, (f"options.lora_aplha: expected an option of lora {OF_LORA}, got "
         "'lora_aplha'. Did you mean 'lora_alpha' or 'lora_bias'?")),
        ({"r": "8"}, "options.r: expected a whole number, got '8'. Correct the value."),
        ({"r": 4.0}, "options.r: expected a whole number, got 4.0."),
        ({"use_dora": 1}, "options.use_dora: expected true or false, got 1."),
        ({"lora_dropout": True}, "options.lora_dropout: expected a number, got True."),
        ({"init_lora_weights": "pizza"}, ("expected true or false or gaussian or olora or pissa or "
         "pissa_niter_[number of iters] or orthogonal or mica, got 'pizza'.")),
        ({"init_lora_weights": "eva"}, ("expected an init that is computed from the weights alone, "
         "got eva, which is computed from images. Use true, gaussian, pissa, olora or ")),
        ({"r": 65}, "options.r: expected at most the layer width 64, got 65. Lower it."),
        ({"target_modules": "q_proj"}, ("options.target_modules: expected an option that does not "
         "place adapters, got 'q_proj'. Say it by modules of the method.")),
        ({"layers_to_transform": 2}, "got 2. Say it by layers of the method."),
        ({"r": 0}, ("method x: expected options and modules that peft can make lora of on this "
         "backbone, got ValueError: `r` should be a positive integer value but the value ")),
        ({"init_lora_weights": False}, ("method x options: expected a start at the baseline, got "
         "features ")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_options_that_peft_does_not_take_are_refused(options: Any, words: str) -> None:
    assert words in faults(options=options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("c3a", {}, "got ValueError: The block size should be a factor of the input size."),
        ("oft", {"oft_block_size": 7}, "expected values that peft takes as they are, got Invalid"),
        ("fourierft", {"init_weights": False}, "expected a start at the baseline"),
        ("loha", {"r": 65}, "options.r: expected at most the layer width 64, got 65."),
    ],
)
def test_options_that_do_not_fit_the_backbone_are_refused(
    name: str, options: Any, words: str
) -> None:
    assert words in faults(name, options=options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": ["q_proj", "qkv"]}, ("modules: expected names among fc1, fc2, k_proj, "
         "out_proj, q_proj, v_proj, got 'qkv'. Name linear layers.")),
        ({"modules": ["text_model.encoder.layers.0.self_attn.q_proj"]},
         "q_proj', of the text tower. Name linear layers; tower says in which tower."),
        ({"name": "ln_tuning", "modules": ["q_proj"]}, ("modules: expected names among "
         "layer_norm1, layer_norm2, got 'q_proj'. Name layer norms.")),
        ({"layers": {"last": 7}}, ("method x layers: expected among the 6 blocks of the backbone, "
         "got last 7. Name blocks that are there.")),
        ({"layers": {"range": [4, 8]}}, "got range (4, 8)."),
    ],
)  # fmt: skip
def test_layers_that_are_not_there_are_refused(changes: Any, words: str) -> None:
    assert words in faults(**changes)


def test_all_faults_of_a_method_are_told_at_once_and_training_is_refused() -> None:
    spec = spec_of(
        "lora", modules=["a", "b"], layers={"first": 9}, options={"c": 1, "use_dora": "yes"}
    )
    with pytest.raises(MethodError) as caught:
        adapted(spec)
    assert len(caught.value.faults) == 5


def test_an_adapter_never_lies_on_the_text_tower() -> None:
    before = {key: value.clone() for key, value in mini_clip().model.state_dict().items()}
    for name in ("lora", "ia3", "ln_tuning"):
        perturb(adapted(spec_of(name)))
    after = mini_clip().model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["lora with dora", "lora with pissa", "loha"])
def test_training_that_was_stopped_goes_on_to_the_same_weights(name: str) -> None:
    whole, started, after = (adapted(spec_of(name)) for _ in range(3))
    trained(whole)
    steps = iter([False, True])
    with pytest.raises(Stopped) as stopped:
        trained(started, stop=lambda: next(steps))
    assert stopped.value.state.step == 2
    trained(after, resume=stopped.value.state)
    for key, value in whole.trained().items():
        assert torch.equal(after.trained()[key], value), key


def test_adapters_keep_to_the_blocks_of_a_tower_with_a_pooling_head() -> None:
    spec = spec_of("lora", modules=["out_proj", "fc1"])
    model = build(small_siglip(), spec, 10, seed=7, text_features=None)
    places = {key.split(".lora_")[0] for key in model.trained() if ".lora_" in key}
    assert places
    assert all(place.startswith("encoder.tower.encoder.layers.") for place in places)
    require_fit(tiny(methods=[spec.model_dump(), "bitfit"]), small_siglip())


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({}, "layers: expected exactly one of first, last, range, got none. Say which blocks"),
        ({"first": 1, "last": 2}, "expected exactly one of first, last, range, got {'first': 1"),
        ({"range": [3, 3]}, "layers: expected a range [a, b] with 0 <= a < b, got [3, 3]."),
        ({"range": [-1, 2]}, "expected a range [a, b] with 0 <= a < b, got [-1, 2]."),
        ({"first": 0}, "layers.first: expected greater than or equal to 1, got 0."),
        ({"middle": 2}, "layers.middle: expected a known key (first, last, range), got 'middle'."),
    ],
)
def test_blocks_said_in_no_way_or_in_two_are_refused(layers: Any, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        tiny(methods=[{"kind": "lora", "layers": layers}])
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, float("nan"), float("inf")], ids=str)
def test_an_option_is_one_finite_value(value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        tiny(methods=[{"kind": "peft", "type": "lora", "options": {"r": value}}])
    (fault,) = caught.value.faults
    assert fault.where.endswith("methods.0.options.r")
    assert fault.expected == "a finite number, a text, true or false"


def test_options_keep_their_types() -> None:
    spec = spec_of("lora", options={"a": True, "b": 1, "c": 1.0, "d": "1"})
    assert [(type(v), v) for v in spec.options.values()] == [
        (bool, True), (int, 1), (float, 1.0), (str, "1"),
    ]  # fmt: skip
