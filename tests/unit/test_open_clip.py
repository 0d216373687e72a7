"""Models of open_clip's, read here, are what open_clip makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_open_clip import MODELS, TEXTS, allow_small_trunks, pictures

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.decode import to_square
from clipdrift.formats.state import clip_state, read_content
from clipdrift.spec.parts import BackboneSpec


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
