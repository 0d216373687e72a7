"""A CLIP is loaded whole, as float32, and read as transformers reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import EMBEDDED, mini_clip, pixels, write_random_clip

from clipdrift.backbone import Backbone, folder_hash, load_backbone
from clipdrift.errors import BackboneError
from clipdrift.spec.parts import BackboneSpec

FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_clip(tmp_path_factory.mktemp("models") / "random-clip")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the random CLIP that a test may spoil."""
    return shutil.copytree(written, tmp_path / "random-clip")


def load(folder: Path) -> Backbone:
    return load_backbone(BackboneSpec(id=str(folder)))


def refusal(folder: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load(folder)
    (fault,) = caught.value.faults
    assert fault.where == f"backbone {folder}"
    return f"{fault.expected} | {fault.got}"


def edit_weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_file_that_is_a_link_to_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    with pytest.raises(BackboneError, match=r"tokenizer.json: .* got a link out of it"):
        load(folder)


def test_weights_are_float32_although_the_file_is_float16(folder: Path) -> None:
    backbone = load(folder)
    on_disk = load_file(folder / "model.safetensors")
    assert {t.dtype for t in on_disk.values() if t.is_floating_point()} == {torch.float16}
    assert backbone.precision_on_disk == "float16"
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    assert {p.dtype for p in backbone.encoder().parameters()} == {torch.float32}
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, on_disk[name].to(tensor.dtype)), name
    assert backbone.encoder()(torch.zeros(1, 12, 12, 3, dtype=torch.uint8)).dtype == torch.float32


def test_a_loaded_backbone_is_frozen_and_in_eval_mode(folder: Path) -> None:
    model = load(folder).model
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_names_and_sizes_come_from_the_folder(folder: Path) -> None:
    backbone = load(folder)
    assert (backbone.name, backbone.image_size) == ("random-clip", 12)
    assert (mini_clip().name, mini_clip().image_size) == ("mini-clip", 28)
    assert mini_clip().sha256 == folder_hash(EMBEDDED)


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.encoder.layers.1.self_attn.q_proj.weight",
        "visual_projection.weight",
        "text_model.final_layer_norm.bias",
    ],
)
def test_a_missing_tensor_is_named(folder: Path, key: str) -> None:
    edit_weights(folder, lambda tensors: tensors.pop(key))
    text = refusal(folder)
    assert text.startswith("weights that match the model key by key | 1 that do not, first ")
    assert key in text


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    edit_weights(
        folder, lambda t: t.update({"vision_model.encoder.layers.2.extra": torch.zeros(2)})
    )
    assert refusal(folder) == (
        "weights that match the model key by key | 1 that do not, "
        "first 'vision_model.encoder.layers.2.extra'"
    )


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({"visual_projection.weight": torch.zeros(8, 15)}))
    assert "visual_projection" in refusal(folder)


def test_the_position_ids_of_old_checkpoints_are_no_fault(folder: Path) -> None:
    ids = {"vision_model.embeddings.position_ids": torch.arange(10)[None]}
    edit_weights(folder, lambda tensors: tensors.update(ids))
    assert load(folder).image_size == 12


@pytest.mark.parametrize("id_", ["./none", "/none/there", "~/none-of-that-name"])
def test_a_missing_folder_is_said(id_: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSpec(id=id_))
    assert str(caught.value) == (
        f"backbone {id_}: expected a model's folder or file, got nothing there. Check the path."
    )


@pytest.mark.parametrize("text", [None, "", "[]", "{", "\xff"])
def test_a_folder_without_readable_config_is_refused(folder: Path, text: str | None) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
    rule = "config.json or open_clip_config.json beside it: " * (text is None)
    assert refusal(folder).startswith(rule or "a folder with a readable config.json | ")


@pytest.mark.parametrize("kind", ["vision-text-dual-encoder", [], {"clip": 1}, None])
def test_another_kind_of_model_is_refused(folder: Path, kind: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    assert refusal(folder) == (
        f"a CLIP or SigLIP checkpoint (model_type clip or siglip) | {kind!r}"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_torn_file_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(folder).startswith("a loadable transformers folder | ")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"image_mean": 0.5}', '{"image_std": [1, 1]}', '{"image_std": [1, 0, 1]}']
)
def test_a_damaged_preprocessor_config_is_refused(folder: Path, text: str) -> None:
    (folder / "preprocessor_config.json").write_text(text)
    assert "preprocessor_config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "changes", "got"),
    [
        ("text_config", {"eos_token_id": [4, 5]}, "reads? images and texts .* 'bool' object"),
        ("text_config", {"eos_token_id": None}, "reads? images and texts .* 'bool' object"),
        ("text_config", {"eos_token_id": 10**30}, "reads? images and texts .* int too big"),
        ("text_config", {"layer_norm_eps": None}, "reads? images and texts .*eps"),
        ("vision_config", {"output_hidden_states": 2.5}, "reads? images and texts .*iterable"),
        ("vision_config", {"layer_norm_eps": float("nan")}, "finite values .* NaN or .* in none"),
    ],
)
def test_a_configuration_that_loads_and_does_not_read_is_refused(
    folder: Path, part: str, changes: dict[str, Any], got: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {part: config[part] | changes}))
    assert re.search(got, refusal(folder))


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["vision_model.post_layernorm.weight"][0] = float("nan")

    edit_weights(folder, spoil)
    assert refusal(folder).endswith("NaN or infinity in vision_model.post_layernorm.weight")


def test_weights_in_a_file_of_torchs_are_read_where_there_are_no_others(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = load(folder).model.visual_projection.weight
    assert torch.equal(found, weights["visual_projection.weight"].float())
    weights.popitem()
    torch.save(weights, folder / "pytorch_model.bin")
    assert refusal(folder).startswith("weights that match the model key by key | 1 that do not")


def test_mean_and_std_are_the_checkpoints_own(folder: Path) -> None:
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    backbone = load(folder)
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    found = backbone.encoder().normalise(torch.from_numpy(image)).numpy()
    expected = (image / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_they_are_found_where_transformers_5_writes_them(folder: Path) -> None:
    """A processor saved whole leaves no preprocessor_config.json; the newer file is read first."""
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPProcessor

    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    sides = {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}
    images = CLIPImageProcessorPil(image_mean=mean, image_std=std, **sides)
    CLIPProcessor(images, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    other = {"image_mean": [0.9, 0.9, 0.9]}
    (folder / "preprocessor_config.json").write_text(json.dumps(other))
    backbone = load(folder)
    assert (list(backbone.mean), list(backbone.std)) == (mean, std)
    assert backbone.resize_mode == "shortest"
    (folder / "processor_config.json").write_text("[]")
    assert "processor_config.json" in refusal(folder)


def test_without_a_preprocessor_config_they_are_clips(folder: Path) -> None:
    """The numbers of the original CLIP release, written out."""
    backbone = load(folder)
    assert backbone.mean == (0.48145466, 0.4578275, 0.40821073)
    assert backbone.std == (0.26862954, 0.26130258, 0.27577711)


def test_the_encoder_is_clips_own_image_path() -> None:
    """Against transformers' processor and CLIPModel.get_image_features, images not resized."""
    from transformers import CLIPImageProcessorPil

    backbone = mini_clip()
    images = pixels(8)
    processor = CLIPImageProcessorPil.from_pretrained(EMBEDDED)
    values = processor(images=list(images.numpy()), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = backbone.model.get_image_features(pixel_values=values).pooler_output
        found = backbone.encoder()(images)
    assert found.shape == (8, 64)
    torch.testing.assert_close(found, expected, **FLOAT32)
    assert float(found.std(dim=0).min()) > 0.01  # eight different images, not one answer


def test_many_images_pass_in_parts_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = mini_clip().encoder()
    tokens = encoder.tower.embeddings.position_embedding.num_embeddings
    monkeypatch.setattr("clipdrift.backbone.encoder.CPU_TOKENS", 3 * tokens + 1)
    images = pixels(8)
    sizes: list[int] = []
    encoder.tower.register_forward_pre_hook(
        lambda module, args, given: sizes.append(len(given["pixel_values"])), with_kwargs=True
    )
    whole = encoder(images)
    with torch.no_grad():
        parts = encoder(images)
    assert sizes == [8, 3, 3, 2]
    assert torch.equal(whole, parts)


def test_the_encoder_is_a_copy() -> None:
    backbone = mini_clip()
    kept = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    encoder = backbone.encoder()
    before = encoder(pixels(2))
    encoder.requires_grad_(True)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(pixels(2)).square().sum().backward()
    optimiser.step()
    assert not torch.allclose(encoder(pixels(2)), before)
    for name, p in backbone.model.state_dict().items():
        assert torch.equal(p, kept[name]), name
    assert all(p.grad is None for p in backbone.model.parameters())
    assert torch.equal(backbone.encoder()(pixels(2)), before)


def test_text_features_are_clips_own_normalised_and_averaged() -> None:
    """Against get_text_features one prompt at a time, without padding, in float64 after it."""
    backbone = mini_clip()
    prompts = [["a red circle"], ["a photo of a dog", "a dog", "one more, longer, prompt"], ["x"]]
    rows = []
    for group in prompts:
        unit = []
        for prompt in group:
            tokens = backbone.tokenizer([prompt], return_tensors="pt")
            with torch.no_grad():
                out = backbone.model.get_text_features(**tokens).pooler_output[0].double().numpy()
            unit.append(out / np.linalg.norm(out))
        mean = np.mean(unit, axis=0)
        rows.append(mean / np.linalg.norm(mean))
    found = backbone.text_features(prompts)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.stack(rows), rtol=1e-5, atol=1e-6)


def test_text_features_may_take_part_in_training() -> None:
    text = mini_clip().text_features([["a dog"], ["a cat"]])
    weight = torch.ones(64, requires_grad=True)
    (text * weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, text.sum(dim=0))
    assert not text.requires_grad


def test_a_prompt_longer_than_the_text_tower_is_cut() -> None:
    long = "a dog " * 200
    assert torch.isfinite(mini_clip().text_features([[long]])).all()


def test_vision_state_names_the_tower_and_nothing_else() -> None:
    state = mini_clip().vision_state()
    encoder = mini_clip().encoder()
    assert state.keys() == dict(encoder.tower.named_parameters()).keys()
    assert all(torch.equal(p, state[name]) for name, p in encoder.tower.named_parameters())


def test_the_hash_follows_content_and_not_place(folder: Path, tmp_path: Path) -> None:
    before = folder_hash(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "renamed")
    for path in moved.iterdir():
        os.utime(path, (0, 0))
    (moved / "README.md").write_text("notes")
    assert folder_hash(moved) == before == load(folder).sha256
    edit_weights(moved, lambda t: t["visual_projection.weight"][0].add_(0.01))
    assert folder_hash(moved) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_hash_covers_every_file_that_is_read(folder: Path, name: str) -> None:
    path = folder / name
    hashes = {folder_hash(folder)}
    path.write_bytes(path.read_bytes() + b" ")
    hashes.add(folder_hash(folder))
    path.rename(path.with_stem(path.stem + "2"))  # the same order of files, another name
    hashes.add(folder_hash(folder))
    assert len(hashes) == 3


# Checkpoints of other makers: what differs is in the configuration


OTHERS: dict[str, dict[str, Any]] = {
    "LAION": {"act": "gelu", "vision": 24, "text": 16, "projection": 10, "eps": 1e-5},
    "large": {"act": "quick_gelu", "vision": 32, "text": 24, "projection": 24, "eps": 1e-6},
    "narrow": {"act": "gelu_pytorch_tanh", "vision": 16, "text": 32, "projection": 4, "eps": 1e-3},
}


def write_other(
    folder: Path, *, act: str, vision: int, text: int, projection: int, eps: float
) -> Path:
    """A random CLIP whose towers differ in width, activation, depth and epsilon, in bfloat16."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    shared = {"hidden_act": act, "num_attention_heads": 2, "layer_norm_eps": eps}
    size = {"image_size": 21, "patch_size": 7, "num_hidden_layers": 3}
    words = {"vocab_size": 403, "bos_token_id": 0, "eos_token_id": 4, "num_hidden_layers": 2}
    config = CLIPConfig(
        vision_config={**shared, **size, "hidden_size": vision, "intermediate_size": 4 * vision},
        text_config={**shared, **words, "hidden_size": text, "intermediate_size": 2 * text},
        projection_dim=projection,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the linear part of an activation
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="10KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder / name)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoints_of_other_makers_read_as_in_transformers(tmp_path: Path, name: str) -> None:
    """Both towers and zero-shot against CLIPModel's own joint forward pass; sharded on disk."""
    from transformers import AutoTokenizer, CLIPModel

    folder = write_other(tmp_path / "other", **OTHERS[name])
    backbone = load(folder)
    assert (backbone.width, backbone.image_size) == (OTHERS[name]["projection"], 21)
    assert len(list(folder.glob("*.safetensors"))) > 2
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = ["a red circle", "a photo of a dog", "one more, longer, prompt"]
    tokens = AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
    images = torch.randint(0, 256, (9, 21, 21, 3), generator=torch.Generator().manual_seed(2))
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (backbone.mean, backbone.std))
    values = (images.numpy().transpose(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        out = model(pixel_values=torch.tensor(values, dtype=torch.float32), **tokens)
        found = backbone.encoder()(images.to(torch.uint8))
    unit = found / found.norm(dim=-1, keepdim=True)
    text = backbone.text_features([[prompt] for prompt in prompts])
    # bfloat16 weights have large last digits; float32 sums of them round a little further apart.
    torch.testing.assert_close(unit, out.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text, out.text_embeds, rtol=1e-4, atol=1e-5)
    assert torch.equal((unit @ text.T).argmax(dim=1), out.logits_per_image.argmax(dim=1))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_other(tmp_path / "other", **OTHERS["LAION"])
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    text = refusal(folder)
    assert text.startswith("a loadable transformers folder | ")
    assert shard.name in text


def test_the_image_size_is_the_models_also_in_configurations_of_old(folder: Path) -> None:
    """Before 2022 the towers' parts were written as `vision_config_dict`."""
    config = json.loads((folder / "config.json").read_text())
    config["vision_config_dict"] = config.pop("vision_config")
    config["text_config_dict"] = config.pop("text_config")
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder).image_size == 12
