"""The real download code against a hub on this machine: whole, broken, stalled, refused, offline.

Every fetch runs in a process of its own, because the hub's library reads its settings when it is
imported, and may connect to nothing but 127.0.0.1. Waits between retries are skipped.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from loopback_hub import LoopbackHub, Repository
from PIL import Image
from safetensors.torch import load_file
from small_models import write_random_clip

from clipdrift.backbone import load_backbone
from clipdrift.spec.parts import BackboneSpec

WEIGHTS = "model.safetensors"
NEVER = ("pytorch_model.bin", "open_clip_model.safetensors")
"""The same weights once more, in an old file and for another library."""
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"
GUARD = """\
import json, socket, time
from clipdrift.errors import ClipdriftError
time.sleep = lambda seconds: None
connect = socket.socket.connect
def only_loopback(self, address):
    assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1", address
    return connect(self, address)
socket.socket.connect = only_loopback
def here_alone(host, *more, resolve=socket.getaddrinfo, **named):
    assert host == "127.0.0.1", host
    return resolve(host, *more, **named)
socket.getaddrinfo = here_alone
"""
MODELS = """
from clipdrift.hub import snapshot, watch
watch.WINDOW_SECONDS, watch.HEADERS_SECONDS = 2.0, 3.0
found = []
for repo_id, revision in {asked!r}:
    try:
        found.append({{"folder": str(snapshot(repo_id, revision))}})
    except ClipdriftError as error:
        found.append({{"refused": str(error)}})
print(json.dumps(found))
"""
DATA = """
from clipdrift.data.sources import open_dataset
from clipdrift.spec.datasets import TargetSpec
def read(fields):
    try:
        parts = open_dataset(TargetSpec(name="pets", **fields)).parts
    except ClipdriftError as error:
        return {{"refused": str(error)}}
    return {{
        name: [list(p.class_names), p.labels.tolist(), p.load(1).convert("RGB").getpixel((0, 0))]
        for name, p in parts.items()
    }}
print(json.dumps([read(fields) for fields in {asked!r}]))
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as served:
        yield served


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A random CLIP in safetensors beside what nobody fetches then; a SigLIP has a spiece.model."""
    folder = write_random_clip(tmp_path_factory.mktemp("clip"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Repository(
        {**files, "spiece.model": b"pieces", **dict.fromkeys(NEVER, b"never fetched")}
    )


def grey(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def parquet(levels: list[int], labels: list[int]) -> bytes:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    images = [{"bytes": grey(level), "path": f"{level}.png"} for level in levels]
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def pets(shift: int = 0) -> Repository:
    return Repository(
        {
            TRAIN: parquet([10 + shift, 20 + shift, 30, 40], [0, 1, 0, 1]),
            TEST: parquet([50, 60 + shift], [1, 0]),
        }
    )


def run(hub: LoopbackHub, home: Path, code: str, **env: str) -> Any:
    settings = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", **env,
    }  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.casefold() and k != "HF_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-c", GUARD + code],
        env={**kept, **settings}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def fetch(
    hub: LoopbackHub,
    home: Path,
    repo_id: str = "some/clip",
    revision: str | None = None,
    **env: str,
) -> dict[str, Any]:
    (found,) = fetch_all(hub, home, [(repo_id, revision)], **env)
    return found


def fetch_all(
    hub: LoopbackHub, home: Path, asked: list[tuple[str, str | None]], **env: str
) -> list[dict[str, Any]]:
    """What each of some models gives, in one process."""
    found: list[dict[str, Any]] = run(hub, home, MODELS.format(asked=asked), **env)
    return found


def read_all(hub: LoopbackHub, home: Path, asked: list[dict[str, Any]], **env: str) -> Any:
    """What each of some dataset specifications gives, in one process."""
    return run(hub, home, DATA.format(asked=[{"hub": "some/pets", **one} for one in asked]), **env)


def read(hub: LoopbackHub, home: Path, revision: str | None = None, **env: str) -> Any:
    (found,) = read_all(hub, home, [{"revision": revision}], **env)
    return found


def same_files(folder: str, repository: Repository) -> bool:
    wanted = {k: v for k, v in repository.files.items() if k not in NEVER}
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()} == wanted


def test_a_model_is_fetched_once_whole_and_without_pickled_weights(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models["some/clip"] = clip
    folder = fetch(hub, tmp_path)["folder"]
    assert same_files(folder, clip)
    assert Path(folder).name == clip.commit
    assert [hub.downloads(name) for name in (WEIGHTS, *NEVER)] == [[0], [], []]
    assert fetch(hub, tmp_path, revision=clip.commit) == {"folder": folder}
    assert hub.downloads(WEIGHTS) == [0]
    # What was fetched is then enough, as a model that computes, and asks nobody.
    asked = len(hub.asked)
    use = (
        "from clipdrift.backbone import load_backbone\n"
        "from clipdrift.spec.parts import BackboneSpec\n"
        "found = load_backbone(BackboneSpec(id='some/clip'))\n"
        "print(json.dumps([found.name, found.image_size, "
        "list(found.text_features([['a cat'], ['a dog']]).shape)]))"
    )
    assert run(hub, tmp_path, use, HF_HUB_OFFLINE="1") == ["some/clip", 12, [2, 8]]
    assert len(hub.asked) == asked


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    piece = 10 * 2**20  # what the client writes at a time; less than a piece is fetched again
    large = Repository({"config.json": b"{}", WEIGHTS: os.urandom(2**20) * 12})
    hub.models["some/clip"] = large
    hub.cut[WEIGHTS] = [1000, piece + 1000]
    assert same_files(fetch(hub, tmp_path)["folder"], large)
    assert hub.downloads(WEIGHTS) == [0, 0, piece]


def test_a_download_that_breaks_for_good_is_told_and_mended_by_running_again(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models["some/clip"] = clip
    hub.cut[WEIGHTS] = [1000] + [0] * 20
    text = fetch(hub, tmp_path)["refused"]
    assert text.startswith("backbone some/clip: expected a complete download, got ")
    assert text.endswith("Run again to resume it, or name a local folder.")
    assert 3 <= len(hub.downloads(WEIGHTS)) <= 10
    # A torn file is never mistaken for a whole one, on the net or off it.
    assert "refused" in fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    hub.cut.clear()
    assert same_files(fetch(hub, tmp_path)["folder"], clip)


def test_a_download_that_stalls_ends_with_a_timeout(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models["some/clip"] = clip
    hub.stalled.add(WEIGHTS)
    started = time.monotonic()
    text = fetch(hub, tmp_path)["refused"]
    assert "expected a complete download, got ReadTimeout" in text
    assert time.monotonic() - started < 40


def test_a_hub_that_takes_the_connection_and_says_nothing_is_not_waited_for(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models["some/clip"] = clip
    hub.silent = True
    started = time.monotonic()
    assert fetch(hub, tmp_path)["refused"] == (
        "backbone some/clip: expected a cached or reachable model, got no answer from the hub and "
        "no cached copy. Connect to the internet, or name a local folder."
    )
    assert "Couldn't reach 'some/pets'" in read(hub, tmp_path)["refused"]
    assert time.monotonic() - started < 30
    assert len(hub.asked) == 2
    hub.silent = False
    folder = fetch(hub, tmp_path)
    hub.silent = True
    assert fetch(hub, tmp_path) == folder


def test_models_that_the_hub_refuses_are_told_apart(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models = {
        "some/clip": clip,
        "gated/clip": Repository(clip.files, gated=True),
        "old/clip": Repository({"config.json": b"{}", "pytorch_model.bin": b"of torch"}),
        "empty/clip": Repository({"config.json": b"{}"}),
    }
    told: list[tuple[tuple[str, str | None], str]] = [
        (("no/clip", None), "expected a known hub id, got an unknown"),
        (("gated/clip", None), "got a gated repository"),
        (("some/clip", "v9"), "expected an existing revision, got 'v9'"),
        (("empty/clip", None), "expected weights as safetensors, or pytorch_model.bin, got none"),
    ]
    *refused, old = fetch_all(hub, tmp_path, [*(one for one, _ in told), ("old/clip", None)])
    for (_, words), found in zip(told, refused, strict=True):
        assert words in found["refused"]
    assert (Path(old["folder"]) / "pytorch_model.bin").is_file()
    assert hub.downloads("pytorch_model.bin") == [0]


def everything_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_a_hub_that_names_files_elsewhere_is_refused(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    """What it says is in the place of a name of a file of the cache."""
    secret = tmp_path / "secret.json"
    secret.write_text(clip.files["config.json"].decode())
    before = everything_in(tmp_path)
    named = "expected a commit or tag of letters and digits, got "
    hashed = "expected a commit or hash of letters and digits, got "
    up = "../../../../escaped"
    lies: list[tuple[dict[str, Any], str]] = [
        ({"headers": {"ETag": f'"{up}"'}}, named + repr(up)),
        ({"headers": {"ETag": f'W/"{up}"'}}, named + repr(up)),
        ({"headers": {"X-Linked-ETag": f'"{secret}"'}}, f"{named}'{secret}"[:120]),
        ({"headers": {"X-Repo-Commit": up}}, named + repr(up)),
        ({"told": {"sha": up}}, hashed + repr(up)),
        ({"told": {"sha": ["a", "list"]}}, f"{hashed}['a', 'list']"),
        ({"listed": {"lfs": {"oid": up, "size": 3, "pointerSize": 3}}}, hashed + repr(up)),
        ({"listed": {"path": f"{up}.json"}}, "files inside the repository, got '../../.."),
        ({"told": {"id": up}}, f"expected an id of a repository, got '{up}'"),
    ]
    for number, (lie, _) in enumerate(lies):
        hub.models[f"some/clip{number}"] = Repository(clip.files, **lie)
        hub.datasets[f"some/pets{number}"] = Repository(pets().files, **lie)
    told = fetch_all(hub, tmp_path / "home", [(f"some/clip{i}", None) for i in range(len(lies))])
    told += read_all(hub, tmp_path / "home", [{"hub": f"some/pets{i}"} for i in range(len(lies))])
    for (_, words), found in zip([*lies, *lies], told, strict=True):
        assert words in found.get("refused", ""), (words, found)
        assert "from a hub that you trust" in found["refused"]
    assert {path for path in everything_in(tmp_path) - before if path.parts[0] != "home"} == set()


def test_a_body_that_drips_or_has_no_end_is_given_up(
    hub: LoopbackHub, clip: Repository, tmp_path: Path
) -> None:
    hub.models = {
        "some/drips": Repository(clip.files, drips=0.4),
        "some/endless": Repository(clip.files, endless=True),
        "some/coy": Repository(clip.files, drips=0.4, coy=True),
    }
    started = time.monotonic()
    drips, endless, coy = fetch_all(hub, tmp_path, [(name, None) for name in hub.models])
    assert re.search(r"expected at least 1,000 bytes a second, got \d+ over 2 s", drips["refused"])
    assert "expected an answer within 3 s, got none" in coy["refused"]
    assert "expected a text of at most 64,000,000 bytes, got a longer one" in endless["refused"]
    assert time.monotonic() - started < 40


def test_a_dataset_is_fetched_read_and_kept_for_offline_use(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.datasets["some/pets"] = pets()
    wanted = {
        "train": [["a", "b"], [0, 1, 0, 1], [20, 20, 20]],
        "test": [["a", "b"], [1, 0], [60, 60, 60]],
    }
    assert read(hub, tmp_path) == wanted
    asked = len(hub.asked)
    assert read(hub, tmp_path, HF_HUB_OFFLINE="1") == wanted
    assert len(hub.asked) == asked
    text = read(hub, tmp_path / "elsewhere", HF_HUB_OFFLINE="1")["refused"]
    assert "Couldn't reach 'some/pets'" in text
    assert text.endswith("Connect once so that it is cached, or download it and use files:.")
    assert len(hub.asked) == asked


def test_a_pinned_revision_is_kept_offline_or_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    first, second = pets(), pets(shift=5)
    hub.datasets["some/pets"] = first
    before = read(hub, tmp_path, first.commit)
    hub.datasets["some/pets"] = second
    both = [{"revision": first.commit}, {"revision": second.commit}]
    kept, other = read_all(hub, tmp_path, both, HF_HUB_OFFLINE="1")
    assert kept == before
    assert other["refused"] == (
        f"pets.revision: expected some/pets at {second.commit}, got {first.commit} from the cache, "
        "and no answer from the hub. Connect to fetch that revision, or name the cached commit."
    )
    after = read(hub, tmp_path, "main")
    assert after["train"][2] == [25, 25, 25]
    assert read(hub, tmp_path, "main", HF_HUB_OFFLINE="1") == after


def test_a_dataset_cut_in_the_middle_is_resumed_or_told(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.datasets["some/pets"] = pets()
    hub.cut[TRAIN] = [300]
    assert read(hub, tmp_path / "a")["train"][1] == [0, 1, 0, 1]
    assert hub.downloads(TRAIN) == [0, 0]
    hub.cut[TRAIN] = [300] + [0] * 60
    text = read(hub, tmp_path / "b")["refused"]
    assert text.startswith(
        "pets.hub: expected the dataset some/pets from the Hugging Face Hub, got "
    )
    assert text.endswith("Run again to resume it, or download it and use files:.")
    hub.cut.clear()
    hub.stalled.add(TRAIN)
    assert "timed out. Run again to resume it" in read(hub, tmp_path / "c")["refused"]


def test_datasets_that_cannot_be_used_are_told_apart(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.datasets = {
        "some/pets": pets(),
        "gated/pets": Repository(pets().files, gated=True),
        "some/script": Repository({"script.py": b"raise SystemExit('was run')"}),
        "some/outside": Repository({TRAIN: parquet([1, 2, 3], [0, 1, 5])}),
        "some/lopsided": Repository(
            {TRAIN: parquet([1, 2], [0, 1]), TEST: parquet([3, 4], [0, 0])}
        ),
    }
    alone = {"train": "train", "test": None}
    cases = [
        ({"hub": "no/pets"}, "doesn't exist on the Hub", "Check the id and the revision"),
        ({"hub": "gated/pets"}, "is a gated dataset", "Accept its terms on huggingface.co"),
        ({"hub": "some/script"}, "scripts are no longer supported", "Use a Parquet copy of it"),
        ({"revision": "v9"}, "Revision 'v9' doesn't exist", "Check the id and the revision"),
        ({"hub_config": "birds"}, "BuilderConfig 'birds' not found", "Set hub_config to one of"),
        (
            {"hub": "some/outside", "hub_splits": alone},
            "labels in 0..1 for 2 class names, got 5 in 1 rows",
            "Correct the labels",
        ),
        (
            {"hub": "some/lopsided"},
            "the same classes in train and test, got 'b' only in train",
            "Add images to the other part",
        ),
        ({"image_column": "img"}, "(image, label), got 'img'", "Set image_column to the column"),
        (
            {"hub_splits": {"train": "train", "test": "validation"}},
            'Unknown split "validation"',
            "Set hub_splits to splits it has",
        ),
    ]
    found = read_all(hub, tmp_path, [fields for fields, _, _ in cases])
    for (_, said, step), told in zip(cases, found, strict=True):
        assert said in told["refused"]
        assert f". {step}" in told["refused"]


def repositories(open_clip_models: Path) -> dict[str, Repository]:
    """As LAION's, timm's and Apple's: safetensors, beside a tower of timm's, a file of torch's."""
    files = {
        name: {path.name: path.read_bytes() for path in (open_clip_models / name).iterdir()}
        for name in ("b32", "b32-quickgelu")
    }
    config = json.loads(files["b32-quickgelu"]["open_clip_config.json"])
    config["model_cfg"].pop("quick_gelu")  # an old repository that does not say it
    timm = {"config.json": b'{"architecture": "vit_base_patch32_clip_224"}'}
    timm |= {
        "model.safetensors": b"its image tower",
        "open_clip_config.json": json.dumps(config).encode(),
    }
    pickled = io.BytesIO()
    torch.save(load_file(open_clip_models / "b32" / "open_clip_model.safetensors"), pickled)
    old = {"open_clip_config.json": files["b32"]["open_clip_config.json"]}
    old["open_clip_pytorch_model.bin"] = pickled.getvalue()
    return {
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": Repository(files["b32"]),
        "timm/vit_base_patch32_clip_224.openai": Repository({**files["b32-quickgelu"], **timm}),
        "apple/old": Repository(old),
    }


USE = """
import torch
from clipdrift.backbone import load_backbone
from clipdrift.spec.parts import BackboneSpec
found = {{}}
for name in {names!r}:
    try:
        one = load_backbone(BackboneSpec(id=name))
        found[name] = [one.model.config.vision_config.hidden_act,
                       one.live_encoder()(one.trial_images()).sum().item(), one.name]
    except ClipdriftError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_repositories_with_files_of_open_clip_alone_are_read_by_tag_and_by_id(
    hub: LoopbackHub, open_clip_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(tmp_path / "own"))
    hub.models |= repositories(open_clip_models)
    tags = ("open_clip:ViT-B-32/laion2b_s34b_b79k", "ViT-B-32/openai", "ViT-B-32/opena")
    ids = ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "apple/old")
    names = [*tags, *ids]
    found = run(hub, tmp_path, USE.format(names=names), CLIPDRIFT_CACHE=str(tmp_path / "cache"))
    plain, quick = (total(open_clip_models / name) for name in ("b32", "b32-quickgelu"))
    for name in (tags[0], *ids):
        assert found[name] == ["gelu", pytest.approx(plain, rel=1e-4), name]
    # The tag says QuickGELU, whatever the repository says.
    assert found[tags[1]] == ["quick_gelu", pytest.approx(quick, rel=1e-4), tags[1]]
    assert "expected a tag of ViT-B-32's, got 'opena'. Did you mean 'openai'?" in found[tags[2]]
    assert hub.downloads("model.safetensors") == []


def total(folder: Path) -> float:
    with torch.inference_mode():
        found = load_backbone(BackboneSpec(id=str(folder)))
        return found.live_encoder()(found.trial_images()).sum().item()
