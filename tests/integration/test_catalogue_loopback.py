"""Every set of the catalogue that a hub holds, opened by the real download code from a hub here.

The hub on this machine holds of each set what was seen of it: its files, columns and names, with
two images a part. Names in the data and ours must fit, or opening refuses them.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import LoopbackHub, Repository
from PIL import Image

from clipdrift.data.catalogue import Entry, catalogue

SHARDS = ("clip-benchmark/", "djghosh/")
SUFFIX = {
    "imagenet-v2": "webp",
    "clevr-distance": "webp",
    "rendered-sst2": "png",
    "objectnet": "png",
}
"""Of images in shards, where another than jpg was seen."""
TABLES = {"svhn": "cropped_digits/"}
"""Folder of the Parquet files, where it is not data/."""
OWN_NAMES = {
    "pcam": ["0", "1"],
    "fashion-mnist": ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt",
                      "Sneaker", "Bag", "Ankle boot"],
    "kmnist": list("おきすつなはまやれを"),
    "mnist": list("0123456789"),
}  # fmt: skip
READ = """
import json, sys
from clipdrift.data import hub
from clipdrift.data.sources import open_dataset
from clipdrift.errors import ClipdriftError
from clipdrift.spec.datasets import TransferSpec
def read(name):
    try:
        part = open_dataset(TransferSpec(name=name, builtin=name)).parts["test"]
    except ClipdriftError as error:
        return str(error)
    pixels = [part.load(i).convert("RGB").getpixel((0, 0))[0] for i in range(len(part))]
    captions = None if part.captions is None else [list(own) for own in part.captions]
    return [len(part.class_names), part.labels.tolist(), pixels, captions]
found = {name: read(name) for name in sys.argv[1:]}
hub.answers = lambda *asked: False
print(json.dumps({**found, "offline": {name: read(name) for name in ("fer2013", "coco", "mnist")}}))
"""


def picture(level: int, kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(out, {"jpg": "JPEG"}.get(kind, kind), quality=100)
    return out.getvalue()


def shard(entry: Entry, suffix: str, labels: list[int]) -> bytes:
    """As CLIP_benchmark's webdataset_builder.py writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i, label in enumerate(labels):
            text = f"one {i}\ntwo {i}" if entry.caption_column else str(label)
            beside = entry.caption_column or entry.label_column
            for kind, data in ((suffix, picture(100 + 50 * i, suffix)), (beside, text.encode())):
                member = tarfile.TarInfo(f"s{i:07d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def table(entry: Entry, names: list[str], labels: list[int]) -> bytes:
    kinds = {
        entry.image_column: {"_type": "Image"},
        entry.label_column: {"_type": "ClassLabel", "names": names},
    }
    images = [{"bytes": picture(100 + 50 * i, "png"), "path": None} for i in range(len(labels))]
    rows = pa.table({entry.image_column: images, entry.label_column: labels})
    told = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    out = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata(told), out)
    return out.getvalue()


def repository(entries: dict[str, Entry]) -> Repository:
    """All splits that entries of one hub id name."""
    files: dict[str, bytes] = {}
    for name, entry in entries.items():
        last = [entry.n_classes - 1, 0]
        for split in filter(None, entry.splits.model_dump().values()):
            if str(entry.hub).startswith(SHARDS):
                # One shard beside one text: `datasets` would take such a folder for texts.
                data = shard(entry, SUFFIX.get(name, "jpg"), last)
                files |= {
                    split.replace("*", "0"): data,
                    split.replace("*.tar", "nshards.txt"): b"1",
                }
                saved = ["" if n == "neither near nor distant" else n for n in entry.class_names]
                files["classnames.txt"] = "".join(f"{n}\n" for n in saved).encode()
            else:
                names = OWN_NAMES.get(name, [n.replace(" ", "_") for n in entry.class_names])
                folder = TABLES.get(name, "data/")
                files[f"{folder}{split}-00000-of-00001.parquet"] = table(entry, names, last)
        if entry.config:
            files["README.md"] = (
                f"---\nconfigs:\n- config_name: {entry.config}\n  data_dir: {entry.config}\n---\n"
            ).encode()
    return Repository(files)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name -> what reading it gave, of all entries, in one process."""
    held: dict[str, dict[str, Entry]] = {}
    for name, entry in catalogue().items():
        if entry.hub is not None:
            held.setdefault(entry.hub, {})[name] = entry
    with LoopbackHub() as hub:
        hub.datasets.update({hub_id: repository(entries) for hub_id, entries in held.items()})
        names = [name for entries in held.values() for name in entries]
        return read(hub, tmp_path_factory.mktemp("hub"), names)


def read(hub: LoopbackHub, home: Path, names: list[str]) -> dict[str, Any]:
    settings = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.casefold() and k != "HF_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *names],
        env={**kept, **settings}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_set_of_the_hub_opens_with_its_columns_and_names(opened: dict[str, Any]) -> None:
    for name, entry in catalogue().items():
        if entry.hub is None:
            continue
        assert isinstance(opened[name], list), opened[name]
        count, labels, pixels, captions = opened[name]
        if entry.caption_column:
            assert captions == [["one 0", "two 0"], ["one 1", "two 1"]]
        else:
            assert (count, labels, captions) == (entry.n_classes, [entry.n_classes - 1, 0], None)
        assert [abs(got - wanted) < 9 for got, wanted in zip(pixels, (100, 150), strict=True)]


def test_what_was_fetched_once_opens_again_without_the_hub(opened: dict[str, Any]) -> None:
    for name, again in opened["offline"].items():
        assert again == opened[name]
