"""The study file that `clipdrift init` writes: valid as it is, every choice explained."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from clipdrift.data.builtin import known_names
from clipdrift.data.decode import suffixes
from clipdrift.data.tables import column_names
from clipdrift.errors import DataError, Fault, SpecError, brief, did_you_mean
from clipdrift.spec.suites import SUITES

TEMPLATE = """\
# A matched fine-tuning study. Check it: clipdrift check {file}
# Then: clipdrift plan {file}, clipdrift run {file}
name: {name}

# Any CLIP or SigLIP of transformers or open_clip: a hub id, open_clip:MODEL/TAG, a local folder or
# file, or the embedded mini-clip (28 px, knows coloured shapes only: good for a first try, not for
# photographs).
backbone:
  id: {backbone}

# What to fine-tune on. Where the data has no test part of its own (folders train/ and test/, or
# files: {{train: ..., test: ...}}), test_fraction of each class is set aside and read once per run.
targets:
  - name: {target}
{source}
    test_fraction: 0.2
    max_bad_images: 0        # unreadable images to tolerate; each is named and counted
    horizontal_flip: true    # false where left and right mean something, as in text
{options}

# What zero-shot ability to watch: any dataset with class names that the backbone knows. Of one on
# which it does no better than chance nothing can be kept: the report says so.
transfers:
{transfers}

# Matched methods share everything but the method; reference methods are points to compare with.
methods:
{methods}

# One grid for all matched methods. It should reach from too small to harmful: the report says
# where the best rate lies at the edge.
learning_rates: {rates}
seeds: {seeds}

schedule:
{schedule}

splits:
  seed: 0                    # draws what the data does not divide itself (train/, val/, test/)
  # val_fraction: 0.15       # of the training part; chooses the epoch that is kept
  # group_by: duplicates     # copies of a picture, which check names, go into one set
# probe:                     # images on which drift is read; default: 200, class-balanced, and
#   n_images: 200            # never more than a quarter of a class
"""


OF_CLASSES = (
    """\
    # class_names: {"name in the data": "name to read"}   # as CLIP should read them
    # templates: ["a photo of a {}"]   # prompts for the classes
    # skip_classes: [unsorted]         # classes to leave out""",
    """\
  - full_ft
  - {name: lora, kind: lora, rank: 8, alpha: 16, dropout: 0.05, modules: [q_proj, v_proj]}
  - {name: linear_probe, kind: linear_probe, role: reference, learning_rates: [1.0e-3]}
  # - {name: held, kind: full_ft, penalties: [{kind: feature_distillation, weight: 1.0}]}""",
    ["batch_size: 32"],
)
OF_PAIRS = (
    """\
    # Images are split, never captions; what counts images of a class below counts images here.""",
    """\
  - {name: full_ft, kind: full_ft, loss: contrastive, tower: both}
  - {name: lora, kind: lora, loss: contrastive, tower: both, rank: 8, alpha: 16, dropout: 0.05}
  # - {name: vision, kind: full_ft, loss: contrastive}   # the text tower stays as it is""",
    [
        "batch_size: 128          # images of a batch are held against each other's captions",
        "# micro_batch: 32        # images in memory at a time; the gradient is that of the batch",
    ],
)
"""Lines of a target, methods, and lines of the schedule."""
EMBEDDED = "mini-clip"
RATES = {
    True: ["1.0e-4", "3.0e-4", "1.0e-3", "3.0e-3"],
    False: ["1.0e-6", "5.0e-6", "1.0e-5", "5.0e-5"],
}
"""Of the embedded model, and of one that was pretrained on photographs."""
TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".pq")
SHARDS = ".tar"
CAPTIONS = ("caption", "captions", "text", "sentence", "sentences", "title")
"""What a column of captions is usually called; one of classes goes first."""
COLUMNS = {
    "image_column": ("image", "image_path", "path", "file", "filename", "file_name", "filepath"),
    "label_column": ("label", "class", "class_name", "category", "label_name", "target"),
}
"""What columns are usually called, the default first."""


def study_text(
    images: Path | None,
    out: Path,
    *,
    backbone: str | None = None,
    transfers: Sequence[str] = (),
    quick: bool = False,
) -> str:
    """A commented study file.

    Args:
        images: a folder of class folders; a CSV, JSON Lines or Parquet file with a column of
            classes or of captions; a folder or a .tar shard of images with .txt beside them; None
            for the embedded land-cover set.
        backbone: default mini-clip for the embedded set, a CLIP from the hub for images of one's
            own.
        transfers: names of built-in sets or suites, or folders; default one that it knows.
        quick: a few steps of few runs, to see that all works.

    Raises:
        DataError: images that are not there or not sorted into classes.
        SpecError: a transfer set that is not known, or that the backbone cannot know.
    """
    chosen = backbone or (EMBEDDED if images is None else "openai/clip-vit-base-patch32")
    drawn = chosen == EMBEDDED
    named = list(transfers) or ["world" if drawn else "cifar100"]
    _require_known(named, drawn=drawn)
    n_images = 200 if quick else 1000 if drawn else 2000
    rates = RATES[drawn][1:3] if quick else RATES[drawn]
    source = "    builtin: land-cover" if images is None else _source(images)
    options, methods, batch = OF_PAIRS if "caption_column" in source else OF_CLASSES
    schedule = ["epochs: 1", "max_steps: 20            # of each run; leave it out to train"]
    return TEMPLATE.format(
        file=shlex.quote(str(out)),
        name=_safe_name(out.stem),
        target="land-cover" if images is None else _safe_name(images.resolve().stem),
        source=source,
        options=options,
        methods=methods,
        backbone=_quoted(chosen),
        transfers="\n".join(_transfer(name, n_images) for name in named),
        rates=f"[{', '.join(rates)}]",
        seeds="[7]" if quick else "[7, 11, 19]",
        schedule="\n".join(
            f"  {line}" for line in [*(schedule if quick else ["epochs: 6"]), *batch]
        ),
    )


def _require_known(transfers: Sequence[str], *, drawn: bool) -> None:
    """A set of which a backbone knows nothing has nothing to be kept."""
    faults = []
    for name in transfers:
        known = name in known_names() or name in SUITES
        if not known and not os.path.isdir(name):
            names = (*known_names(), *SUITES)
            step = did_you_mean(name, names, "List them: clipdrift datasets")
            expected = "a built-in set, a suite or a folder"
            faults.append(Fault("--transfer", expected, repr(name), step))
        elif known and drawn != (name in {"world", "quick"}):
            what = (
                "mini-clip, which knows the drawn world only" if drawn else "another than mini-clip"
            )
            step = "Name another backbone or another set"
            faults.append(
                Fault("--transfer", f"a set that the backbone knows ({what})", repr(name), step)
            )
    if faults:
        raise SpecError(faults)


def _transfer(name: str, n_images: int) -> str:
    if name in SUITES:
        return f"  - {{suite: {name}, n_images: {n_images}}}   # {', '.join(SUITES[name])}"
    if name in known_names():
        lines = [
            f"- name: {name}",
            f"  builtin: {name}          # 'clipdrift datasets' lists others",
        ]
    else:
        where = Path(name).resolve()
        lines = [f"- name: {_safe_name(where.name)}", f"  folder: {_quoted(str(where))}"]
    if name in known_names():
        lines.append(f"  n_images: {n_images}           # class-balanced")
    return "\n".join(f"  {line}" for line in lines)


def _source(images: Path) -> str:
    """The lines of a target that say where its images are."""
    where = _quoted(str(images.resolve()))
    if images.suffix.lower() == SHARDS:
        return f"    files: {{train: {where}}}\n    caption_column: txt"
    if images.suffix.lower() not in TABLES:
        if _has_texts(images):
            return f"    folder: {where}\n    caption_column: txt"
        _require_classes(images)
        return f"    folder: {where}"
    lines = [f"    files: {{train: {where}}}"]
    lines += [f"    {key}: {_quoted(name)}" for key, name in _columns(images).items()]
    return "\n".join(lines)


def _columns(table: Path) -> dict[str, str]:
    """Which column holds what, where it is not called as by default.

    Raises:
        DataError: no such file, or a column that cannot be told by its name.
    """
    header = column_names(table, str(table))
    found, faults = {}, []
    columns = COLUMNS
    told = [name for name in CAPTIONS if name in header]
    if told and not set(COLUMNS["label_column"]) & {*header}:
        found["caption_column"] = told[0]
        columns = {"image_column": COLUMNS["image_column"]}
    for key, usual in columns.items():
        there = [name for name in usual if name in header]
        if usual[0] in there:
            continue
        if len(there) == 1:
            found[key] = there[0]
            continue
        step = f"Call the column of {key.split('_')[0]}s {usual[0]!r}"
        faults.append(
            Fault(str(table), f"a column called {' or '.join(usual)}", brief(header), step)
        )
    if faults:
        raise DataError(faults)
    return found


def _has_texts(images: Path) -> bool:
    """Whether a .txt lies beside the first image, in the folder or in its train/."""
    for folder in (images, images / "train"):
        if folder.is_dir():
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes())
            if found:
                return found[0].with_suffix(".txt").is_file()
    return False


def _require_classes(images: Path) -> None:
    if not images.is_dir():
        got = "a file" if images.exists() else "nothing there"
        expected = "a folder of images, or a .csv, .jsonl or .parquet file"
        raise DataError(Fault(str(images), expected, got, "Check the path"))
    if not any(path.is_dir() for path in images.iterdir()):
        raise DataError(
            Fault(
                str(images),
                "one sub-folder per class",
                "none",
                "Sort the images into folders named after their classes",
            )
        )


def _quoted(text: str) -> str:
    """Plain where YAML reads it as text, else in quotes."""
    plain = re.fullmatch(r"[A-Za-z/][A-Za-z0-9._/-]*", text)
    return text if plain else "'" + text.replace("'", "''") + "'"


def _safe_name(text: str) -> str:
    """A name a study file accepts, close to the given one.

    >>> _safe_name("my photos (2024)")
    'my-photos-2024'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:64] or "study"
