"""Small models that open_clip made, with its own embeddings of them: see `open_clip_program`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from clipdrift.formats import config

HERE = Path(__file__).parent
INSTALLED = Path(sys.prefix) / "open-clip"

MODELS: dict[str, tuple[str, str]] = {
    "b32": ("ViT-B-32", "laion2b_s34b_b79k"),
    "b32-quickgelu": ("ViT-B-32-quickgelu", "openai"),
    "b16": ("ViT-B-16", "laion2b_s34b_b88k"),
    "b16-metaclip": ("ViT-B-16-quickgelu", "metaclip_fullcc"),
    "b16-plus-240": ("ViT-B-16-plus-240", "laion400m_e32"),
    "l14": ("ViT-L-14", "laion2b_s32b_b82k"),
    "l14-datacomp": ("ViT-L-14", "datacomp_xl_s13b_b90k"),
    "l14-336": ("ViT-L-14-336-quickgelu", "openai"),
    "h14-dfn": ("ViT-H-14-quickgelu", "dfn5b"),
    "g14": ("ViT-g-14", "laion2b_s12b_b42k"),
    "bigg14": ("ViT-bigG-14", "laion2b_s39b_b160k"),
    "siglip": ("ViT-B-16-SigLIP", "webli"),
    "siglip2": ("ViT-SO400M-16-SigLIP2-256", "webli"),
}
"""Model and tag of open_clip's, whose configuration and preprocessing each has."""

TEXTS = [
    "A photo of a Cat.",
    "don't: 123 red_circles, #7!",
    "caf\u00e9 & b\u00e4r",
    "",
    "two  dogs\ton the left\n",
    "word " * 200,
]
PICTURES = [(94, 47), (300, 400), (224, 224)]
"""Of sides whose margins halve: of odd ones torchvision crops a pixel further than transformers."""


def write_models(folder: Path) -> Path:
    """Have open_clip write its models into a folder, once for all processes of a test run."""
    done = folder / "done"
    with FileLock(folder.with_suffix(".lock")):
        if not done.is_file():
            folder.mkdir(exist_ok=True)
            by_open_clip("make", folder)
            done.touch()
    return folder


def by_open_clip(mode: str, folder: Path) -> None:
    """Run `open_clip_program` in a process that has open_clip."""
    if not (INSTALLED / "pins").is_file():
        raise FileNotFoundError(f"{INSTALLED}: run sh tools/ensure_open_clip.sh {sys.executable}")
    paths = [INSTALLED, HERE.parent / "tools", HERE, HERE.parent / "src"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment["CLIPDRIFT_CACHE"] = str(folder.with_name(f"{folder.name}-cache"))
    command = [sys.executable, str(HERE / "open_clip_program.py"), mode, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def allow_small_trunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunks that `open_clip_program` gives to timm."""
    monkeypatch.setitem(config.TRUNKS, "tiny", (64, 2, 2, 256))
    monkeypatch.setattr(config, "TANH", {*config.TANH, "tiny_patch16_48"})


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    small = [draw.integers(0, 256, (7, 9, 3), dtype=np.uint8) for _ in PICTURES]
    return [
        Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)
        for one, size in zip(small, PICTURES, strict=True)
    ]
