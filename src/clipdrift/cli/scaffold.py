"""The study file that `clipdrift init` writes: valid as it is, every choice explained."""

from __future__ import annotations

import re
from pathlib import Path

from clipdrift.errors import DataError, Fault

TEMPLATE = """\
# A matched fine-tuning study. Check it: clipdrift check {file}
# Then: clipdrift plan {file}, clipdrift run {file}
name: {name}

# Any CLIP in transformers format: a hub id, a local folder, or the embedded mini-clip (28 px,
# knows coloured shapes only: good for a first try, not for photographs).
backbone:
  id: {backbone}

# What to fine-tune on. One sub-folder per class; train/ and test/ above them if you have a test
# part of your own, else {{test_fraction}} of each class is set aside and read once per run.
targets:
  - name: {target}
{source}
    test_fraction: 0.2
    max_bad_images: 0        # unreadable images to tolerate; each is named and counted
    horizontal_flip: true    # false where left and right mean something, as in text
    # class_names: {{folder: name}}    # as CLIP should read them; default: the folder names
    # templates: ["a photo of a {{}}"]   # prompts for the classes

# What zero-shot ability to watch: any dataset with class names that the backbone knows. Of one on
# which it does no better than chance nothing can be kept: the report says so.
transfers:
{transfer}
  # - {{name: own, folder: /path/to/images, templates: ["a photo of a {{}}"]}}

# Matched methods share everything but the method; reference methods are points to compare with.
methods:
  - full_ft
  - {{name: lora, kind: lora, rank: 8, alpha: 16, dropout: 0.05, modules: [q_proj, v_proj]}}
  - {{name: linear_probe, kind: linear_probe, role: reference, learning_rates: [1.0e-3]}}
  # - {{name: held, kind: full_ft, penalties: [{{kind: feature_distillation, weight: 1.0}}]}}

# One grid for all matched methods. It should reach from too small to harmful: the report says
# where the best rate lies at the edge.
learning_rates: {rates}
seeds: [7, 11, 19]

schedule:
  epochs: 6
  batch_size: 32

splits:
  val_fraction: 0.15         # of the training part; chooses the epoch that is kept
# probe:                     # images on which drift is read; default: 200, class-balanced, and
#   n_images: 200            # never more than a quarter of a class
"""


WORLD = """\
  - name: world
    builtin: world           # 100 classes of coloured shapes, which mini-clip was trained on
    n_images: 1000"""
CIFAR100 = """\
  - name: cifar100
    builtin: cifar100        # from the hub; 'clipdrift datasets' lists others
    n_images: 2000"""


def study_text(images: Path | None, out: Path) -> str:
    """A commented study file for a folder of images, or for the embedded land-cover set.

    Raises:
        DataError: if the folder is not there or has no sub-folders.
    """
    if images is None:
        target, source = "land-cover", "    builtin: land-cover"
        backbone, rates = "mini-clip", "[1.0e-4, 3.0e-4, 1.0e-3, 3.0e-3]"
        transfer = WORLD
    else:
        _require_classes(images)
        target = _safe_name(images.resolve().name)
        shown = str(images.resolve()).replace("'", "''")
        source = f"    folder: '{shown}'"
        backbone, rates = "openai/clip-vit-base-patch32", "[1.0e-6, 5.0e-6, 1.0e-5, 5.0e-5]"
        transfer = CIFAR100
    return TEMPLATE.format(
        file=out, name=_safe_name(out.stem), target=target, source=source, backbone=backbone,
        rates=rates, transfer=transfer,
    )  # fmt: skip


def _require_classes(images: Path) -> None:
    if not images.is_dir():
        got = "a file" if images.exists() else "nothing there"
        raise DataError(Fault(str(images), "a folder of images", got, "Check the path"))
    if not any(path.is_dir() for path in images.iterdir()):
        raise DataError(
            Fault(
                str(images),
                "one sub-folder per class",
                "none",
                "Sort the images into folders named after their classes",
            )
        )


def _safe_name(text: str) -> str:
    """A name a study file accepts, close to the given one.

    >>> _safe_name("my photos (2024)")
    'my-photos-2024'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:64] or "study"
