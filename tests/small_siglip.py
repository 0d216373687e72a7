"""A small random SigLIP in a folder as google/siglip-* have it, its tokenizer a SentencePiece."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.spec.parts import BackboneSpec

SIZE, WIDTH, BLOCKS, HEADS, LONGEST = 28, 16, 3, 2, 12
PATCHES = 49
WORDS = (
    *("a", "photo", "of", "the", "an", "image", "digit", "number", "zero", "one", "two", "three"),
    *("four", "five", "six", "seven", "eight", "nine", "red", "circle", "square", "cat", "dog"),
    *("annual", "crop", "land", "forest", "highway", "or", "road", "river", "sea", "lake"),
)
CHANNELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def write_random_siglip(
    folder: Path, *, dtype: torch.dtype = torch.float32, **vision: object
) -> Path:
    """Three blocks, 7 x 7 patches, no CLS token, a pooling head; queries and keys enlarged."""
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(5)
    tower = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": BLOCKS}
    tower |= {"num_attention_heads": HEADS}
    ids = {"pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1}
    config = SiglipConfig(
        vision_config={**tower, "image_size": SIZE, "patch_size": 4, **vision},
        text_config={**tower, **ids, "vocab_size": 64, "max_position_embeddings": LONGEST},
    )
    model = SiglipModel(config)
    with torch.no_grad():
        for block in model.vision_model.encoder.layers:
            block.self_attn.q_proj.weight.mul_(4)
            block.self_attn.k_proj.weight.mul_(4)
    model.to(dtype).save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    images = {"size": size, "resample": 3, "image_processor_type": "SiglipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images | CHANNELS))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """spiece.model and tokenizer_config.json, by SentencePiece and transformers themselves."""
    import sentencepiece
    from transformers import SiglipTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join((*WORDS[i:], *WORDS[:i])) for i in range(len(WORDS))),
        model_writer=model,
        vocab_size=64,
        pad_id=-1,
        bos_id=-1,
        unk_id=0,
        eos_id=1,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    SiglipTokenizer(str(path), model_max_length=LONGEST).save_pretrained(folder)


@cache
def small_siglip() -> Backbone:
    """Written and loaded once; nothing may change it."""
    folder = write_random_siglip(Path(mkdtemp(prefix="small-siglip-")) / "random-siglip")
    return load_backbone(BackboneSpec(id=str(folder)))
