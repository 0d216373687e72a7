"""Study files, and the runs that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from fuzz.strategies import YAML_SHAPES, edited
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from small_study import TEXT

from clipdrift.spec import dump_spec, expand, load_spec, parse_spec

STUDIES = Path(__file__).parents[2] / "studies"
FULL: dict[str, Any] = {
    "name": "full",
    "backbone": {"id": "./model", "revision": "main"},
    "targets": [
        {
            "name": "a",
            "folder": "photos",
            "class_names": ["cat", "dog"],
            "templates": ["a photo of a {}"],
            "max_bad_images": 1,
            "epochs": 2,
            "splits": {"val_per_class": 1},
            "probe": {"per_class": 1},
            "corrupted": [{"name": "a-fog", "files": {"test": "fog.csv"}}],
        },
        {"name": "b", "files": {"train": "b.csv", "test": "b.parquet"}, "image_column": "img"},
    ],
    "transfers": [
        {"name": "c", "hub": "some/set", "revision": "abc", "n_images": 10},
        {"suite": "paint", "folders": {"imagenet": "in1k"}, "missing": "skip", "n_images": 10},
    ],
    "methods": [
        "full_ft",
        {"name": "lora8", "kind": "lora", "rank": 8, "modules": ["q_proj"]},
        {"name": "lp", "kind": "linear_probe", "role": "reference", "learning_rates": [1e-3]},
        {"kind": "last_blocks", "role": "reference", "blocks": 1, "targets": ["a"]},
    ],
    "learning_rates": [1e-5, 1e-4],
    "seeds": [7, 11],
    "schedule": {"epochs": 2, "batch_size": 8},
    "evaluation": {"interpolation": [0.5], "corruptions": ["jpeg"]},
    "varied": ["head_lr"],
}


def feed(data: bytes, folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_bytes(data)
    spec = load_spec(path)
    assert parse_spec(dump_spec(spec)) == spec
    runs = expand(spec, precision="float32")
    for run in runs:
        name = run.run_id("0" * 64)
        assert Path(name).name == name
        assert len(name) < 255
    assert len({run.name for run in runs}) == len(runs)


def seeds() -> list[bytes]:
    files = sorted(STUDIES.glob("*.yaml"))
    odd = [TEXT.encode() + shape for shape in YAML_SHAPES[4:6]]  # the others are slow to mutate
    return [TEXT.encode(), _as_yaml(FULL), *odd, *(path.read_bytes() for path in files)]


def shaped() -> SearchStrategy[bytes]:
    trees = [FULL, yaml.safe_load(TEXT)]
    ends = st.sampled_from((*[b""] * 40, *YAML_SHAPES))
    return st.tuples(edited(trees).map(_as_yaml), ends).map(b"".join)


def _as_yaml(tree: Any) -> bytes:
    text: str = yaml.safe_dump(tree, allow_unicode=True)
    return text.encode("utf-8", "surrogatepass")


TARGETS = [Target("study file", feed, seeds, shaped, examples=60, share=0.5)]
