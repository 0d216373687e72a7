"""Small pictures of a handful of images and of where CLS attends in them, baseline and adapted."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.data.images import Images
from clipdrift.probes.attention import cls_patch_attention
from clipdrift.probes.attention_maps import BlockAttention, attention_sink, has_cls_token
from clipdrift.probes.rollout import rollout_cls, rollout_step
from clipdrift.records import atomic_write

N_IMAGES = 3
TILE, GAP, CAPTION = 112, 6, 16
CAPTIONS = ("image", "CLS before", "CLS after", "rollout before", "rollout after")
DARK_TO_LIGHT = np.array(
    [(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], dtype=np.float64
)
"""Colours of rising lightness, readable without colour vision and in print."""


def save_attention_pictures(
    encoder: ImageEncoder, backbone: Backbone, probe: Images, folder: Path
) -> None:
    """Write `probe_image_<n>.png` for the first images of the first classes of the probe set.

    A tower without a CLS token has no attention to show, and nothing is written.
    """
    if not has_cls_token(encoder.tower):
        return
    chosen = np.sort(np.unique(probe.labels, return_index=True)[1][:N_IMAGES])
    names = [f"probe_image_{position}.png" for position in chosen]
    save_pictures(encoder, backbone, probe.take(chosen), [folder / name for name in names])


def save_pictures(
    encoder: ImageEncoder,
    backbone: Backbone,
    images: NDArray[np.uint8],
    paths: Sequence[Path],
) -> None:
    """Write a picture of each image: [N, H, W, 3].

    Each shows the image, the last block's CLS attention over the patches (mean of heads), and the
    rollout's, before and after. Before and after share one scale. Of a tower without a CLS token
    it is the image alone.
    """
    maps: list[tuple[Tensor, Tensor]] = []
    if has_cls_token(encoder.tower):
        pixels = torch.from_numpy(images).to(encoder.mean.device)
        before, after = _maps(backbone.live_encoder(), pixels), _maps(encoder, pixels)
        maps = list(zip(before, after, strict=True))
    for row, path in enumerate(paths):
        tiles = [
            np.asarray(Image.fromarray(images[row]).resize((TILE, TILE), Image.Resampling.BICUBIC))
        ]
        for was, now in maps:
            top = float(max(was[row].max(), now[row].max()))
            tiles += [_heat(was[row], top), _heat(now[row], top)]
        atomic_write(path, _png(tiles))


@torch.inference_mode()
def _maps(encoder: ImageEncoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """CLS attention of the last block and rollout, both [B, P]."""
    last: list[Tensor] = []
    rollout: list[Tensor] = []

    def keep(block: int, attention: BlockAttention) -> None:
        last[:] = [cls_patch_attention(attention.cls[:, :, None]).mean(dim=1)]
        rollout[:] = [rollout_step(rollout[0] if rollout else None, attention.mean)]

    with attention_sink(encoder.tower, keep):
        encoder(pixels)
    return last[0].cpu(), rollout_cls(rollout[0]).cpu()


def _heat(weights: Tensor, top: float) -> NDArray[np.uint8]:
    """[P] weights on their square grid, as a coloured tile."""
    side = math.isqrt(len(weights))
    level = weights.reshape(side, side).double().numpy() / (top or 1.0)
    stops = np.linspace(0, 1, len(DARK_TO_LIGHT))
    colours = np.stack([np.interp(level, stops, DARK_TO_LIGHT[:, c]) for c in range(3)], axis=-1)
    tile = Image.fromarray(colours.round().astype(np.uint8))
    return np.asarray(tile.resize((TILE, TILE), Image.Resampling.NEAREST))


def _png(tiles: list[NDArray[np.uint8]]) -> bytes:
    width = len(tiles) * TILE + (len(tiles) - 1) * GAP
    sheet = Image.new("RGB", (width, TILE + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (tile, caption) in enumerate(zip(tiles, CAPTIONS, strict=False)):
        left = number * (TILE + GAP)
        draw.text((left + 2, 2), caption, fill="black")
        sheet.paste(Image.fromarray(tile), (left, CAPTION))
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    return out.getvalue()
