"""Checkpoints that others made, with peft and transformers alone, read as those libraries do."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from command_process import exit_code_here
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import (
    EMBEDDED,
    METHODS,
    assert_same_features,
    land_cover,
    mini_clip,
    pixels,
    write_random_clip,
)
from small_siglip import write_random_siglip
from torch import Tensor, nn
from transformers import CLIPForImageClassification, CLIPModel, CLIPVisionModel

from clipdrift.backbone import load_backbone
from clipdrift.checkpoint import bounds
from clipdrift.checkpoint.adapter import load_adapter
from clipdrift.checkpoint.checks import adapter_findings
from clipdrift.checkpoint.load import Checkpoint, load_checkpoint
from clipdrift.checkpoint.measure import evaluate_checkpoint
from clipdrift.errors import ClipdriftError, RecordError
from clipdrift.finished.export import export_adapter, export_merged
from clipdrift.methods.guard import relative
from clipdrift.reading.baseline import probe
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import read_drift
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec import StudySpec
from clipdrift.spec.parts import BackboneSpec

VISION = r".*vision_model.*\.(q_proj|v_proj)"


def plain_clip() -> Any:
    return CLIPModel.from_pretrained(EMBEDDED, dtype=torch.float32).eval()


def pixel_values() -> Tensor:
    own = json.loads((EMBEDDED / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(own[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    return (pixels().permute(0, 3, 1, 2) / 255 - mean) / std


def features(clip: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = clip.get_image_features(pixel_values=pixel_values()).pooler_output
    return found


def text_features(clip: Any, text: str) -> Tensor:
    tokens = mini_clip().tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        found: Tensor = clip.get_text_features(**tokens).pooler_output
    return found


def train_by_noise(model: nn.Module, size: float = 0.1) -> None:
    """Move every tensor that trains, zeros of B included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def made_by_peft(
    folder: Path, *, part: str = "", size: float = 0.1, **options: Any
) -> tuple[Path, Any]:
    """An adapter on a whole CLIP or on a part of it, saved by peft; and the live CLIP."""
    clip = plain_clip()
    host = getattr(clip, part) if part else clip
    wrapped = peft.get_peft_model(host, peft.LoraConfig(r=4, lora_alpha=8, **options))
    train_by_noise(wrapped, size)
    wrapped.eval().save_pretrained(folder)
    return folder, clip


def loaded(folder: Path) -> Checkpoint:
    return load_checkpoint(folder, mini_clip())


def statuses(checkpoint: Checkpoint) -> dict[str, str]:
    return {finding.check: finding.status for finding in checkpoint.findings}


def text_of(checkpoint: Checkpoint, check: str) -> str:
    return next(f.text for f in checkpoint.findings if f.check == check)


def embeddings(checkpoint: Checkpoint) -> Tensor:
    with torch.no_grad():
        return checkpoint.encoder(pixels())


ADAPTERS: dict[str, dict[str, Any]] = {
    "whole CLIP": {"target_modules": VISION},
    "vision tower": {"part": "vision_model", "target_modules": ["q_proj", "v_proj"]},
    "rsLoRA": {"target_modules": VISION, "use_rslora": True},
    "DoRA": {"part": "vision_model", "target_modules": ["fc1"], "use_dora": True},
    "biases": {"target_modules": VISION, "lora_bias": True},
    "all linear layers": {"part": "vision_model", "target_modules": "all-linear"},
    "patterns": {
        "part": "vision_model",
        "target_modules": ["q_proj", "fc2"],
        "rank_pattern": {"fc2": 2},
        "alpha_pattern": {"q_proj": 3},
        "layers_to_transform": [1, 4],
    },
    "projection adapted": {"target_modules": r".*(vision_model.*q_proj|visual_projection)"},
    "projection saved": {"target_modules": VISION, "modules_to_save": ["visual_projection"]},
    "norm saved": {
        "part": "vision_model",
        "target_modules": ["q_proj", "v_proj"],
        "modules_to_save": ["post_layernorm"],
    },
    "embeddings saved": {
        "part": "vision_model",
        "target_modules": ["q_proj"],
        "modules_to_save": ["embeddings"],
    },
    "encoder saved": {
        "part": "vision_model",
        "target_modules": ["patch_embedding"],
        "modules_to_save": ["encoder"],
    },
    "attention saved": {
        "part": "vision_model",
        "target_modules": ["fc1"],
        "modules_to_save": ["self_attn"],
    },
    "positions": {"part": "vision_model", "target_modules": ["position_embedding", "q_proj"]},
    "pattern of five repeats": {
        "target_modules": r".*?(?:vision|image).*layers\.\d+\..*(?:q|v)_proj.*",
    },
    "PiSSA": {"target_modules": VISION, "init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_an_adapter_of_pefts_reads_as_in_peft(name: str, tmp_path: Path) -> None:
    folder, clip = made_by_peft(tmp_path / "adapter", **ADAPTERS[name])
    checkpoint = loaded(folder)
    expected = features(clip)
    assert_same_features(embeddings(checkpoint), expected)
    found = statuses(checkpoint)
    assert "wrong" not in found.values(), checkpoint.findings
    assert found["text tower"] == "ok"
    assert found["projection"] == ("ok" if "projection" in name else "note")
    # An untouched CLIP with the weights that weight drift is read from embeds as the live one.
    plain = plain_clip()
    untouched = features(plain)
    plain.vision_model.load_state_dict(checkpoint.vision_state(), strict=False)
    plain.visual_projection.load_state_dict(checkpoint.projection_state())
    own = {n for n, _ in plain.vision_model.named_parameters()}
    assert own == checkpoint.vision_state().keys()
    assert_same_features(features(plain), expected)
    assert not torch.allclose(expected, untouched, rtol=1e-2)


def test_an_adapter_that_an_older_peft_saved_reads_as_in_peft(tmp_path: Path) -> None:
    """Weights as a file of torch's, and a configuration with the keys of that time."""
    folder, clip = made_by_peft(
        tmp_path / "adapter", part="vision_model", target_modules=["q_proj"]
    )
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    config |= {"base_model_name_or_path": None, "bias": "none", "enable_lora": None}
    config |= {"fan_in_fan_out": False, "inference_mode": True, "lora_dropout": 0.05}
    config |= {"merge_weights": False, "modules_to_save": None, "task_type": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    checkpoint = loaded(folder)
    assert_same_features(embeddings(checkpoint), features(clip))
    assert "wrong" not in statuses(checkpoint).values(), checkpoint.findings


def test_merging_in_half_precision_is_another_model_and_by_how_much(tmp_path: Path) -> None:
    """Merged here in float32 an adapter is the live one to 1e-5; in bfloat16 it is rounded away."""
    folder, clip = made_by_peft(
        tmp_path / "adapter", part="vision_model", size=0.01, target_modules=["q_proj", "v_proj"]
    )
    live = features(clip)
    half = plain_clip().to(torch.bfloat16)
    merged = peft.PeftModel.from_pretrained(half.vision_model, folder).merge_and_unload()
    half.vision_model = merged
    half.save_pretrained(tmp_path / "merged")
    found, rounded = loaded(folder), loaded(tmp_path / "merged")
    assert relative(embeddings(found), live) < 1e-5
    assert 1e-4 < relative(embeddings(rounded), live) < 2e-2
    assert text_of(rounded, "precision on disk") == "bfloat16, the baseline's is float32"


def test_a_clip_in_an_old_file_of_torchs_reads_as_in_transformers(tmp_path: Path) -> None:
    clip, folder = plain_clip(), tmp_path / "old"
    train_by_noise(clip, 0.01)
    clip.save_pretrained(folder)
    torch.save(clip.state_dict(), folder / "pytorch_model.bin")
    whole = loaded(folder)
    (folder / "model.safetensors").unlink()
    old = loaded(folder)
    assert torch.equal(embeddings(old), embeddings(whole))
    assert old.live.sha256 != whole.live.sha256
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder / name)
    assert load_backbone(BackboneSpec(id=str(folder))).image_size == 28
    torch.save({"model": clip.state_dict()}, folder / "pytorch_model.bin")
    with pytest.raises(ClipdriftError, match=r"tensors alone, by their names, got .* besides"):
        loaded(folder)


OTHER_TYPES: dict[str, tuple[str, Any]] = {
    "VeRA": ("vision_model", peft.VeraConfig(r=8, target_modules=["q_proj", "v_proj"])),
    "VB-LoRA": (
        "vision_model",
        peft.VBLoRAConfig(r=2, num_vectors=16, vector_length=16, topk=2, target_modules=["q_proj"]),
    ),
    "LoHa": ("", peft.LoHaConfig(r=4, target_modules=VISION)),
    "tokens": (
        "text_model",
        peft.TrainableTokensConfig(token_indices=[3, 5], target_modules=["token_embedding"]),
    ),
}


@pytest.mark.parametrize("name", list(OTHER_TYPES))
def test_an_adapter_of_another_type_reads_as_in_peft(name: str, tmp_path: Path) -> None:
    """Of which some share tensors between layers, and one trains no text of the trial."""
    part, config = OTHER_TYPES[name]
    clip = plain_clip()
    wrapped = peft.get_peft_model(getattr(clip, part) if part else clip, config)
    train_by_noise(wrapped)
    wrapped.eval().save_pretrained(tmp_path)
    checkpoint = loaded(tmp_path)
    assert_same_features(embeddings(checkpoint), features(clip))
    with torch.no_grad():
        texts = checkpoint.live.live_text_encoder()(["<|spare|> !"])
    assert_same_features(texts, text_features(clip, "<|spare|> !"))
    assert "wrong" not in statuses(checkpoint).values(), checkpoint.findings


@pytest.mark.parametrize("name", ["attention saved", "encoder saved", "positions"])
def test_drift_is_read_through_whatever_peft_put_in_place(name: str, tmp_path: Path) -> None:
    """Live, as of a plain CLIP that holds the same weights."""
    folder, _ = made_by_peft(tmp_path / "adapter", **ADAPTERS[name])
    checkpoint, plain = loaded(folder), plain_clip()
    plain.vision_model.load_state_dict(checkpoint.vision_state(), strict=False)
    merged = replace(checkpoint, live=replace(mini_clip(), model=plain))
    images, before = land_cover(6), probe(mini_clip().encoder(), land_cover(6))
    live, own = (read_drift(m, mini_clip(), images, before)[0] for m in (checkpoint, merged))
    assert live.drift["weight_drift_rel"]
    for signal, value in own.drift.items():
        assert live.drift[signal] == pytest.approx(value, rel=1e-3, abs=1e-5), signal


def test_the_pooling_head_of_a_siglip_is_no_classifier(tmp_path: Path) -> None:
    baseline = load_backbone(BackboneSpec(id=str(write_random_siglip(tmp_path / "siglip"))))
    tower = copy.deepcopy(baseline.model.vision_model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["head"])
    wrapped = peft.get_peft_model(tower, config)
    train_by_noise(wrapped)
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    checkpoint = load_checkpoint(tmp_path / "adapter", baseline)
    encoder = baseline.encoder()
    encoder.tower = tower
    images = baseline.trial_images()
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.encoder(images), encoder(images))
        assert not torch.allclose(encoder(images), baseline.encoder()(images), rtol=1e-2)
    assert text_of(checkpoint, "classifier").startswith("none")


def test_the_baseline_is_never_touched(tmp_path: Path) -> None:
    before = copy.deepcopy(mini_clip().model.state_dict())
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=["q_proj"])
    loaded(folder)
    after = mini_clip().model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_adapter_that_does_nothing_is_told(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION, size=0.0)
    checkpoint = loaded(folder)
    assert statuses(checkpoint)["adapters active"] == "wrong"
    assert "embeddings of images are the baseline's" in text_of(checkpoint, "adapters active")


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_moves_base_weights_is_no_movement(start: str, tmp_path: Path) -> None:
    options = {"target_modules": VISION, "init_lora_weights": start}
    folder, clip = made_by_peft(tmp_path / "adapter", size=0.0, **options)
    assert_same_features(features(clip), features(plain_clip()))
    assert statuses(loaded(folder))["adapters active"] == "wrong"


def test_a_start_that_is_drawn_at_each_load_is_refused(tmp_path: Path) -> None:
    options = {"target_modules": VISION, "init_lora_weights": "pissa_niter_4"}
    folder, _ = made_by_peft(tmp_path / "adapter", **options)
    with pytest.raises(RecordError, match=r"the same model each time.*pissa_niter_4"):
        loaded(folder)


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("part", ["", "text_model"])
def test_an_adapter_of_texts_alone_is_read_as_in_peft(
    part: str, noted: bool, tmp_path: Path
) -> None:
    """Of a whole CLIP or of its text tower, also where peft did not note of which model."""
    target = ["q_proj"] if part else r".*text_model.*q_proj"
    folder, clip = made_by_peft(tmp_path / "adapter", part=part, target_modules=target)
    if not noted:
        edit(folder / "adapter_config.json", auto_mapping=None)
    checkpoint = loaded(folder)
    assert "wrong" not in statuses(checkpoint).values(), checkpoint.findings
    assert text_of(checkpoint, "adapters active").startswith("yes: embeddings of texts move by")
    assert torch.equal(embeddings(checkpoint), mini_clip().encoder()(pixels()))
    assert checkpoint.own_text
    found = checkpoint.live.live_text_encoder()(["a red circle"])
    assert_same_features(found, text_features(clip, "a red circle"))


def test_a_tower_that_only_fits_are_guessed_by_is_told(tmp_path: Path) -> None:
    """Towers of one shape, and an adapter of which peft did not note the model."""
    baseline = load_backbone(BackboneSpec(id=str(write_random_clip(tmp_path / "twins"))))
    tower = copy.deepcopy(baseline.model.vision_model)
    wrapped = peft.get_peft_model(tower, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    train_by_noise(wrapped)
    folder = tmp_path / "adapter"
    wrapped.save_pretrained(folder)
    assert "tower" not in statuses(load_checkpoint(folder, baseline))
    edit(folder / "adapter_config.json", auto_mapping=None)
    assert statuses(load_checkpoint(folder, baseline))["tower"] == "note"


@pytest.mark.parametrize(
    ("prefix", "known"),
    [
        ("visual.transformer.", "encoder."),
        ("backbone.vision_model.", "vision_model."),
        ("", "vision_model."),
    ],
)
def test_keys_of_foreign_modules_are_named(prefix: str, known: str, tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    path = folder / "adapter_model.safetensors"
    plain = "base_model.model.vision_model."
    renamed = {k.replace(plain, f"base_model.model.{prefix}") if prefix
               else k.replace("base_model.model.", "clip."): v
               for k, v in load_file(path).items()}  # fmt: skip
    save_file(renamed, path)
    with pytest.raises(RecordError, match=f"named otherwise, first '{min(renamed)}'") as refused:
        loaded(folder)
    wanted = f"base_model.model.{known}{min(renamed).partition(known)[2]}"
    assert f"give its tensors those names: for the first, '{wanted}'." in str(refused.value)


def test_merged_weights_that_are_not_the_live_ones_are_told(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    adapter = load_adapter(folder, mini_clip())
    assert [f.status for f in adapter_findings(adapter, mini_clip())] == ["ok", "ok"]
    adapter.made.merged.vision_model.load_state_dict(plain_clip().vision_model.state_dict())
    assert [f.status for f in adapter_findings(adapter, mini_clip())] == ["ok", "wrong"]


def test_names_in_other_modules_than_a_clips_are_its_head(tmp_path: Path) -> None:
    """As `modules_to_save=["classifier"]` leaves them for a model with a classifier."""
    folder, clip = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    path = folder / "adapter_model.safetensors"
    head = {"classifier.weight": torch.ones(10, 64), "gate.bias": torch.ones(1)}
    save_file({**load_file(path), **{f"base_model.model.{k}": v for k, v in head.items()}}, path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "modules_to_save": ["classifier", "gate"]})
    )
    checkpoint = loaded(folder)
    assert "classifier.weight" in text_of(checkpoint, "classifier")
    assert "gate.bias" in text_of(checkpoint, "other modules")
    assert_same_features(embeddings(checkpoint), features(clip))


def test_an_adapter_that_reaches_the_text_tower_is_told_and_read_with_it(tmp_path: Path) -> None:
    folder, clip = made_by_peft(tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    checkpoint = loaded(folder)
    assert statuses(checkpoint)["text tower"] == "note"
    assert checkpoint.own_text
    assert_same_features(embeddings(checkpoint), features(clip))
    expected = text_features(clip, "a red circle")
    expected = expected / expected.norm(dim=-1, keepdim=True)
    found = checkpoint.live.text_features([["a red circle"]])
    assert_same_features(found, expected)
    untouched = mini_clip().text_features([["a red circle"]])
    assert not torch.allclose(found, untouched, rtol=1e-2)
    layers = [m for m in clip.text_model.modules() if hasattr(m, "get_delta_weight")]
    moved = sum(float(m.get_delta_weight("default").double().square().sum()) for m in layers)
    weights = mini_clip().model.text_model.parameters()
    size = sum(float(one.double().square().sum()) for one in weights)
    images = land_cover(6)
    drift, _ = read_drift(checkpoint, mini_clip(), images, probe(mini_clip().encoder(), images))
    assert drift.drift["text_weight_drift_rel"] == pytest.approx((moved / size) ** 0.5, rel=1e-5)
    assert drift.drift["text_projection_drift_rel"] == 0


def test_half_precision_is_told(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    path = folder / "adapter_model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path)
    checkpoint = loaded(folder)
    assert text_of(checkpoint, "precision on disk") == "float16, the baseline's is float32"
    assert all(p.dtype == torch.float32 for p in checkpoint.encoder.parameters())


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    other = load_backbone(BackboneSpec(id=str(write_random_clip(tmp_path / "other"))))
    with pytest.raises(RecordError, match=r"of another shape .*Name the base it was made for"):
        load_checkpoint(folder, other)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: dict(list(t.items())[1:]), "1 missing, 0 left over"),
        (lambda t: {**t, "base_model.model.vision_model.x.lora_A.weight": torch.ones(1)}, "1 left"),
        (lambda t: {k: v[:1].clone() for k, v in t.items()}, "of another shape"),
    ],
)
def test_keys_are_accounted_for_one_by_one(tmp_path: Path, damage: Any, words: str) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    path = folder / "adapter_model.safetensors"
    save_file(damage(load_file(path)), path)
    with pytest.raises(RecordError, match=words):
        loaded(folder)


def test_configurations_that_peft_refuses_are_faults(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    (folder / "adapter_config.json").write_text('{"peft_type": "NOTHING"}')
    with pytest.raises(RecordError, match="expected an adapter that peft can put onto"):
        loaded(folder)
    (folder / "adapter_config.json").write_text("[1")
    with pytest.raises(RecordError, match="expected a JSON object"):
        loaded(folder)


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "layers_pattern"])
@pytest.mark.parametrize("pattern", ["(([a-z._0-9]+)+)+!", ".*.*.*.*.*.*.*.*.*.*.*.*!"])
def test_patterns_without_an_end_are_refused_in_seconds(
    key: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 1.0)
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=["q_proj"])
    edit(folder / "adapter_config.json", **{key: pattern})
    with pytest.raises(RecordError, match=r"matched with names of modules within 1 s, got '.*!'"):
        loaded(folder)


def test_a_busy_machine_makes_no_pattern_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that the process waits for its turn is not counted; here it sleeps."""
    monkeypatch.setattr(bounds, "SECONDS", 1.0)
    waits = f"import time; time.sleep(2)\n{bounds.TRY}"
    monkeypatch.setattr(bounds, "COMMAND", [*bounds.COMMAND[:-1], waits])
    assert bounds.pattern_fault({"target_modules": VISION}, ["vision_model.q_proj"], "w") is None


def test_patterns_that_only_peft_completes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pattern by itself, and one without an end between the parentheses of peft's own."""
    monkeypatch.setattr(bounds, "SECONDS", 1.0)
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=["q_proj"])
    edit(folder / "adapter_config.json", rank_pattern={"x)|(([a-z._0-9]+)+)+!|(y": 4})
    with pytest.raises(RecordError, match=r"within 1 s, got 'x\)"):
        loaded(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"r": 2_000_000},
        {"rank_pattern": {"q_proj": 2_000_000}},
        {"peft_type": "LOHA", "r": 10**9},
    ],
)
def test_a_rank_that_would_take_all_memory_is_refused(
    options: dict[str, Any], tmp_path: Path
) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    body = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**body, **options}))
    with pytest.raises(RecordError, match=r"parameters with the adapters, 4 times"):
        loaded(folder)


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION)
    edit(folder / "adapter_config.json", lora_alpha=1e308)
    with pytest.raises(RecordError, match="gives finite embeddings"):
        loaded(folder)


# Whole CLIPs


def saved_clip(folder: Path, change: Any = lambda clip: None, **options: Any) -> Path:
    """A CLIP saved by transformers, without a tokenizer, as training scripts often leave it."""
    clip = plain_clip()
    with torch.no_grad():
        change(clip)
    clip.save_pretrained(folder, **options)
    return folder


def move_vision(clip: Any) -> None:
    clip.vision_model.requires_grad_(True)
    clip.text_model.requires_grad_(False)
    for name in ("visual_projection", "text_projection"):
        getattr(clip, name).requires_grad_(name == "visual_projection")
    clip.logit_scale.requires_grad_(False)
    train_by_noise(clip, 0.02)


@pytest.mark.parametrize("shard", ["5GB", "300KB"])
def test_a_clip_reads_as_in_transformers_also_in_shards(tmp_path: Path, shard: str) -> None:
    folder = saved_clip(tmp_path / "clip", move_vision, max_shard_size=shard)
    assert (len(list(folder.glob("*.safetensors"))) > 1) is (shard == "300KB")
    checkpoint = loaded(folder)
    expected = features(CLIPModel.from_pretrained(folder).eval())
    assert_same_features(embeddings(checkpoint), expected)
    found = statuses(checkpoint)
    assert "wrong" not in found.values(), checkpoint.findings
    assert (found["vision weights"], found["text tower"]) == ("ok", "ok")
    assert text_of(checkpoint, "mean / std").endswith("the baseline's are used")


def test_an_untouched_copy_is_told(tmp_path: Path) -> None:
    checkpoint = loaded(saved_clip(tmp_path / "clip"))
    assert text_of(checkpoint, "vision weights").startswith("equal to the baseline's")


def test_an_own_text_tower_is_told(tmp_path: Path) -> None:
    def move_text(clip: Any) -> None:
        clip.text_projection.weight.mul_(1.5)

    checkpoint = loaded(saved_clip(tmp_path / "clip", move_text))
    assert checkpoint.own_text
    assert statuses(checkpoint)["text tower"] == "note"


def edit(path: Path, **changes: Any) -> None:
    body = json.loads(path.read_text())
    for key, value in changes.items():
        body[key] = {**body[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(body))


def own_files(tmp_path: Path) -> Path:
    """A CLIP with another image path than mini-clip, and all the files of mini-clip."""
    return beside(saved_clip(tmp_path / "clip", move_vision))


def beside(folder: Path) -> Path:
    """With all that a processor saves into it, as Trainer lets it."""
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, folder)
    return folder


def own_files_of(kind: str, tmp_path: Path) -> Path:
    if kind == "clip":
        return own_files(tmp_path)
    return beside(made_by_peft(tmp_path / "adapter", target_modules=VISION)[0])


@pytest.mark.parametrize("kind", ["clip", "adapter"])
def test_files_as_the_baselines_are_fine(kind: str, tmp_path: Path) -> None:
    found = statuses(loaded(own_files_of(kind, tmp_path)))
    rows = ["tokenizer", "resize", "mean / std"]
    if kind == "clip":
        rows += ["configuration, images", "configuration, texts"]
    assert {found[row] for row in rows} == {"ok"}


@pytest.mark.parametrize("kind", ["clip", "adapter"])
def test_weights_beside_those_that_are_read_are_named(kind: str, tmp_path: Path) -> None:
    """A projection that was saved by itself; not what Trainer or a library leaves."""
    folder = own_files_of(kind, tmp_path)
    for name in ("pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "training_args.bin"):
        (folder / name).write_bytes(b"")
    assert "other weights" not in statuses(loaded(folder))
    save_file({"weight": torch.ones(64, 64)}, folder / "visual_projection.safetensors")
    (folder / "projection.pt").write_bytes(b"")
    assert statuses(loaded(folder))["other weights"] == "note"
    named = "not read: projection.pt, visual_projection.safetensors. "
    assert text_of(loaded(folder), "other weights").startswith(named)


@pytest.mark.parametrize(
    ("part", "changes", "check", "text"),
    [
        ("vision_config", {"hidden_act": "gelu"}, "images", "activation gelu, the baseline's is q"),
        ("vision_config", {"layer_norm_eps": 0.1}, "images", "layer norm epsilon 0.1, the base"),
        ("text_config", {"hidden_act": "relu"}, "texts", "activation relu, the baseline's is q"),
        ("text_config", {"num_attention_heads": 2}, "texts", "heads 2, the baseline's is 4"),
        ("text_config", {"layer_norm_eps": 0.1}, "texts", "layer norm epsilon 0.1"),
        ("text_config", {"eos_token_id": 0}, "texts", "end-of-text id 0, the baseline's is 4"),
    ],
)
def test_a_configuration_that_reads_the_same_weights_otherwise_is_wrong(
    part: str, changes: dict[str, Any], check: str, text: str, tmp_path: Path
) -> None:
    folder = own_files(tmp_path)
    edit(folder / "config.json", **{part: changes})
    checkpoint = loaded(folder)
    wrong = {f.check for f in checkpoint.findings if f.status == "wrong"}
    assert wrong == {f"configuration, {check}"}
    assert text in text_of(checkpoint, f"configuration, {check}")


def test_a_configuration_that_acts_alike_is_noted(tmp_path: Path) -> None:
    folder = own_files(tmp_path)
    edit(folder / "config.json", vision_config={"layer_norm_eps": 1.0000001e-5})
    assert statuses(loaded(folder))["configuration, images"] == "note"


@pytest.mark.parametrize("kind", ["clip", "adapter"])
def test_other_preprocessing_is_wrong(kind: str, tmp_path: Path) -> None:
    folder = own_files_of(kind, tmp_path)
    both = {"height": 32, "width": 32}
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text()) | {"image_mean": [0.4, 0.5, 0.6], "size": both}
    path.write_text(json.dumps(said))
    checkpoint = loaded(folder)
    found = statuses(checkpoint)
    assert (found["resize"], found["mean / std"], found["image size"]) == ("wrong", "wrong", "ok")
    assert text_of(checkpoint, "resize").startswith("bicubic, both sides to 32 px, 28 px of them")
    assert "0.4, 0.5, 0.6" in text_of(checkpoint, "mean / std")
    path.write_text(json.dumps(said | {"rescale_factor": 1 / 127.5, "size": {"shortest_edge": 28}}))
    assert "0.2, 0.25, 0.3" in text_of(loaded(folder), "mean / std")


@pytest.mark.parametrize("kind", ["clip", "adapter"])
def test_another_tokenizer_is_wrong_for_the_same_text_tower(kind: str, tmp_path: Path) -> None:
    folder = own_files_of(kind, tmp_path)
    path = folder / "tokenizer.json"

    def swap(one: str, other: str) -> Checkpoint:
        body = json.loads((EMBEDDED / "tokenizer.json").read_text())
        ids = body["model"]["vocab"]
        ids[one], ids[other] = ids[other], ids[one]
        path.write_text(json.dumps(body))
        return loaded(folder)

    checkpoint = swap("\u0120photo", "\u0120red")
    assert statuses(checkpoint)["tokenizer"] == "wrong"
    assert "'a photo of a red circle' otherwise" in text_of(checkpoint, "tokenizer")
    checkpoint = swap("\u0120checkered", "ered")
    assert statuses(checkpoint)["tokenizer"] == "note"
    assert "other words of its vocabulary" in text_of(checkpoint, "tokenizer")


def test_another_architecture_is_refused_size_by_size(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as refused:
        loaded(write_random_clip(tmp_path / "other"))
    wheres = {fault.where.split()[-1] for fault in refused.value.faults}
    assert {"image_size", "hidden_size", "num_hidden_layers", "projection_dim"} <= wheres


def test_a_clip_with_broken_weights_is_refused(tmp_path: Path) -> None:
    def break_down(clip: Any) -> None:
        clip.visual_projection.weight[0, 0] = float("inf")

    with pytest.raises(RecordError, match=r"visual_projection.weight: expected finite values"):
        loaded(saved_clip(tmp_path / "clip", break_down))


def test_missing_keys_of_a_clip_are_refused(tmp_path: Path) -> None:
    folder = saved_clip(tmp_path / "clip")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("visual_projection.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ClipdriftError, match="expected weights that match the model key by key"):
        loaded(folder)


@pytest.mark.parametrize("kind", [CLIPForImageClassification, CLIPVisionModel])
def test_an_image_tower_alone_is_read_with_the_baselines_texts(kind: Any, tmp_path: Path) -> None:
    tower, clip = kind.from_pretrained(EMBEDDED), plain_clip()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.01)
    tower.save_pretrained(tmp_path / "tower")
    checkpoint = loaded(tmp_path / "tower")
    model = kind.from_pretrained(tmp_path / "tower")
    clip.vision_model.load_state_dict(getattr(model, "vision_model", model).state_dict())
    assert_same_features(embeddings(checkpoint), features(clip))
    found = statuses(checkpoint)
    assert (found["vision weights"], found["projection"], found["text tower"]) == (
        "ok",
        "note",
        "ok",
    )
    assert found["classifier"] == ("ok" if kind is CLIPForImageClassification else "note")
    shutil.copy(EMBEDDED / "preprocessor_config.json", tmp_path / "tower")
    images = [Image.fromarray(one) for one in land_cover(4).pixels]
    gauge = Gauge(tmp_path / "tower", probe=images, cache_dir=tmp_path / "cache")
    own = getattr(model, "vision_model", model).eval()
    with torch.no_grad():
        pooled = own(pixel_values=pixel_values()).pooler_output
        assert_same_features(gauge.backbone.live_encoder()(pixels()), pooled)
    there = dict(own.named_parameters())
    pairs = [(p, there[n]) for n, p in plain_clip().vision_model.named_parameters()]
    far, size = (
        sum(float(one.detach().double().square().sum()) for one in each)
        for each in ([a.detach() - b.detach() for a, b in pairs], there.values())
    )
    expected = (far / size) ** 0.5
    assert gauge.read(plain_clip()).drift["weight_drift_rel"] == pytest.approx(expected, rel=1e-5)
    assert gauge.baseline.undefined == {
        "drift.projection_drift_rel": "the model has no visual projection"
    }
    with pytest.raises(ClipdriftError, match="transfers: expected a backbone that reads texts, g"):
        Gauge(tmp_path / "tower", probe=images, transfers=["digits"])


# Measured


def run_of(study: Path, method: str) -> tuple[Path, RunRecord]:
    record = next(r for r in StudyFolder(study).records()[0] if r.method == method)
    return StudyFolder(study).run_path(record.run_id), record


@pytest.mark.parametrize(("method", "export"), [("full_ft", "merged"), ("lora", "adapter")])
def test_an_exported_run_measures_as_its_record(
    finished_study: Path,
    small_spec: StudySpec,
    cache_dir: Path,
    tmp_path: Path,
    method: str,
    export: str,
) -> None:
    run, record = run_of(finished_study, method)
    out = tmp_path / "model"
    (export_merged if export == "merged" else export_adapter)(run, out)
    assert METHODS[method].kind == method  # type: ignore[attr-defined]
    found = evaluate_checkpoint(out, small_spec, baseline=str(EMBEDDED), cache_dir=cache_dir)
    assert found.sound
    now, was = found.transfers["world"], record.result.transfer["world"]
    assert (now.accuracy, now.retention_pct) == (was.accuracy, was.retention_pct)
    own = record.result.target_zero_shot
    assert own is not None
    target = found.targets["land-cover"]
    assert (target.baseline_accuracy, target.accuracy) == (own.baseline_accuracy, own.accuracy)
    drift = found.drift["land-cover"]
    assert drift.drift.keys() == record.result.drift.keys()
    for name, value in record.result.drift.items():
        # Merged and live paths round apart; drift is a small difference of large sums.
        assert drift.drift[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_images_alone_are_enough_to_evaluate_on(
    cache_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Zero-shot with the names of the folders, as transformers alone counts it."""
    folder = saved_clip(tmp_path / "clip", move_vision)
    shown, names = land_cover(30), ["river", "forest", "red circle"]
    for number, (image, label) in enumerate(zip(shown.pixels, shown.labels, strict=True)):
        place = tmp_path / "photos" / names[label % 3].replace(" ", "_") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    words = ("evaluate", folder, "--images", tmp_path / "photos", "--baseline", EMBEDDED)
    assert exit_code_here(*words, "--cache", cache_dir, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    own = json.loads((EMBEDDED / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(own[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    values = (torch.from_numpy(shown.pixels.copy()).permute(0, 3, 1, 2) / 255 - mean) / std
    texts = torch.cat([text_features(plain_clip(), f"a photo of a {name}") for name in names])
    unit = nn.functional.normalize(texts, dim=-1)
    found = body["transfers"]["photos"]
    for key, clip in (
        ("baseline_accuracy", plain_clip()),
        ("accuracy", CLIPModel.from_pretrained(folder)),
    ):
        with torch.no_grad():
            embedded = clip.eval().get_image_features(pixel_values=values).pooler_output
        right = (embedded @ unit.T).argmax(dim=1) == torch.from_numpy(shown.labels % 3)
        assert found[key] == pytest.approx(float(right.float().mean())), key
    assert found["n_images"] == 30
    assert body["drift"]["photos"]["drift"]["weight_drift_rel"] > 0


def test_weights_trained_from_another_base_are_wrong(finished_study: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export_adapter(run_of(finished_study, "lora")[0], out)
    edit(out / "clipdrift.json", backbone_sha256="0" * 64)
    assert statuses(loaded(out))["base"] == "wrong"


def test_the_command_says_first_what_it_found(
    finished_study: Path,
    cache_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = made_by_peft(tmp_path / "adapter", target_modules=VISION, size=0.0)
    spec = finished_study / "study.yaml"
    words = ("evaluate", folder, "--spec", spec, "--baseline", "mini-clip", "--cache", cache_dir)
    assert exit_code_here(*words) == 1  # the adapter does nothing
    out = capsys.readouterr().out
    assert out.index("adapters active") < out.index("Zero-shot transfer") < out.index("cka_mean")
    assert exit_code_here(*words, "--json") == 1
    body = json.loads(capsys.readouterr().out)
    assert body["sound"] is False
    assert body["transfers"]["world"]["retention_pct"] == 100
    assert body["drift"]["land-cover"]["drift"]["weight_drift_rel"] == 0
    assert exit_code_here("evaluate", folder) == 2
    said = capsys.readouterr().err
    assert "--images: expected a study file (--spec), or images and the untouched model" in said
    assert "--baseline: expected the untouched model that the folder was made from" in said
    assert exit_code_here(*words, "--images", "world") == 2
    assert "got --spec too. Leave one of them away." in capsys.readouterr().err
    run, _ = run_of(finished_study, "lora")
    assert exit_code_here("evaluate", run, "--spec", spec) == 2
    assert "expected a run alone: it knows its study, got --spec" in capsys.readouterr().err
