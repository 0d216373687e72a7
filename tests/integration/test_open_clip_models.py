"""Models of open_clip's and OpenAI's taken in, converted both ways, evaluated and read live."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_process import exit_code_here
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import EMBEDDED, assert_same_features, land_cover, write_random_clip
from small_open_clip import TEXTS, allow_small_trunks, by_open_clip, pictures
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

import clipdrift
from clipdrift.backbone import Backbone, load_backbone
from clipdrift.checkpoint.load import Checkpoint, load_checkpoint
from clipdrift.errors import BackboneError, ClipdriftError
from clipdrift.finished.convert import convert
from clipdrift.spec.parts import BackboneSpec

PLAIN = [text for text in TEXTS if text == " ".join(text.split())]
"""Other blanks are read as one by open_clip, whatever the tokenizer."""


@pytest.fixture(autouse=True)
def _small_trunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(tmp_path / "cache"))
    allow_small_trunks(monkeypatch)


def backbone(path: Path | str, **said: Any) -> Backbone:
    return load_backbone(BackboneSpec(id=str(path), **said))


def embeddings(found: Backbone) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return found.live_encoder()(found.trial_images()), found.live_text_encoder()(PLAIN)


def statuses(checkpoint: Checkpoint) -> dict[str, str]:
    return {finding.check: finding.status for finding in checkpoint.findings}


def said(checkpoint: Checkpoint, check: str) -> str:
    return next(finding.text for finding in checkpoint.findings if finding.check == check)


# There and back


def odd_clip(folder: Path) -> Path:
    """Whatever a CLIP's configuration can say otherwise, in another precision."""
    torch.manual_seed(1)
    tower = {"intermediate_size": 50, "num_hidden_layers": 2, "hidden_act": "gelu_pytorch_tanh"}
    config = CLIPConfig(
        vision_config={**tower, "hidden_size": 48, "num_attention_heads": 3, "image_size": 12,
                       "patch_size": 4, "projection_dim": 8, "layer_norm_eps": 1e-4},
        text_config={**tower, "hidden_size": 16, "num_attention_heads": 4, "vocab_size": 403,
                     "bos_token_id": 0, "eos_token_id": 4, "max_position_embeddings": 20,
                     "projection_dim": 8},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder / name)
    return folder


def test_there_and_back_is_bit_for_bit_and_open_clip_reads_what_is_between(
    open_clip_models: Path, tmp_path: Path
) -> None:
    convert(open_clip_models / "siglip2", tmp_path / "siglip2", to="transformers")
    sources = {
        "mini": EMBEDDED,
        "random": write_random_clip(tmp_path / "random"),
        "odd": odd_clip(tmp_path / "odd"),
        "siglip2": tmp_path / "siglip2",
    }
    between = tmp_path / "between"
    for name, source in sources.items():
        convert(source, between / name, to="open_clip")
        assert str(tmp_path) not in (between / name / "open_clip_config.json").read_text()
        convert(between / name, tmp_path / f"{name}-again", to="transformers")
        weights, again = (
            load_file(one / "model.safetensors") for one in (source, tmp_path / f"{name}-again")
        )
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[key], again[key]) for key in weights)
        assert all(weights[key].dtype == again[key].dtype for key in weights)
        ours, returned = backbone(source), backbone(tmp_path / f"{name}-again")
        for one, other in zip(embeddings(ours), embeddings(returned), strict=True):
            assert torch.equal(one, other)
        assert ours.square() == returned.square()
        assert (ours.mean, ours.std) == (returned.mean, returned.std)
    by_open_clip("read", between)
    for name, source in sources.items():
        ours, theirs = backbone(source), load_file(between / f"{name}.safetensors")
        with torch.inference_mode():
            image = ours.live_encoder().encode(theirs["shown"])
            text = ours.live_text_encoder()(PLAIN)
        assert_same_features(image, theirs["image"])
        plain = theirs["text"][[TEXTS.index(text) for text in PLAIN]]
        assert_same_features(text, plain)


def test_what_the_other_library_does_not_have_is_refused_with_nothing_written(
    open_clip_models: Path, tmp_path: Path
) -> None:
    folder, out = write_random_clip(tmp_path / "clip"), tmp_path / "out"
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="hidden_act: expected gelu, gelu_pytorch_tanh, quick"):
        convert(folder, out, to="open_clip")
    with pytest.raises(BackboneError, match="expected another layout, got transformers already"):
        convert(folder, out, to="transformers")
    siglip = tmp_path / "siglip"
    convert(open_clip_models / "siglip", siglip, to="transformers")
    config = json.loads((siglip / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu_pytorch_tanh"
    (siglip / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="expected gelu, which timm computes vit_tiny_patch16"):
        convert(siglip, out, to="open_clip")
    assert not out.exists()


# Files of weights


def test_a_file_alone_is_read_as_the_model_that_is_named(
    open_clip_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's TorchScript, and a checkpoint of training, beside the folder's own configuration."""
    cfg = json.loads((open_clip_models / "b32-quickgelu" / "open_clip_config.json").read_text())
    name_model(monkeypatch, "ViT-B-32-quickgelu", cfg["model_cfg"])
    script = tmp_path / "ViT-B-32.pt"
    shutil.copy(open_clip_models / "ViT-B-32.pt", script)
    with pytest.raises(BackboneError, match="no weight holds heads and activation, got weights al"):
        backbone(script)
    found = backbone(script, model="ViT-B-32-quickgelu")
    half = load_file(open_clip_models / "openai.safetensors")
    assert found.precision_on_disk == "float16"
    assert torch.equal(found.model.visual_projection.weight, half["visual.proj"].float().T)
    theirs = load_file(open_clip_models / "b32-quickgelu.safetensors")
    with torch.inference_mode():
        image = found.live_encoder().encode(theirs["shown"])
    torch.testing.assert_close(image, theirs["image"], rtol=0.02, atol=0.02 * image.abs().max())
    again = backbone(script, model="ViT-B-32-quickgelu")
    assert again.sha256 == found.sha256
    assert len(list((tmp_path / "cache").glob("*/model"))) == 1
    said = convert(script, tmp_path / "out", to="open_clip", model="ViT-B-32-quickgelu")
    assert said[0] == "a CLIP of open_clip's or OpenAI's"
    assert json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"][
        "quick_gelu"
    ]
    with pytest.raises(BackboneError, match="Did you mean 'ViT-B-32-quickgelu'"):
        backbone(script, model="ViT-B-32-quickgelo")


def name_model(monkeypatch: pytest.MonkeyPatch, name: str, cfg: dict[str, Any]) -> None:
    """Let a small configuration go by one of open_clip's names."""
    from clipdrift.formats import known

    names = known._names()
    small = {**names, "models": {**names["models"], name: cfg}}
    monkeypatch.setattr(known, "_names", lambda: small)


def test_a_converted_model_that_was_changed_on_disk_is_made_anew(
    open_clip_models: Path, tmp_path: Path
) -> None:
    first = backbone(open_clip_models / "b32")
    (made,) = (tmp_path / "cache").glob("*/model/config.json")
    made.write_text(made.read_text().replace('"gelu"', '"quick_gelu"'))
    assert backbone(open_clip_models / "b32").sha256 == first.sha256


def test_a_converted_model_is_shown_and_removed_with_the_cache(
    open_clip_models: Path, tmp_path: Path
) -> None:
    from clipdrift.data.cached import cached, clear

    backbone(open_clip_models / "b32")
    (entry,) = cached(tmp_path / "cache")
    assert entry.dataset == "open_clip_model.safetensors, a converted model"
    assert entry.size_bytes > 10_000_000
    assert [gone.path for gone in clear(tmp_path / "cache")] == [entry.path]
    assert not entry.path.exists()


@pytest.fixture
def base(open_clip_models: Path) -> Backbone:
    return backbone(open_clip_models / "b32")


def moved(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder of open_clip's, each a little further."""
    torch.manual_seed(2)
    weights = load_file(folder / "open_clip_model.safetensors")
    return {name: t + 0.01 * torch.randn_like(t) for name, t in weights.items()}


def test_a_checkpoint_of_training_is_held_against_its_baseline(
    open_clip_models: Path, base: Backbone, tmp_path: Path
) -> None:
    weights = moved(open_clip_models / "b32")
    content = {"epoch": 5, "state_dict": {f"module.{k}": t for k, t in weights.items()}}
    torch.save({**content, "optimizer": {"m": torch.ones(3)}}, tmp_path / "epoch_5.pt")
    found = load_checkpoint(tmp_path / "epoch_5.pt", base)
    shutil.copytree(open_clip_models / "b32", tmp_path / "whole")
    save_file(weights, tmp_path / "whole" / "open_clip_model.safetensors")
    whole = load_checkpoint(tmp_path / "whole", base)
    for one, other in zip(embeddings(found.live), embeddings(whole.live), strict=True):
        assert torch.equal(one, other)
    assert said(found, "kind") == "a CLIP of open_clip's or OpenAI's"
    assert said(found, "configuration") == (
        "none in the file: activation, heads, layer norm epsilon, end-of-text id, preprocessing "
        "and tokenizer are the baseline's"
    )
    assert said(found, "file") == "not read: optimizer"
    assert statuses(found)["text tower"] == "note"
    assert {"wrong"} & set(statuses(found).values()) == set()
    assert statuses(whole)["configuration, images"] == "ok"
    assert whole.live.name == "whole"


def test_another_architecture_than_the_baselines_is_said_in_words(
    open_clip_models: Path, base: Backbone, tmp_path: Path
) -> None:
    for name, got in {
        "l14": "2 blocks of width 128 on patches of 14",
        "siglip": "2 blocks of width 64 on patches of 16 of a SigLIP",
    }.items():
        path = shutil.copy(open_clip_models / name / "open_clip_model.safetensors", tmp_path)
        with pytest.raises(ClipdriftError) as refused:
            load_checkpoint(Path(path), base)
        expected = "the architecture of the model that it is put onto (2 blocks of width 128 on "
        assert f"expected {expected}patches of 32, CLIP), got {got}. Name its own" in str(
            refused.value
        )


def test_wise_ft_and_towers_alone_are_read_with_the_baselines_texts(
    open_clip_models: Path, base: Backbone, tmp_path: Path
) -> None:
    weights = moved(open_clip_models / "b32")
    image = {k: t for k, t in weights.items() if not k.startswith("transformer.")}
    wise = {f"image_encoder.model.{k}": t for k, t in image.items()}
    torch.save({**wise, "classification_head.weight": torch.ones(3, 32)}, tmp_path / "wise.pt")
    found = load_checkpoint(tmp_path / "wise.pt", base)
    assert found.text is None
    assert said(found, "classifier").startswith("there (classification_head.weight)")
    assert "positional_embedding, text_projection" in said(found, "other modules")
    after, texts = embeddings(found.live)
    assert torch.equal(texts, embeddings(base)[1])
    whole = {f"module.{k}": t for k, t in weights.items()}
    torch.save(whole, tmp_path / "whole.pt")
    assert torch.equal(after, embeddings(load_checkpoint(tmp_path / "whole.pt", base).live)[0])
    assert_is_a_backbone(tmp_path / "wise.pt", found, open_clip_models / "b32")

    config = found.live.model.config.vision_config
    for kind in (CLIPVisionModelWithProjection, CLIPVisionModel):
        tower, folder = kind(config), tmp_path / kind.__name__
        own = tower.vision_model if hasattr(tower, "vision_model") else tower
        own.load_state_dict(found.live.model.vision_model.state_dict())
        if kind is CLIPVisionModelWithProjection:
            own = found.live.model.visual_projection.state_dict()
            tower.visual_projection.load_state_dict(own)
        tower.save_pretrained(folder)
        read = load_checkpoint(folder, base)
        assert_is_a_backbone(folder, read, open_clip_models / "b32")
        assert read.text is None
        projected = kind is CLIPVisionModelWithProjection
        assert statuses(read)["projection"] == ("ok" if projected else "note")
        if projected:
            assert torch.equal(embeddings(read.live)[0], after)
        assert torch.equal(
            read.live.model.vision_model.post_layernorm.weight,
            found.live.model.vision_model.post_layernorm.weight,
        )


def assert_is_a_backbone(path: Path, onto: Checkpoint, whole: Path) -> None:
    """With the model that it lacks parts of it is that model, here and in open_clip's layout."""
    written = path.with_name(f"{path.name}-whole")
    convert(path, written, to="open_clip", model=str(whole))
    shown = backbone(whole).square()
    for found in (backbone(path, model=str(whole)), backbone(written)):
        for one, other in zip(embeddings(found), embeddings(onto.live), strict=True):
            assert torch.equal(one, other)
        assert found.square() == shown


def test_what_lacks_a_part_and_the_model_that_has_it_is_refused_in_words(
    open_clip_models: Path, base: Backbone, tmp_path: Path
) -> None:
    lora, adapter, folder = tmp_path / "lora.pt", tmp_path / "adapter", open_clip_models / "b32"
    torch.save(clip_lora(base, 4, ("q_proj",)), lora)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    tower = tmp_path / "tower"
    CLIPVisionModel(base.model.config.vision_config).save_pretrained(tower)
    for path, model, words in (
        (lora, None, "no weight holds heads and activation, got weights alone. Name the model"),
        (lora, "ViT-B-32", "expected a model, got an adapter of CLIP-LoRA's. Name the weights th"),
        (lora, str(tower), "tower: expected a whole model, got an image tower alone. Name the wei"),
        (lora, str(tmp_path / "no" / "thing"), "expected a model's folder or file, got nothing"),
        (adapter, None, "expected a whole model, got a peft adapter. Save what merge_and_unload()"),
        (folder, "mini-clip", "said once, got 'mini-clip', and a configuration beside the weights"),
    ):
        with pytest.raises(BackboneError) as refused:
            backbone(path, model=model)
        assert words in str(refused.value)
    with pytest.raises(BackboneError, match="a backbone that reads texts, got backbone tower, an"):
        convert(tower, tmp_path / "out", to="open_clip")


def clip_lora(base: Backbone, rank: int, names: tuple[str, ...]) -> dict[str, Any]:
    """A file as CLIP-LoRA saves it: both towers, the upper half of their blocks."""
    torch.manual_seed(3)
    widths = [
        base.model.config.text_config.hidden_size,
        base.model.config.vision_config.hidden_size,
    ]
    layers = {
        f"layer_{i}": {
            name: {"w_lora_A": torch.randn(rank, width), "w_lora_B": torch.randn(width, rank)}
            for name in names
        }
        for i, width in enumerate(widths)
    }
    said = {"r": rank, "alpha": 1, "encoder": "both", "params": [*"qvo"], "position": "half-up"}
    return {"weights": layers, "metadata": said}


def test_an_adapter_of_clip_lora_acts_as_its_layers_would(
    open_clip_models: Path, base: Backbone, tmp_path: Path
) -> None:
    """Against the same factors beside each layer, as that code runs them: x A' B' / sqrt(r)."""
    content = clip_lora(base, 4, ("q_proj", "v_proj", "proj"))
    torch.save(content, tmp_path / "lora.pt")
    found = load_checkpoint(tmp_path / "lora.pt", base)
    assert said(found, "kind") == (
        "an adapter of CLIP-LoRA's, merged (rank 4, alpha 1 / sqrt(rank), 2 layers)"
    )
    live = backbone_copy(base)
    towers = (live.model.text_model, live.model.vision_model)
    for tower, layer in zip(towers, content["weights"].values(), strict=True):
        attention = tower.encoder.layers[1].self_attn
        for name, factors in layer.items():
            own = getattr(attention, "out_proj" if name == "proj" else name)
            own.register_forward_hook(beside(factors["w_lora_A"], factors["w_lora_B"]))
    for one, other in zip(embeddings(found.live), embeddings(live), strict=True):
        assert_same_features(one, other)
    for one, other in zip(embeddings(found.live), embeddings(base), strict=True):
        assert (one - other).norm() > 0.1 * other.norm()
    assert_is_a_backbone(tmp_path / "lora.pt", found, open_clip_models / "b32")
    content["metadata"] |= {"alpha": 10**400}
    torch.save(content, tmp_path / "lora.pt")
    with pytest.raises(ClipdriftError, match="expected a rank and an alpha, got r 4, alpha a numb"):
        load_checkpoint(tmp_path / "lora.pt", base)
    content["metadata"] |= {"position": "all", "alpha": 1}
    torch.save(content, tmp_path / "lora.pt")
    with pytest.raises(ClipdriftError, match="expected 4 layers, as its encoder and position say"):
        load_checkpoint(tmp_path / "lora.pt", base)


def backbone_copy(base: Backbone) -> Backbone:
    import copy
    from dataclasses import replace

    return replace(base, model=copy.deepcopy(base.model))


def beside(a: Tensor, b: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        return out + args[0] @ a.T @ b.T / math.sqrt(a.shape[0])

    return hook


# Live


def test_a_live_model_of_open_clip_reads_as_its_twin(
    open_clip_models: Path, tmp_path: Path
) -> None:
    """What a gauge read of open_clip's own modules, in open_clip's process, and of weights here."""
    theirs = json.loads((open_clip_models / "live.json").read_text())
    gauge = clipdrift.Gauge(open_clip_models / "b32", probe=pictures())
    for name in ("moved", "lora"):
        folder = tmp_path / name
        shutil.copytree(open_clip_models / "b32", folder)
        shutil.copy(
            open_clip_models / f"{name}.safetensors", folder / "open_clip_model.safetensors"
        )
        ours = gauge.read(backbone(folder).model).drift
        assert ours.keys() == theirs[name].keys()
        for key, value in theirs[name].items():
            assert value == pytest.approx(ours[key], rel=1e-3, abs=1e-4), key
    assert max(abs(value or 0) for value in theirs["lora"].values()) > 1
    assert "Check QuickGELU first" in theirs["quick"]


# Commands


def test_a_file_is_evaluated_in_one_line_without_a_study(
    open_clip_models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = land_cover(12)
    for number, (image, label) in enumerate(zip(shown.pixels, shown.labels, strict=True)):
        place = tmp_path / "photos" / ["river", "forest"][label % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    base, path = open_clip_models / "b32", tmp_path / "epoch_5.pt"
    weights = moved(base)
    torch.save({"epoch": 5, "state_dict": weights}, path)
    words = ("evaluate", path, "--baseline", base, "--transfers", tmp_path / "photos")
    assert exit_code_here(*words) == 0
    out = capsys.readouterr().out
    for text in ("a CLIP of open_clip's or OpenAI's", "Zero-shot transfer", "Drift per block"):
        assert text in out
    assert exit_code_here(*words, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["transfers"]["photos"]["n_images"] == 12
    assert len(body["drift"]["photos"]["drift_per_block"]["cka"]) == 2
    plain = load_file(base / "open_clip_model.safetensors")
    image = [k for k in plain if k.startswith("visual.") and k != "visual.proj"]
    far = sum(float((weights[k] - plain[k]).double().square().sum()) for k in image)
    size = sum(float(plain[k].double().square().sum()) for k in image)
    found = body["drift"]["photos"]["drift"]["weight_drift_rel"]
    assert found == pytest.approx((far / size) ** 0.5, rel=1e-4)
    assert exit_code_here("evaluate", path, "--transfers", tmp_path / "photos") == 2
    assert "--baseline: expected the untouched model" in capsys.readouterr().err


def test_models_are_converted_by_command_and_runs_exported_for_open_clip(
    open_clip_models: Path,
    finished_study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "b32"
    assert exit_code_here("convert", open_clip_models / "b32", out, "--to", "transformers") == 0
    said = capsys.readouterr().out
    assert f"Wrote {out}; read back, its weights are the same." in said
    assert f"AutoModel.from_pretrained('{out}')" in said
    assert CLIPModel.from_pretrained(out).config.vision_config.patch_size == 32
    assert exit_code_here("convert", out, out, "--to", "open_clip") == 2
    assert "expected a new folder, got one with files in it" in capsys.readouterr().err
    records = clipdrift.StudyFolder(finished_study).records()[0]
    run = next(one for one in records if one.method == "lora")
    place, out = clipdrift.StudyFolder(finished_study).run_path(run.run_id), tmp_path / "exported"
    assert exit_code_here("export-model", place, "--out", out, "--to", "open_clip") == 0
    assert f"local-dir:{out}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {
        *("open_clip_config.json", "open_clip_model.safetensors", "head.safetensors"),
        *("clipdrift.json", "tokenizer.json"),
    }
    clipdrift.export_model(place, tmp_path / "merged")
    for one, other in zip(
        embeddings(backbone(out)), embeddings(backbone(tmp_path / "merged")), strict=True
    ):
        assert torch.equal(one, other)
    found = load_checkpoint(out, backbone(EMBEDDED))
    assert statuses(found)["base"] == "ok"
    assert exit_code_here("export-model", place, "--out", tmp_path / "no", "--adapter",
                "--to", "open_clip") == 2  # fmt: skip
    assert "--to open_clip: expected a whole model" in capsys.readouterr().err
