"""Models of open_clip's, read here, are what open_clip makes of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_open_clip import MODELS, TEXTS, allow_small_trunks, pictures

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.decode import to_square
from clipdrift.errors import BackboneError
from clipdrift.formats import config, known
from clipdrift.formats.state import clip_state, read_content
from clipdrift.spec.parts import BackboneSpec

pytestmark = pytest.mark.slow  # open_clip makes its models first


@pytest.fixture(autouse=True)
def _small_trunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(tmp_path / "cache"))
    allow_small_trunks(monkeypatch)


def backbone(path: Path, **said: Any) -> Backbone:
    return load_backbone(BackboneSpec(id=str(path), **said))


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_tokens_and_images_are_those_of_open_clip(
    open_clip_models: Path, name: str
) -> None:
    theirs = load_file(open_clip_models / f"{name}.safetensors")
    ours = backbone(open_clip_models / name)
    encoder, text = ours.live_encoder(), ours.live_text_encoder()
    with torch.inference_mode():
        apart = encoder.encode(theirs["shown"]) - theirs["image"]
        text_apart = text(TEXTS) - theirs["text"]
    assert apart.abs().max() <= 1e-5 * theirs["image"].abs().max()
    assert text_apart.abs().max() <= 1e-5 * theirs["text"].abs().max()
    assert_same_tokens(text.tokens(TEXTS), theirs["tokens"], ours)
    squares = [to_square(one, *ours.square()) for one in pictures()]
    shown = encoder.normalise(torch.from_numpy(np.stack(squares)))
    assert (shown - theirs["shown"]).abs().max() <= 1.01 / 255 / min(ours.std)
    assert (shown - theirs["shown"]).abs().mean() < 1e-3


def assert_same_tokens(tokens: Any, theirs: torch.Tensor, ours: Backbone) -> None:
    """All of a SigLIP's; of a CLIP's those up to its end-of-text, behind which nothing is read."""
    ids = tokens["input_ids"]
    assert ids.shape == theirs.shape
    if ours.architecture.name == "SigLIP":
        assert torch.equal(ids, theirs)
        return
    ends = theirs.argmax(dim=1)
    for row, other, end in zip(ids, theirs, ends, strict=True):
        assert torch.equal(row[: end + 1], other[: end + 1])
    assert ours.architecture.read_length(ours.model.config.text_config, ids) == (ends + 1).tolist()


def test_a_file_of_torchscript_is_read_as_the_weights_it_holds(open_clip_models: Path) -> None:
    """OpenAI's files: no activation is in them, so the model is named."""
    weights = load_file(open_clip_models / "openai.safetensors")
    script = open_clip_models / "ViT-B-32.pt"
    state = clip_state(read_content(script), "ViT-B-32.pt")
    assert {name: t.dtype for name, t in state.tensors.items()} == {
        name: t.dtype for name, t in weights.items()
    }
    assert all(torch.equal(state.tensors[name], weights[name]) for name in weights)
    assert state.tensors["visual.proj"].dtype == torch.float16


def test_the_names_that_are_known_are_those_of_open_clip(open_clip_models: Path) -> None:
    """Else: python tools/open_clip_names.py, in an environment that has open_clip."""
    assert known._names() == json.loads((open_clip_models / "names.json").read_text())


def test_the_sizes_and_activations_of_siglips_trunks_are_timms(open_clip_models: Path) -> None:
    acts = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}
    cfg = known.model("ViT-B-16-SigLIP").model_cfg
    theirs = json.loads((open_clip_models / "trunks.json").read_text())
    assert len(theirs) == 16
    for name, (width, blocks, heads, hidden, pool, patch, size, act, eps) in theirs.items():
        vision = {**cfg["vision_cfg"], "timm_model_name": name, "image_size": size}
        made = config.to_transformers({**cfg, "vision_cfg": vision}, name)["vision_config"]
        assert made == {
            "hidden_size": width,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "intermediate_size": hidden,
            "patch_size": patch,
            "image_size": size,
            "hidden_act": acts[act],
            "layer_norm_eps": eps,
        }
        assert pool == heads


READ = ("ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14-336", "ViT-H-14-378", "ViT-g-14", "ViT-bigG-14")
READ += ("ViT-B-16-SigLIP-512", "ViT-SO400M-14-SigLIP-384", "ViT-gopt-16-SigLIP2-256")
REFUSED = {
    "RN50": "vision_cfg.layers: expected a number of blocks, got [3, 4, 6, 3]: a convol",
    "EVA02-B-16": "vision_cfg.timm_model_name: expected a ViT of SigLIP's",
    "convnext_base_w": "got 'convnext_base'",
    "MobileCLIP-B": "got 'vit_base_mci_224'",
    "coca_ViT-B-32": "expected an image and a text tower alone, got multimodal_cfg",
    "roberta-ViT-B-32": "text_cfg.hf_model_name: expected none, got 'roberta-base'",
    "ViT-L-14-CLIPA": "vision_cfg.pool_type: expected 'tok', got 'avg'",
    "ViT-M-16-alt": "vision_cfg.ls_init_value: expected none, got 0.0001",
    "ViT-H-14-worldwide": "got eos with eos_id 2, by which transformers means the highest token",
    "ViT-SO400M-16-SigLIP-i18n-256": "text_cfg.proj_type: expected 'linear', got 'none'",
}


def test_every_configuration_of_open_clip_is_read_or_refused_by_a_key() -> None:
    read, refused = set(), {}
    for name in known._names()["models"]:
        try:
            made = config.to_transformers(known.model(name).model_cfg, name)
        except BackboneError as error:
            refused[name] = str(error)
        else:
            read.add(name)
            assert made["vision_config"]["num_attention_heads"] > 0
    assert set(READ) <= read
    assert len(read) == 58
    assert {name: text in refused[name] for name, text in REFUSED.items()} == dict.fromkeys(
        REFUSED, True
    )


ODD: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads": ("ViT-B-32", {"vision_cfg.head_width": 100}, "a divisor of the width 768, got 100"),
    "size": ("ViT-B-32", {"vision_cfg.image_size": [224, 448]}, "whole number above 0, got [224,"),
    "layers": ("ViT-B-32", {"text_cfg.layers": True}, "text_cfg.layers: expected a whole number"),
    "quick": ("ViT-B-16-SigLIP", {"quick_gelu": True}, "got true, which timm does not follow"),
    "word": ("ViT-B-32", {"quick_gelu": "yes"}, "quick_gelu: expected true or false, got 'yes'"),
    "mean": ("ViT-B-16-SigLIP", {"vision_cfg.timm_pool": "avg"}, "expected map, got 'avg'"),
    "grid": ("ViT-B-16-SigLIP", {"vision_cfg.image_size": 256}, "expected 224, as timm has it"),
    "end": ("ViT-L-14-worldwide", {"text_cfg.eos_id": "</s>"}, "eos_id: expected a whole number"),
    "new": ("ViT-B-32", {"text_cfg.novel": 1}, "text_cfg.novel: expected a key that is known"),
    "act": ("ViT-B-32-quickgelu", {"text_cfg.act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
}


@pytest.mark.parametrize(("name", "changes", "said"), ODD.values(), ids=ODD)
def test_what_a_configuration_cannot_mean_is_refused_by_its_key(
    name: str, changes: dict[str, Any], said: str
) -> None:
    cfg = copy.deepcopy(known.model(name).model_cfg)
    config.to_transformers(cfg, name)
    for place, value in changes.items():
        part, _, key = place.rpartition(".")
        (cfg[part] if part else cfg)[key] = value
    with pytest.raises(BackboneError) as refused:
        config.to_transformers(cfg, name)
    assert said in str(refused.value)


def test_a_tag_says_repository_and_activation() -> None:
    for name, hub, quick in (
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", False),
        ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai", True),
        ("ViT-L-14-336-quickgelu/openai", "timm/vit_large_patch14_clip_336.openai", True),
        ("open_clip:ViT-B-16/dfn2b", "apple/DFN2B-CLIP-ViT-B-16", True),
        ("ViT-B-16-SigLIP/webli", "timm/ViT-B-16-SigLIP", False),
    ):
        found = known.tagged(name)
        assert known.is_tagged(name)
        assert (found.hub, found.model_cfg.get("quick_gelu", False)) == (hub, quick)
    assert not known.is_tagged("openai/clip-vit-base-patch32")
    with pytest.raises(BackboneError, match=r"weights trained with QuickGELU, got others\. Name"):
        known.tagged("ViT-B-32-quickgelu/laion2b_e16")
    with pytest.raises(BackboneError, match=r"a model that open_clip has, got 'ViT-B-23'\. Did"):
        known.tagged("open_clip:ViT-B-23/openai")
