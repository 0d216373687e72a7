"""What a hub says of a model: of the repository, of its files, and before each of them."""

from __future__ import annotations

import copy
import json
from functools import reduce
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import httpx2
from fuzz.strategies import ODD_TEXTS, as_json, edited
from fuzz.target import Target
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from clipdrift.hub import snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOLD = {
    "info": {"id": "some/clip", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]},
    "files": [
        {"type": "file", "path": "config.json", "size": 2, "oid": COMMIT},
        {
            "type": "file", "path": "model.safetensors", "size": 2, "oid": COMMIT,
            "lfs": {"oid": "ab" * 32, "size": 2, "pointerSize": 9}, "xetHash": "cd" * 32,
        },
    ],
    "headers": {"ETag": f'"{COMMIT}"', "X-Repo-Commit": COMMIT},
}  # fmt: skip


def feed(data: bytes, folder: Path) -> None:
    """A model is fetched from a hub that answers so; what it fetches is two bytes a file."""
    try:
        told = json.loads(data)
        info, files, headers = told["info"], told["files"], dict(told["headers"])
        sent = httpx2.Headers({str(key): str(value) for key, value in headers.items()})
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # no answer that HTTP could carry

    def answer(request: Any) -> Any:
        path = unquote(request.url.path)
        if "/resolve/" in path:
            return httpx2.Response(200, headers=sent, content=b"{}")
        text = as_json(files if "/tree/" in path else info)
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=text)

    def client() -> Any:
        return httpx2.Client(transport=httpx2.MockTransport(answer))

    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(client)
    here = {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": False}
    try:
        with patch.multiple(constants, **here):
            snapshot("some/clip", None)
    finally:
        set_client_factory(before)
        _require_own_places(folder / "hub")


def _require_own_places(cache: Path) -> None:
    """Files lie in the folder of the model, and lead nowhere else."""
    own = cache / "models--some--clip"
    made = {path.name for path in cache.glob("*")} if cache.exists() else set()
    assert made <= {own.name, ".locks", "CACHEDIR.TAG"}, made
    known = {"blobs", "refs", "snapshots", "trees", ".no_exist"}
    assert {path.name for path in own.glob("*")} <= known
    for path in own.rglob("*"):
        assert path.resolve().is_relative_to(own.resolve()), path


PLACES = (
    *(("info", "sha"), ("info", "id"), ("info", "siblings", 0, "rfilename")),
    *(("files", 1, "path"), ("files", 1, "oid"), ("files", 1, "xetHash")),
    *(("files", 1, "lfs", "oid"), ("headers", "ETag"), ("headers", "X-Repo-Commit")),
)
"""Where an answer names what becomes a file."""
ELSEWHERE = ('"../../up"', "../../up", "../../../up.json", 'W/"../../up"', '"/etc/hostname"')


def shaped() -> SearchStrategy[bytes]:
    """Answers with one name replaced, and some with anything replaced."""
    names = st.sampled_from(ELSEWHERE) | st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
    named = st.tuples(st.sampled_from(PLACES), names).map(lambda pair: _naming(*pair))
    return named | edited([TOLD]).map(as_json)


def _naming(place: tuple[str | int, ...], name: str) -> bytes:
    told: Any = copy.deepcopy(TOLD)
    *way, last = place
    reduce(lambda part, key: part[key], way, told)[last] = name
    return as_json(told)


def seeds() -> list[bytes]:
    return [as_json(TOLD)]


TARGETS = [Target("answers of a hub", feed, seeds, shaped, share=0.5)]
