"""The embedded backbone loads as any transformers folder and knows the world it comes from."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipdrift.data.digits import DIGITS_CLASSES
from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES
from clipdrift.data.drawn.world import WORLD_CLASSES, render_world

UNSEEN_SEED = 77_000_001


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(str(files("clipdrift").joinpath("assets", "mini-clip")))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import CLIPModel

    model, loading = CLIPModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_the_folder_is_small_and_holds_no_pickle(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "README.md",
    }
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * 1024**2


def test_the_processor_is_clips_at_28_pixels(folder: Path) -> None:
    """The folder's own processor against (pixel / 255 - 0.5) / 0.5 written out."""
    from transformers import CLIPImageProcessorPil

    images = render_world(np.arange(4), seed=UNSEEN_SEED)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    values = processor(images=list(images), return_tensors="np").pixel_values
    expected = (images.astype(np.float64) / 255 - 0.5) / 0.5
    # float32 arithmetic in the processor
    np.testing.assert_allclose(values, expected.transpose(0, 3, 1, 2), atol=1e-6)


@torch.inference_mode()
def test_zero_shot_on_unseen_images(model: Any, tokenizer: Any) -> None:
    """Ten images of each class, scored by transformers' own joint forward pass."""
    labels = np.repeat(np.arange(100), 10)
    images = render_world(labels, seed=UNSEEN_SEED)
    values = torch.from_numpy((images.astype(np.float32) / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
    prompts = [f"a photo of a {name}" for name in WORLD_CLASSES]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    logits = model(
        pixel_values=values, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
    ).logits_per_image
    accuracy = float((logits.argmax(dim=1).numpy() == labels).mean())
    assert accuracy >= 0.85


@torch.inference_mode()
def test_text_is_pooled_at_eos(model: Any, tokenizer: Any) -> None:
    """The pooled text is the final state at EOS, whatever padding or longer neighbours follow."""
    prompts = ["a red star", "there is a white crescent in the picture"]
    tokens = tokenizer(prompts, padding="max_length", max_length=40, return_tensors="pt")
    eos = tokenizer.eos_token_id
    assert eos == model.config.text_config.eos_token_id != 2
    out = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    for row, ids in enumerate(tokens.input_ids.tolist()):
        assert ids.count(eos) == 1
        torch.testing.assert_close(
            out.pooler_output[row], out.last_hidden_state[row, ids.index(eos)], rtol=0, atol=0
        )
    alone = tokenizer(prompts[:1], return_tensors="pt")
    short = model.text_model(input_ids=alone.input_ids, attention_mask=alone.attention_mask)
    # float32; the longer sequence sums the same numbers in another order
    torch.testing.assert_close(short.pooler_output[0], out.pooler_output[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*LAND_COVER_CLASSES, *DIGITS_CLASSES, "Zürich 東京 🛰"])
def test_any_name_has_tokens(model: Any, tokenizer: Any, name: str) -> None:
    ids = tokenizer(f"a photo of a {name}").input_ids
    assert tokenizer.unk_token_id not in ids
    assert max(ids) < model.config.text_config.vocab_size
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == f"a photo of a {name.lower()}"


def test_the_card_says_what_the_weights_are(folder: Path, model: Any) -> None:
    card = (folder / "README.md").read_text()
    assert f"{sum(p.numel() for p in model.parameters()):,} in all" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == "quick_gelu"
    assert f"width {config['vision_config']['hidden_size']}" in card
