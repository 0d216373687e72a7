"""SigLIP: no CLS token, a pooling head, no projection; held to transformers throughout."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import METHODS, mini_clip, perturb, pixels
from small_siglip import (
    BLOCKS,
    HEADS,
    LONGEST,
    PATCHES,
    SIZE,
    WIDTH,
    small_siglip,
    write_random_siglip,
)
from torch import Tensor
from transformers import AutoTokenizer, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from clipdrift.backbone import load_backbone
from clipdrift.data.decode import to_square
from clipdrift.data.images import Images
from clipdrift.errors import AdapterInactiveError, BackboneError, MethodError
from clipdrift.methods.adapted import AdaptedModel, build, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.probes.capture import ProbeReading, read_probe
from clipdrift.probes.drift import drift_signals, per_image_table
from clipdrift.probes.zero_shot import cosines, largest
from clipdrift.reading.baseline import load_reading, save_reading
from clipdrift.reading.model import not_read, read_drift
from clipdrift.reading.pictures import save_attention_pictures
from clipdrift.records.readings import EpochReading
from clipdrift.run.state import RunState, Selected, StateFile
from clipdrift.spec.methods import LoraSpec
from clipdrift.spec.parts import BackboneSpec
from clipdrift.training.state import TrainState

FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}
each_method = pytest.mark.parametrize("method", list(METHODS))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_siglip(tmp_path_factory.mktemp("models") / "siglip", dtype=torch.float16)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "siglip")


def refusal(folder: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSpec(id=str(folder)))
    return str(caught.value)


def edit(path: Path, **changes: Any) -> None:
    body = json.loads(path.read_text())
    for key, value in changes.items():
        body[key] = {**body[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(body))


def adapted(method: str | LoraSpec) -> AdaptedModel:
    spec = METHODS[method] if isinstance(method, str) else method
    return build(small_siglip(), spec, 10, seed=7, text_features=None)


def probe_of(model: Any) -> ProbeReading:
    encoder = model.encoder
    return read_probe(encoder.encode, encoder.tower, encoder.normalise(pixels(8)).split(3))


# Loading


def test_it_is_loaded_whole_as_float32_with_its_own_preprocessing(written: Path) -> None:
    backbone = load_backbone(BackboneSpec(id=str(written)))
    on_disk = load_file(written / "model.safetensors")
    assert {t.dtype for t in on_disk.values()} == {torch.float16}
    assert backbone.precision_on_disk == "float16"
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, on_disk[name].float()), name
    assert (backbone.image_size, backbone.resize_mode, backbone.width) == (SIZE, "squash", WIDTH)
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert backbone.architecture.name == "SigLIP"
    assert backbone.model.config.vision_config.hidden_act == "gelu_pytorch_tanh"


@pytest.mark.parametrize(
    "key", ["vision_model.head.attention.in_proj_weight", "text_model.head.weight", "logit_bias"]
)
def test_every_key_is_accounted_for(folder: Path, key: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors[key]
    save_file({**tensors, "vision_model.more": torch.ones(1)}, path, metadata={"format": "pt"})
    text = refusal(folder)
    assert "expected weights that match the model key by key, got 2 that do not" in text


def test_what_its_tower_does_not_allow_is_refused(folder: Path) -> None:
    edit(folder / "config.json", vision_config={"vision_use_head": False, "hidden_size": 32})
    text = refusal(folder)
    assert "expected a vision tower with a pooling head, got vision_use_head: false." in text
    assert "expected image and text embeddings of one width, got 32 and 16." in text
    edit(folder / "config.json", model_type="siglip2")
    assert (
        "expected a CLIP or SigLIP that reads images at one size, got model_type 'siglip2', which "
        "reads them at sizes of their own (NaFlex). Name a SigLIP 2 of fixed size, for example "
        "google/siglip2-base-patch16-224." in refusal(folder)
    )


def test_images_that_are_not_square_are_refused(folder: Path) -> None:
    edit(folder / "config.json", vision_config={"image_size": [28, 56]})
    assert "vision_config.image_size: expected a whole number above 0, got [28, 56]" in refusal(
        folder
    )


def test_the_tokenizer_is_part_of_what_is_hashed(folder: Path) -> None:
    before = load_backbone(BackboneSpec(id=str(folder))).sha256
    path = folder / "spiece.model"
    path.write_bytes(path.read_bytes() + b"\x1a\x00")
    assert load_backbone(BackboneSpec(id=str(folder))).sha256 != before


# Parity with transformers


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(61, 45), (28, 28), (31, 90), (333, 200)])
def test_images_are_what_its_processor_shows(size: tuple[int, int], interpolation: str) -> None:
    rng = np.random.default_rng(size)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    processor = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        resample={"bicubic": 3, "bilinear": 2}[interpolation],
        do_rescale=False,
        do_normalize=False,
    )
    theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    ours = to_square(image, SIZE, interpolation, "squash")  # type: ignore[arg-type]
    assert ours.shape == (SIZE, SIZE, 3)
    assert np.abs(ours.astype(int) - theirs.transpose(1, 2, 0).astype(int)).max() <= 1


def test_image_embeddings_are_its_pooled_output() -> None:
    values = (pixels(6).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = small_siglip().model.get_image_features(pixel_values=values).pooler_output
        found = small_siglip().encoder()(pixels(6))
    assert found.shape == (6, WIDTH)
    torch.testing.assert_close(found, expected, **FLOAT32)
    assert float(found.std(dim=0).min()) > 1e-4


def padded(prompts: list[str]) -> Tensor:
    """Token ids by hand: the tokenizer's own, then its padding up to the full length."""
    tokenizer = AutoTokenizer.from_pretrained(Path(small_siglip().tokenizer.vocab_file).parent)
    rows = [tokenizer(prompt).input_ids for prompt in prompts]
    return torch.tensor([row + [1] * (LONGEST - len(row)) for row in rows])


def test_prompts_are_padded_to_the_full_length_without_a_mask() -> None:
    prompts = ["a photo of a cat", "the red circle"]
    with torch.no_grad():
        out = small_siglip().model.text_model(input_ids=padded(prompts))
    expected = out.pooler_output / out.pooler_output.norm(dim=-1, keepdim=True)
    found = small_siglip().text_features([[prompt] for prompt in prompts])
    torch.testing.assert_close(found, expected, **FLOAT32)
    short = small_siglip().tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        other = small_siglip().model.get_text_features(input_ids=short.input_ids).pooler_output
    assert not torch.allclose(other / other.norm(dim=-1, keepdim=True), expected, rtol=1e-2)


def test_prompts_are_read_in_lower_case_whatever_the_tokenizer_does() -> None:
    """SigLIP 2 has Gemma's tokenizer, which keeps case, and was trained on lower case."""
    seen = []

    class Cased:
        def __call__(self, prompts: list[str], **options: Any) -> Any:
            seen.extend(prompts)
            return small_siglip().tokenizer(prompts, **options)

    backbone = copy.copy(small_siglip())
    object.__setattr__(backbone, "tokenizer", Cased())
    backbone.text_features([["A Photo of a CAT"]])
    assert seen == ["a photo of a cat"]


def test_a_prompt_longer_than_the_text_tower_is_cut() -> None:
    assert torch.isfinite(small_siglip().text_features([["a dog " * 99]])).all()


def test_zero_shot_is_the_argmax_of_its_own_logits() -> None:
    """The sigmoid of scale and bias is monotone: the order of classes is that of the cosines."""
    prompts = ["a photo of a cat", "a photo of a dog", "river", "forest", "red circle"]
    values = (pixels(30).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        logits = small_siglip().model(input_ids=padded(prompts), pixel_values=values)
        texts = small_siglip().text_features([[prompt] for prompt in prompts])
        found = largest(cosines(small_siglip().encoder()(pixels(30)), texts))
    assert torch.equal(found, torch.sigmoid(logits.logits_per_image).argmax(dim=-1))


# Methods


@each_method
def test_step_0_is_the_baseline_and_the_guard_agrees(method: str) -> None:
    model = adapted(method).eval()
    with torch.no_grad():
        assert torch.equal(model.encoder(pixels()), small_siglip().encoder()(pixels()))
    assert model.head.in_features == WIDTH
    assert not any(name.startswith("encoder.projection") for name in model.trained())
    assert_adapted(model, small_siglip(), pixels())


@each_method
def test_what_trained_is_saved_and_reloaded_exactly(method: str, tmp_path: Path) -> None:
    model = perturb(adapted(method))
    model.save(tmp_path)
    again = reload(small_siglip(), METHODS[method], 10, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(pixels()), model(pixels()))
        moved = not torch.equal(again.encoder(pixels()), small_siglip().encoder()(pixels()))
    assert moved is (method != "linear_probe")
    assert_adapted(again, small_siglip(), pixels(), trained=model.snapshot())


@each_method
def test_a_step_of_training_moves_what_trains_and_nothing_else(method: str) -> None:
    model = adapted(method).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.trained().values(), lr=0.5)
    for _ in range(2):  # the first step of LoRA moves B alone, as B starts at zero
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels(20)), torch.arange(20) % 10).backward()
        optimiser.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= set(model.trained())
    unmoved = {n for n in set(model.trained()) - moved if not n.endswith("k_proj.bias")}
    assert unmoved == set()  # the softmax does not see a shift of all keys
    assert_adapted(model, small_siglip(), pixels(), trained=model.snapshot())


def test_a_plain_tower_in_place_of_the_adapted_one_is_caught() -> None:
    model = perturb(adapted("lora"))
    kept = model.snapshot()
    model.encoder.tower = small_siglip().encoder().tower
    with pytest.raises(AdapterInactiveError):
        assert_adapted(model, small_siglip(), pixels(), trained=kept)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["fc1", "out_proj"]])
def test_lora_stays_out_of_the_pooling_head(modules: list[str]) -> None:
    """The head has layers fc1 and out_proj too, and its fused attention reads past an adapter."""
    model = adapted(LoraSpec(kind="lora", name="lora", modules=modules))
    places = {name.split(".lora_")[0] for name in model.trained() if ".lora_" in name}
    assert len(places) == BLOCKS * len(modules)
    assert all(place.startswith("encoder.tower.encoder.layers.") for place in places)
    assert_adapted(perturb(model), small_siglip(), pixels(), trained=model.snapshot())


def test_only_layers_of_the_blocks_can_be_named() -> None:
    with pytest.raises(MethodError, match=r"names among fc1, fc2, k_proj, out_proj, q_proj, v_pr"):
        adapted(LoraSpec(kind="lora", name="lora", modules=["in_proj"]))


def test_last_blocks_train_no_pooling_head() -> None:
    names = {n.split("tower.")[1] for n in adapted("last_blocks").trained() if "tower" in n}
    assert {n.split(".")[0] for n in names} == {"encoder", "post_layernorm"}


# What is read of it


def eager_entropy_bits(encoder: Any, images: Tensor) -> np.ndarray[Any, Any]:
    """[N, L]: mean over heads and tokens of the entropy of each row, in float64, by transformers'
    slow path."""
    model = SiglipModel._from_config(small_siglip().model.config, attn_implementation="eager")
    model.vision_model.load_state_dict(encoder.tower.state_dict())
    with torch.no_grad():
        out = model.eval().vision_model(pixel_values=images, output_attentions=True)
    attn = np.stack([a.double().numpy() for a in out.attentions], axis=1)
    assert attn.shape[1:] == (BLOCKS, HEADS, PATCHES, PATCHES)
    assert attn.std() > 1e-3
    return np.asarray(-(attn * np.log2(attn)).sum(-1).mean(axis=(2, 3)))


def test_every_token_is_a_patch_of_the_patch_entropy() -> None:
    encoder = small_siglip().encoder()
    reading = probe_of(adapted("full_ft"))
    expected = eager_entropy_bits(encoder, encoder.normalise(pixels(8)))
    np.testing.assert_allclose(reading.patch_entropy_bits.numpy(), expected, rtol=1e-5)
    with torch.no_grad():
        # SDPA and the plain product round apart; elements near zero carry the rounding of the rest.
        torch.testing.assert_close(reading.embeddings, encoder(pixels(8)), rtol=1e-5, atol=1e-5)


def test_what_needs_a_cls_token_is_null_and_everything_null_has_its_reason() -> None:
    model = perturb(adapted("full_ft"))
    images = Images(pixels(8).numpy(), np.arange(8), np.arange(8))
    untouched = probe_of(adapted("full_ft"))
    reading, _ = read_drift(model, small_siglip(), images, untouched)
    defined = {
        *("levels.patch_entropy_bits", "levels.patch_entropy_bits_last"),
        *("drift.patch_entropy_pct", "drift.patch_entropy_last_pct"),
        *("drift.embedding_drift", "drift.weight_drift_rel"),
    }
    values = {f"levels.{k}": v for k, v in reading.levels.items()}
    values |= {f"drift.{k}": v for k, v in reading.drift.items()}
    assert {name for name, value in values.items() if value is not None} == defined
    reasons = not_read(small_siglip())
    assert set(reasons) == set(values) - defined | {"attention_pictures"}
    assert all("no CLS token: " in r or "no visual projection" in r for r in reasons.values())
    for blocks in (reading.levels_per_block, reading.drift_per_block):
        assert {len(values) for values in blocks.values()} == {BLOCKS}
        for name, numbers in blocks.items():
            assert all((n is not None) is name.startswith("patch_entropy") for n in numbers), name
    assert not_read(mini_clip()) == {}


def test_zero_training_is_zero_drift() -> None:
    reading = probe_of(adapted("full_ft"))
    levels, drift = drift_signals(reading, reading)
    assert (drift["patch_entropy_pct"], drift["embedding_drift"]) == (0.0, 0.0)
    assert 0 < levels["patch_entropy_bits"] < np.log2(PATCHES)  # type: ignore[operator]
    table = per_image_table(reading, reading)
    assert set(table) == {
        *(
            f"patch_entropy_bits{last}{base}"
            for last in ("", "_last")
            for base in ("", "_baseline")
        ),
        "embedding_drift",
    }


def test_a_reading_survives_its_file(tmp_path: Path) -> None:
    reading = probe_of(adapted("full_ft"))
    save_reading(reading, tmp_path / "reading.safetensors")
    again = load_reading(tmp_path / "reading.safetensors")
    assert again is not None
    assert torch.equal(again.patch_entropy_bits, reading.patch_entropy_bits)
    assert again.cls_activations is None


def test_an_interrupted_run_goes_on_from_what_was_read(tmp_path: Path) -> None:
    reading = probe_of(adapted("full_ft"))
    history = [EpochReading(epoch=0, step=0)]
    kept = Selected(0.5, history[0], reading, {"head.bias": torch.ones(2)})
    train = TrainState(epoch=0, step=0, images=0, seconds=0.0, tensors={"x": torch.ones(1)})
    StateFile(tmp_path, "this run").save(RunState(train, history, kept, {}))
    state = StateFile(tmp_path, "this run").load()
    assert state is not None
    assert state.selected is not None
    assert torch.equal(state.selected.probe.embeddings, reading.embeddings)
    assert state.selected.probe.cls_activations is None


def test_a_reading_of_some_of_cls_is_no_reading() -> None:
    part = {**probe_of(adapted("full_ft")).tensors(), "gini": torch.ones(8, BLOCKS)}
    with pytest.raises(TypeError, match="all that is read at CLS or none of it"):
        ProbeReading(**part)


def test_there_is_no_attention_of_cls_to_draw(tmp_path: Path) -> None:
    images = Images(pixels(8).numpy(), np.arange(8), np.arange(8))
    save_attention_pictures(small_siglip().encoder(), small_siglip(), images, tmp_path)
    assert list(tmp_path.iterdir()) == []
