"""The files around the weights of `mini-clip`: tokenizer, image processor and model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import CLIPModel, PreTrainedTokenizerFast

from clipdrift.data.drawn.world import WORLD_CLASSES, world_captions

BOS, PAD, SPARE, UNK, EOS = "<|startoftext|>", "<|pad|>", "<|spare|>", "<|unk|>", "<|endoftext|>"
"""In id order. `SPARE` holds id 2: transformers' CLIP reads an EOS id of 2 in a legacy way that
pools at the highest token id instead of at EOS."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from captions, with all 256 bytes: any class name has tokens."""
    labels = np.tile(np.arange(len(WORLD_CLASSES), dtype=np.int64), 20)
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[BOS, PAD, SPARE, UNK, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(world_captions(labels, seed=0), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=EOS,
        model_max_length=77,
        padding_side="right",
    )


PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 28},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_folder(
    out: Path,
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: dict[str, Any],
    seconds: float,
    report: dict[str, float],
) -> None:
    """Write a folder that `CLIPModel` and `AutoTokenizer` load as any other."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    (out / "README.md").write_text(model_card(model, settings, seconds, report))


def model_card(
    model: CLIPModel, settings: dict[str, Any], seconds: float, report: dict[str, float]
) -> str:
    """The card, in plain words and with the numbers of this very training."""
    vision = model.config.vision_config
    count = sum(p.numel() for p in model.parameters())
    tower = sum(p.numel() for p in model.vision_model.parameters())
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in settings.items())
    return f"""---
license: apache-2.0
---
# mini-clip

A CLIP small enough to fine-tune dozens of times on a laptop. It exists so that a study can be
tried, tested and taught without a download. It knows coloured shapes and nothing else.

| | |
|---|---|
| image tower | {vision.image_size} px, patch {vision.patch_size} (49 patches + CLS), \
{vision.num_hidden_layers} blocks, {vision.num_attention_heads} heads, width {vision.hidden_size} |
| text tower | 2 blocks, 4 heads, width 64, at most 77 tokens, pooled at EOS |
| joint space | 64 dimensions |
| parameters | {count:,} in all, {tower:,} in the image tower; float32 |
| tokenizer | byte-level BPE, {model.config.text_config.vocab_size} entries, lower case |

## Training
Images of `clipdrift.data.drawn.world`: 10 shapes x 10 colours on 8 kinds of background, all drawn
by code; no photograph and no third-party data. {settings["pool"]:,} distinct images, \
{settings["steps"]:,} steps of {settings["batch"]}
with random flips and shifts. Loss: cross-entropy of the image against the prompts of all 100
classes, plus a quarter of the same against the background prompts, plus linear heads on the image
tower for colour, shape and background that are not kept. This is not the in-batch contrastive loss
of CLIP. AdamW, warm-up and cosine, bfloat16 autocast, {seconds / 60:.1f} minutes on
{settings["threads"]} CPU threads that other work shared (PyTorch {torch.__version__}).

    python tools/pretrain_mini_clip.py --out src/clipdrift/assets/mini-clip {flags}

The seed fixes images, order and initial weights; bits may differ between CPUs.

## Measured
10,000 unseen images of the same world, 100 per class, float32:

| zero-shot reading | accuracy |
|---|---|
| class, 100 prompts "a photo of a {{class}}" | {report["class_accuracy"]:.4f} |
| colour right | {report["colour_accuracy"]:.4f} |
| shape right | {report["shape_accuracy"]:.4f} |
| background, 8 prompts "a {{texture}} background" | {report["background_accuracy"]:.4f} |

## Limits
- Its text tower has read only the words of the world's captions. A prompt with other words is
  tokenised, but its embedding means nothing: zero-shot accuracy on the land cover and digits
  sets is at chance, 0.1.
- It was trained on 28 px drawings. What fine-tuning does to it need not carry over to a CLIP
  trained on photographs; it shows that a study runs, not what large models do.
"""
