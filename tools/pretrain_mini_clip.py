"""Train the embedded backbone `mini-clip` from scratch on the embedded world.

    python tools/pretrain_mini_clip.py --out src/clipdrift/assets/mini-clip

A step shows the model a batch of drawn images and asks two questions of each embedding: which of
the 100 class prompts fits it (one template per step), and which of the background prompts. Both
are softmax cross-entropy over cosine similarities at one learned temperature. Comparing with every
class, not with the other captions of the batch, is what makes a few CPU minutes enough. Linear
heads on the image tower also name colour, shape and background; they are thrown away at the end.
Without them the tower waits for the text tower to tell shapes apart, and the other way round.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from mini_clip_files import build_tokenizer, write_folder
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from clipdrift.data.drawn.shapes import SHAPES
from clipdrift.data.drawn.textures import TEXTURES
from clipdrift.data.drawn.world import (
    CAPTION_TEMPLATES,
    COLOURS,
    WORLD_CLASSES,
    render_world,
    world_textures,
)

SIZE = 28
FACTORS = [len(COLOURS), len(SHAPES), len(TEXTURES)]
CLASS_TEMPLATES = [template for template in CAPTION_TEMPLATES if "texture" not in template]
TEXTURE_TEMPLATES = [
    "a {} background",
    "a photo of a {} background",
    "an image with a {} background",
]
EVAL_SEED = 10_000_019
"""Evaluation images come from a seed the training pool (`--seed`) never uses."""


def build_model(tokenizer: PreTrainedTokenizerFast, width: int) -> CLIPModel:
    """A CLIP with 7x7 patches, 6 vision blocks, 2 text blocks and a 64-d joint space."""
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": 64,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": 4,
        "projection_dim": 64,
    }
    config = CLIPConfig(
        text_config=text | ids, vision_config=vision, projection_dim=64, hidden_act="quick_gelu"
    )
    # The eager path is the faster one here: SDPA has no good bfloat16 kernel for 16-wide heads.
    return CLIPModel._from_config(config, attn_implementation="eager")


def pooled_images(model: CLIPModel, pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, S, S, 3] -> the tower's output [B, D]; mean and std of 0.5 per channel."""
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    pooled: Tensor = model.vision_model(pixel_values=values).pooler_output
    return pooled


def image_features(model: CLIPModel, pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, S, S, 3] -> unit embeddings [B, 64]."""
    return F.normalize(model.visual_projection(pooled_images(model, pixels)).float(), dim=-1)


def text_features(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Prompts -> unit embeddings [C, 64]."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    pooled = model.text_model(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
    ).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, embeddings of position and the temperature do not."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 4 %, then a cosine to 1 % of the peak."""
    warm = max(1, steps // 25)
    if step < warm:
        return peak * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.inference_mode()
def evaluate(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, float]:
    """Zero-shot accuracies in float32 on `count` unseen images, classes in equal shares."""
    model.eval()
    labels = np.arange(count, dtype=np.int64) % len(WORLD_CLASSES)
    images = render_world(labels, seed=EVAL_SEED, size=SIZE)
    kinds = list(TEXTURES)
    textures = np.array([kinds.index(word) for word in world_textures(count, seed=EVAL_SEED)])
    features = torch.cat([image_features(model, part) for part in np.array_split(images, 8)])
    prompts = [f"a photo of a {name}" for name in WORLD_CLASSES]
    classes = text_features(model, tokenizer, prompts)
    backgrounds = text_features(model, tokenizer, [f"a {word} background" for word in kinds])
    picked = (features @ classes.T).argmax(dim=1).numpy()
    background = (features @ backgrounds.T).argmax(dim=1).numpy()
    model.train()
    return {
        "class_accuracy": float((picked == labels).mean()),
        "colour_accuracy": float((picked // 10 == labels // 10).mean()),
        "shape_accuracy": float((picked % 10 == labels % 10).mean()),
        "background_accuracy": float((background == textures).mean()),
    }


class Pool:
    """Training images drawn once, revisited in a new order with random flips and small shifts."""

    def __init__(self, size: int, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 1])
        self.labels = self.rng.integers(len(WORLD_CLASSES), size=size)
        self.images = render_world(self.labels, seed=seed, size=SIZE)
        kinds = list(TEXTURES)
        self.textures = np.array([kinds.index(word) for word in world_textures(size, seed=seed)])
        self.order = np.empty(0, dtype=np.int64)

    def batch(self, count: int) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
        """Images uint8 [B, S, S, 3], class labels [B], background labels [B]."""
        if len(self.order) < count:
            self.order = self.rng.permutation(len(self.labels))
        picked, self.order = self.order[:count], self.order[count:]
        images = self.images[picked]
        flipped = self.rng.random(count) < 0.5
        images[flipped] = images[flipped, :, ::-1]
        shift = tuple(int(s) for s in self.rng.integers(-2, 3, size=2))
        images = np.roll(images, shift, axis=(1, 2))
        return (
            images,
            torch.from_numpy(self.labels[picked]),
            torch.from_numpy(self.textures[picked]),
        )


def train(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> tuple[CLIPModel, float]:
    """The trained model and the seconds it took, drawing the pool included."""
    started = time.perf_counter()
    torch.manual_seed(args.seed)
    model = build_model(tokenizer, args.width).train()
    heads = nn.Linear(args.width, sum(FACTORS))
    pool = Pool(args.pool, args.seed)
    print(f"{args.pool} images drawn in {time.perf_counter() - started:.1f} s", flush=True)
    groups = parameter_groups(nn.ModuleList([model, heads]), args.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        loss = step_loss(model, heads, tokenizer, pool, args.batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(max=math.log(100.0))
        if (step + 1) % args.report_every == 0:
            at = {"step": step + 1, "seconds": round(time.perf_counter() - started)}
            at |= {"loss": round(loss.item(), 3)}
            print(json.dumps(at | evaluate(model, tokenizer, 1000)), flush=True)
    return model.eval(), time.perf_counter() - started


def step_loss(
    model: CLIPModel,
    heads: nn.Linear,
    tokenizer: PreTrainedTokenizerFast,
    pool: Pool,
    batch: int,
) -> Tensor:
    """Class, a quarter of background, and the three factor cross-entropies; bfloat16 autocast."""
    images, labels, textures = pool.batch(batch)
    template = CLASS_TEMPLATES[pool.rng.integers(len(CLASS_TEMPLATES))]
    background = TEXTURE_TEMPLATES[pool.rng.integers(len(TEXTURE_TEMPLATES))]
    prompts = [template.format(name) for name in WORLD_CLASSES]
    prompts += [background.format(word) for word in TEXTURES]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooled_images(model, images)
        features = F.normalize(model.visual_projection(pooled).float(), dim=-1)
        factors = heads(pooled).float()
        texts = text_features(model, tokenizer, prompts)
    similarities = model.logit_scale.exp() * features @ texts.T
    split = len(WORLD_CLASSES)
    by_class = F.cross_entropy(similarities[:, :split], labels, label_smoothing=0.05)
    by_background = F.cross_entropy(similarities[:, split:], textures)
    targets = (labels // 10, labels % 10, textures)
    by_factor = [
        F.cross_entropy(logits, target)
        for logits, target in zip(factors.split(FACTORS, dim=1), targets, strict=True)
    ]
    return by_class + 0.25 * by_background + torch.stack(by_factor).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--width", type=int, default=64, help="width of the vision tower")
    parser.add_argument("--steps", type=int, default=13_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--pool", type=int, default=200_000, help="distinct training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=650)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    model, seconds = train(args, tokenizer)
    report = evaluate(model, tokenizer, 10_000)
    print(json.dumps(report))
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    write_folder(args.out, model, tokenizer, settings, seconds, report)


if __name__ == "__main__":
    main()
