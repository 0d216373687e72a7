"""What each method trains, what its weights amount to, and that they come back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import METHODS, adapted, land_cover, mini_clip, perturb, pixels
from torch import Tensor

from clipdrift.errors import MethodError, RecordError, StudyFolderError
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.weights_file import save_tensors
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import BitFitSpec, FullFtSpec, LastBlocksSpec, LinearProbeSpec, LoraSpec
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import train

# The embedded backbone: width D, MLP width M, L blocks, P patches of 4x4 pixels, projection E.
D, M, L, P, E, C = 64, 256, 6, 49, 64, 10
BLOCK = 4 * (D * D + D) + 2 * 2 * D + (D * M + M) + (M * D + D)
TOWER = D + D * 3 * 4 * 4 + (P + 1) * D + 2 * D + L * BLOCK + 2 * D
BIASES = D + L * (4 * D + 2 * D + M + D) + D  # the first and the last layer norm outside blocks
PROJECTION, HEAD = D * E, C * E + C

SPECS: dict[str, MethodBase] = {
    **METHODS,
    "lora wide": LoraSpec(
        kind="lora", name="wide", rank=3, alpha=7.5, modules=["fc1", "out_proj", "k_proj"]
    ),
    "lora frozen": LoraSpec(kind="lora", name="frozen", projection="frozen"),
    "full_ft frozen": FullFtSpec(kind="full_ft", name="ff", projection="frozen"),
    "two blocks": LastBlocksSpec(kind="last_blocks", name="two", blocks=2),
    "bitfit frozen": BitFitSpec(kind="bitfit", name="bf", projection="frozen"),
}
TRAINED = {
    "full_ft": TOWER + PROJECTION + HEAD,
    "lora": L * 2 * 8 * (D + D) + PROJECTION + HEAD,
    "linear_probe": HEAD,
    "last_blocks": BLOCK + 2 * D + PROJECTION + HEAD,
    "lora wide": L * 3 * ((D + M) + (D + D) + (D + D)) + PROJECTION + HEAD,
    "lora frozen": L * 2 * 8 * (D + D) + HEAD,
    "full_ft frozen": TOWER + HEAD,
    "two blocks": 2 * BLOCK + 2 * D + PROJECTION + HEAD,
    "bitfit": BIASES + PROJECTION + HEAD,
    "bitfit frozen": BIASES + HEAD,
    "lp_ft": TOWER + PROJECTION + HEAD,
}
each_spec = pytest.mark.parametrize("name", list(SPECS))


def logits(model: AdaptedModel) -> Tensor:
    with torch.no_grad():
        result: Tensor = model.eval()(pixels())
    return result


@each_spec
def test_parameters_trained_by_closed_form(name: str) -> None:
    model = adapted(SPECS[name])
    assert sum(p.numel() for p in model.trained().values()) == TRAINED[name]
    plain = sum(p.numel() for p in mini_clip().encoder().tower.parameters())
    assert plain == TOWER


@pytest.mark.slow
@each_spec
@pytest.mark.parametrize("training", [False, True])
def test_at_step_0_the_encoder_is_the_baseline_exactly(name: str, training: bool) -> None:
    """Also in training mode: adapters start at zero, so their dropout changes nothing yet."""
    model = adapted(SPECS[name]).train(training)
    with torch.no_grad():
        assert torch.equal(model.encoder(pixels()), mini_clip().encoder()(pixels()))
    state = model.vision_state()
    assert state.keys() == mini_clip().vision_state().keys()
    assert all(torch.equal(state[k], v) for k, v in mini_clip().vision_state().items())


@each_spec
def test_the_backbone_is_never_touched(name: str) -> None:
    before = {k: v.clone() for k, v in mini_clip().model.state_dict().items()}
    perturb(adapted(SPECS[name]))
    after = mini_clip().model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_lora_lies_on_the_named_layers_of_the_vision_tower_alone() -> None:
    places = {name.split(".lora_")[0] for name in adapted("lora").trained() if ".lora_" in name}
    assert places == {
        f"encoder.tower.encoder.layers.{i}.self_attn.{which}"
        for i in range(L)
        for which in ("q_proj", "v_proj")
    }
    assert not any("lora" in name for name, _ in mini_clip().model.named_parameters())


def test_the_last_blocks_are_the_last_ones() -> None:
    names = {n for n in adapted(SPECS["two blocks"]).trained() if n.startswith("encoder.tower")}
    places = {n.split("layers.")[1].split(".")[0] if "layers" in n else n for n in names}
    assert places == {
        "4",
        "5",
        "encoder.tower.post_layernorm.weight",
        "encoder.tower.post_layernorm.bias",
    }


@each_spec
def test_the_projection_trains_where_the_method_says_so(name: str) -> None:
    weight = adapted(SPECS[name]).encoder.projection.weight
    assert weight.requires_grad is (SPECS[name].projection == "trained")


def test_the_head_is_the_same_for_all_methods_of_a_seed() -> None:
    heads = [adapted(spec, seed=7).head for spec in SPECS.values()]
    for head in heads:
        assert torch.equal(head.weight, heads[0].weight)
        assert torch.equal(head.bias, heads[0].bias)
    other = adapted("lora", seed=8).head
    assert not torch.equal(other.weight, heads[0].weight)
    assert not torch.equal(other.bias, heads[0].bias)


def test_the_head_does_not_depend_on_what_was_drawn_before() -> None:
    first = adapted("lora")
    torch.rand(5)
    second = adapted("lora")
    for (name, a), b in zip(first.trained().items(), second.trained().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_head_is_uniform_within_the_bound_of_linear_layers() -> None:
    head = adapted("full_ft", classes=200).head
    bound = E**-0.5
    weight = head.weight.detach()
    assert float(weight.abs().max()) <= bound
    # 12,800 draws: the mean has standard error bound / sqrt(3 n), the SD about bound / sqrt(6 n)
    assert abs(float(weight.mean())) < 5 * bound / (3 * weight.numel()) ** 0.5
    assert abs(float(weight.std()) - bound / 3**0.5) < 5 * bound / (6 * weight.numel()) ** 0.5


def test_adapters_are_drawn_by_the_seed() -> None:
    first, same, other = (adapted("lora", seed=s).trained() for s in (7, 7, 8))
    for name in first:
        assert torch.equal(first[name], same[name]), name
        if ".lora_A." in name:
            assert not torch.equal(first[name], other[name]), name
            assert float(first[name].detach().std()) > 0


def test_a_head_may_start_at_the_class_texts() -> None:
    text = mini_clip().text_features([["a dog"], ["a cat"], ["a house"]])
    spec = LoraSpec(kind="lora", name="lora", head_init="text")
    model = build(mini_clip(), spec, 3, seed=7, text_features=text)
    assert torch.equal(model.head.weight, text)
    assert not model.head.bias.any()
    # Its logits rank classes as zero-shot classification does.
    features = mini_clip().encoder()(pixels())
    cosine = torch.nn.functional.normalize(features, dim=-1) @ text.T
    assert torch.equal(logits(model).argmax(-1), cosine.argmax(-1))


@pytest.mark.slow
@each_spec
def test_what_is_saved_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    model = perturb(adapted(SPECS[name]))
    model.save(tmp_path)
    back = reload(mini_clip(), SPECS[name], C, tmp_path)
    assert torch.equal(logits(back), logits(model))
    assert not torch.equal(logits(back), logits(adapted(SPECS[name])))
    assert back.trained().keys() == model.trained().keys()
    for key, value in model.vision_state().items():
        assert torch.equal(back.vision_state()[key], value), key
    assert not back.training


def test_a_saved_run_holds_what_trained_and_not_more(tmp_path: Path) -> None:
    sizes = {}
    for name, spec in SPECS.items():
        perturb(adapted(spec)).save(tmp_path / name)
        files = (tmp_path / name).rglob("*.safetensors")
        sizes[name] = sum(t.numel() for path in files for t in load_file(path).values())
    # The projection is kept with the head also where it is frozen.
    frozen = {n: PROJECTION for n, s in SPECS.items() if s.projection == "frozen"}
    assert sizes == {name: TRAINED[name] + frozen.get(name, 0) for name in SPECS}


@pytest.mark.parametrize("name", ["lora", "lora wide"])
def test_effective_weights_are_pefts_own_merge(name: str, tmp_path: Path) -> None:
    model = perturb(adapted(SPECS[name]))
    model.save(tmp_path)
    state = model.vision_state()
    wrapped = peft.PeftModel.from_pretrained(mini_clip().encoder().tower, tmp_path / "adapter")
    merged = dict(wrapped.merge_and_unload().named_parameters())
    assert merged.keys() == state.keys() == mini_clip().vision_state().keys()
    moved = 0
    for key, value in merged.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)
        moved += not torch.equal(state[key], mini_clip().vision_state()[key])
    assert moved == L * len(SPECS[name].modules)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["lora", "lora wide"])
def test_the_adapter_loads_with_peft_itself(name: str, tmp_path: Path) -> None:
    model = perturb(adapted(SPECS[name]))
    model.save(tmp_path)
    wrapped = peft.PeftModel.from_pretrained(mini_clip().encoder().tower, tmp_path / "adapter")
    values = model.encoder.normalise(pixels())
    with torch.no_grad():
        found = wrapped.eval()(pixel_values=values).pooler_output
        expected = model.encoder.tower(pixel_values=values).pooler_output
        untouched = mini_clip().encoder().tower(pixel_values=values).pooler_output
    assert torch.equal(found, expected)
    assert not torch.allclose(found, untouched, atol=1e-2)


@pytest.mark.parametrize("name", ["full_ft", "last_blocks", "bitfit"])
def test_effective_weights_are_the_live_ones_where_nothing_is_wrapped(name: str) -> None:
    model = perturb(adapted(name))
    live = dict(model.encoder.tower.named_parameters())
    assert all(torch.equal(live[k], v) for k, v in model.vision_state().items())
    changed = {k for k, v in mini_clip().vision_state().items() if not torch.equal(live[k], v)}
    assert changed == {
        k.removeprefix("encoder.tower.") for k in model.trained() if k.startswith("encoder.tower.")
    }


def edited(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


FILES = {
    "full_ft": "vision.safetensors",
    "last_blocks": "last_blocks.safetensors",
    "lora": "adapter/adapter_model.safetensors",
    "linear_probe": "head.safetensors",
    "bitfit": "biases.safetensors",
    "lp_ft": "vision.safetensors",
}


def first_key(tensors: dict[str, Tensor]) -> str:
    return min(tensors)


@pytest.mark.parametrize(("name", "file"), FILES.items())
@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda t: t.pop(first_key(t)), "1 missing, 0 left over, 0 of another shape"),
        (lambda t: t.update(extra=torch.ones(1)), "0 missing, 1 left over, 0 of another shape"),
        (
            lambda t: t.update({first_key(t): torch.ones(1, 1, 1, 1, 1)}),
            "0 missing, 0 left over, 1 of another shape",
        ),
    ],
)
def test_saved_tensors_are_counted_key_by_key(
    name: str, file: str, change: Any, counts: str, tmp_path: Path
) -> None:
    adapted(name).save(tmp_path)
    wanted = first_key(load_file(tmp_path / file)).removeprefix("base_model.model.")
    edited(tmp_path / file, change)
    with pytest.raises(RecordError) as caught:
        reload(mini_clip(), METHODS[name], C, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / file}: expected exactly the ")
    assert counts in text
    assert (wanted if "1 left over" not in counts else "'extra'") in text


@pytest.mark.parametrize(
    ("saved", "read"),
    [
        ("lora", "lora wide"),
        ("lora", LoraSpec(kind="lora", name="lora", rank=4)),
        ("last_blocks", "two blocks"),
        ("two blocks", "last_blocks"),
    ],
)
def test_other_options_than_those_of_training_are_refused(
    saved: str, read: str | MethodBase, tmp_path: Path
) -> None:
    adapted(SPECS[saved]).save(tmp_path)
    with pytest.raises(RecordError, match="Use the backbone and method options that the run was"):
        reload(mini_clip(), SPECS[read] if isinstance(read, str) else read, C, tmp_path)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    adapted("linear_probe").save(tmp_path)
    with pytest.raises(RecordError, match=r"2 of another shape \(first: 'head.bias'\)"):
        reload(mini_clip(), METHODS["linear_probe"], C + 1, tmp_path)


@pytest.mark.parametrize(("name", "file"), FILES.items())
@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_missing_and_torn_weights_are_said(
    name: str, file: str, damage: str, tmp_path: Path
) -> None:
    adapted(name).save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    path.unlink()
    if damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RecordError) as caught:
        reload(mini_clip(), METHODS[name], C, tmp_path)
    assert str(caught.value).startswith(f"{path}: expected saved weights in safetensors format")


def test_weights_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(StudyFolderError, match="expected a folder that can be written"):
        adapted("full_ft").save(tmp_path / "run")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            LoraSpec(kind="lora", name="big", rank=65),
            "method big rank: expected at most the layer width 64, got 65. Lower it.",
        ),
        (
            LoraSpec(kind="lora", name="odd", modules=["q_proj", "qkv"]),
            (
                "method odd modules: expected names among fc1, fc2, k_proj, out_proj, q_proj, "
                "v_proj, got 'qkv'. Name linear layers."
            ),
        ),
        (
            LastBlocksSpec(kind="last_blocks", name="deep", blocks=7),
            "method deep: expected at most 6 blocks, as the backbone has, got 7. Lower blocks.",
        ),
    ],
)
def test_options_that_do_not_fit_the_backbone_are_refused(spec: MethodBase, text: str) -> None:
    with pytest.raises(MethodError) as caught:
        adapted(spec)
    assert str(caught.value) == text


def test_all_faults_of_a_method_are_said_at_once() -> None:
    spec = LoraSpec(kind="lora", name="x", rank=65, modules=["q_proj", "a", "b"])
    with pytest.raises(MethodError) as caught:
        adapted(spec)
    assert len(caught.value.faults) == 3


def test_a_rank_of_the_full_width_is_allowed() -> None:
    model = adapted(LoraSpec(kind="lora", name="x", rank=64))
    assert sum(p.numel() for n, p in model.trained().items() if "lora_A" in n) == L * 2 * 64 * D


def trained_once(model: AdaptedModel) -> AdaptedModel:
    schedule = ScheduleSpec(epochs=1, batch_size=8)
    options: dict[str, Any] = {"learning_rate": 1e-3, "head_rate": 1e-3, "precision": "float32"}
    for _ in train(model, land_cover(16), schedule=schedule, seed=7, **options):
        pass
    return model


@each_spec
def test_training_moves_exactly_what_the_method_trains(name: str) -> None:
    model = adapted(SPECS[name])
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    trained_once(model)
    changed = {k for k, p in model.named_parameters() if not torch.equal(p, before[k])}
    assert changed == model.trained().keys()


def test_a_linear_probe_leaves_tower_and_projection_bit_equal() -> None:
    model = trained_once(adapted("linear_probe"))
    assert torch.equal(model.encoder(pixels()), mini_clip().encoder()(pixels()))
    assert torch.equal(model.encoder.projection.weight, mini_clip().model.visual_projection.weight)


def test_a_snapshot_is_a_copy_and_is_come_back_to() -> None:
    model = perturb(adapted("lora"))
    expected = logits(model)
    snapshot = model.snapshot()
    perturb(model, seed=1)
    assert not torch.equal(logits(model), expected)
    model.rewind(snapshot)
    assert torch.equal(logits(model), expected)
    assert all(p.requires_grad for p in model.trained().values())


def test_a_snapshot_of_another_method_is_refused() -> None:
    with pytest.raises(RecordError, match=r"snapshot: expected exactly the 27 tensors"):
        adapted("lora").rewind(adapted("linear_probe").snapshot())


@each_spec
def test_every_trained_tensor_is_in_one_optimiser_group(name: str) -> None:
    model = adapted(SPECS[name])
    groups = list(model.parameter_groups(1e-4, 1e-3))
    found: list[Any] = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert sorted(map(id, found)) == sorted(map(id, model.trained().values()))
    assert groups[0] == {"params": [model.head.weight, model.head.bias], "lr": 1e-3}
    assert [group["lr"] for group in groups[1:]] == ([] if name == "linear_probe" else [1e-4])


def test_the_linear_probe_has_a_frozen_projection_in_its_spec() -> None:
    with pytest.raises(ValueError, match="Input should be 'frozen'"):
        LinearProbeSpec(kind="linear_probe", name="x", projection="trained")  # type: ignore[arg-type]


def test_weights_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
