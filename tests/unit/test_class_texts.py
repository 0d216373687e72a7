"""Classes that a model reads alike are refused; texts that it reads in part are named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from clipdrift.backbone import Backbone, load_backbone, partly_read, same_texts
from clipdrift.errors import ClipdriftError
from clipdrift.materials import load_materials
from clipdrift.reading.sets import open_transfers
from clipdrift.spec.parts import BackboneSpec
from tests.small_models import EMBEDDED, mini_clip
from tests.small_siglip import write_random_siglip
from tests.small_study import study

LONG = "a photo, taken in the garden behind the house on a fine day in the summer of a year, of a "
CLASSES = [["a photo of a cat"], ["a photo of a dog"], ["a photo of a red circle"]]


def edited(folder: Path, **text_config: Any) -> Backbone:
    """The embedded model with other words in its text_config."""
    shutil.copytree(EMBEDDED, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text_config
    (folder / "config.json").write_text(json.dumps(config))
    return load_backbone(BackboneSpec(id=str(folder)))


def test_prompts_that_tell_classes_apart_pass_without_a_word() -> None:
    assert same_texts(mini_clip(), CLASSES, "toy") == []
    assert partly_read(mini_clip(), CLASSES, "toy") == []


def test_classes_cut_to_one_text_are_refused_and_a_cut_is_told() -> None:
    prompts = [[f"{LONG * 3}{name}"] for name in ("cat", "dog")]
    (fault,) = same_texts(mini_clip(), prompts, "toy")
    assert fault.got.startswith("2 classes with one text")
    assert fault.got.endswith("of which the tower reads 77 tokens")
    features = mini_clip().text_features(prompts)
    assert torch.equal(features[0], features[1])  # what it would have measured
    (told,) = partly_read(mini_clip(), prompts, "toy")
    assert told.startswith("toy: 2 prompts are cut to 77 tokens ('a photo, taken")
    first = [[f"a photo of a {name}. {LONG * 3}"] for name in ("cat", "dog")]
    assert same_texts(mini_clip(), first, "toy") == []
    assert len(partly_read(mini_clip(), first, "toy")) == 1
    # One template of several is enough.
    both = [[*group, *short] for group, short in zip(prompts, CLASSES, strict=False)]
    assert same_texts(mini_clip(), both, "toy") == []


@pytest.mark.parametrize("eos", [402, 0])
def test_a_wrong_end_of_text_is_found(tmp_path: Path, eos: int) -> None:
    """transformers then pools the first token, which is that of every text."""
    backbone = edited(tmp_path / "model", eos_token_id=eos)
    assert torch.equal(*backbone.text_features(CLASSES[:2]))
    (fault,) = same_texts(backbone, CLASSES, "toy")
    assert fault.got.startswith("3 classes with one text, 'a photo of a cat', ")
    assert "eos_token_id" in fault.next_step


def test_a_tokenizer_that_cannot_count_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    own = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(own | {"model_max_length": "x"}))
    backbone = load_backbone(BackboneSpec(id=str(folder)))
    with pytest.raises(ClipdriftError, match="a tokenizer that reads class prompts, got '>' not"):
        partly_read(backbone, CLASSES, "toy")


def test_the_highest_token_is_what_old_configurations_read(tmp_path: Path) -> None:
    """Of classes whose names begin with it, nothing behind it is read."""
    backbone = edited(tmp_path / "model", eos_token_id=2)
    ids = backbone.tokenizer(["red"], add_special_tokens=False).input_ids
    groups = [[f"red {name}"] for name in ("cat", "dog", "circle", "square")]
    tokens = backbone.live_text_encoder().tokens([group[0] for group in groups])["input_ids"]
    alike = [row.argmax() < len(ids[0]) + 1 for row in tokens]
    features = backbone.text_features(groups)
    equal = {(a, b) for a in range(4) for b in range(a) if torch.allclose(features[a], features[b])}
    found = same_texts(backbone, groups, "toy")
    assert bool(found) == bool(equal) == (sum(map(bool, alike)) > 1)


def test_a_text_tower_without_weights_is_found() -> None:
    backbone = load_backbone(BackboneSpec())
    for tensor in backbone.model.text_model.final_layer_norm.parameters():
        tensor.data.zero_()
    (fault,) = same_texts(backbone, CLASSES, "toy")
    assert fault.expected == "a text embedding of its own for each class"


def test_letters_that_the_tokenizer_lacks_are_told() -> None:
    words = ["<s>", "<pad>", "and", "<unk>", "</s>", "a", "photo", "of", "cat"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 4)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )
    backbone = replace(mini_clip(), tokenizer=tokenizer)
    prompts = [["a photo of a 猫"], ["a photo of a 犬"], ["a photo of a cat"]]
    (fault,) = same_texts(backbone, prompts, "toy")
    assert fault.got.startswith("2 classes with one text, 'a photo of a 猫', 'a photo of a 犬', ")
    (told,) = partly_read(backbone, prompts, "toy")
    assert told == "toy: 2 prompts hold what the tokenizer lacks ('a photo of a 猫')"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_are_padded_behind_whatever_the_tokenizer_says(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    if kind == "clip":
        shutil.copytree(EMBEDDED, folder)
    else:
        write_random_siglip(folder)
    prompts = [["a cat"], ["a photo of a red circle"]]
    expected = load_backbone(BackboneSpec(id=str(folder))).text_features(prompts)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    found = load_backbone(BackboneSpec(id=str(folder))).text_features(prompts)
    assert torch.equal(found, expected)


def images(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return str(folder)


def test_studies_and_gauges_refuse_them_where_texts_decide(tmp_path: Path) -> None:
    one = {"name": "toy", "folder": images(tmp_path / "toy"), "templates": [LONG * 3 + "{}"]}
    with pytest.raises(ClipdriftError, match="2 classes with one text"):
        load_materials(study(transfers=[one]), cache_dir=tmp_path)
    with pytest.raises(ClipdriftError, match="2 classes with one text"):
        open_transfers({"toy": one}, mini_clip(), tmp_path)
    methods = [{"name": "ft", "kind": "full_ft", "head_init": "text"}]
    with pytest.raises(ClipdriftError, match="2 classes with one text"):
        load_materials(study(targets=[one], methods=methods), cache_dir=tmp_path)
    random = load_materials(study(targets=[one], methods=["full_ft"]), cache_dir=tmp_path)
    cut, same = random.targets["toy"].text_remarks  # a head of its own tells them apart
    assert "cut to 77 tokens" in cut
    assert "2 classes with one text" in same
