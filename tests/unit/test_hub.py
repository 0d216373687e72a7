"""Models from a hub: what is fetched, and what is said when it cannot be. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from small_models import write_random_clip

from clipdrift.backbone import load_backbone
from clipdrift.errors import BackboneError
from clipdrift.hub import snapshot
from clipdrift.spec.parts import BackboneSpec

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that cannot be asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def cached(cache: Path, repo_id: str) -> Path:
    """Folder of a repository's snapshot in the hub's own cache layout."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    folder = repository / "snapshots" / SHA
    folder.mkdir(parents=True)
    return folder


def refusal(repo_id: str, revision: str | None = None) -> str:
    with pytest.raises(BackboneError) as caught:
        snapshot(repo_id, revision)
    return str(caught.value)


def test_a_cached_model_loads_without_network(cache: Path) -> None:
    write_random_clip(cached(cache, "some/clip"))
    backbone = load_backbone(BackboneSpec(id="some/clip"))
    assert (backbone.name, backbone.image_size) == ("some/clip", 12)
    assert snapshot("some/clip", SHA) == snapshot("some/clip", None)


def test_offline_without_a_copy_is_said(cache: Path) -> None:
    assert refusal("some/clip") == (
        "backbone some/clip: expected a cached or reachable model, got HF_HUB_OFFLINE set and no "
        "cached copy. Connect to the internet, or name a local folder."
    )


def test_offline_with_another_revision_is_said(cache: Path) -> None:
    write_random_clip(cached(cache, "some/clip"))
    assert "no cached copy" in refusal("some/clip", "v2")


def test_a_model_without_weights_is_refused(cache: Path) -> None:
    folder = cached(cache, "some/clip")
    (folder / "config.json").write_text("{}")
    assert refusal("some/clip") == (
        "backbone some/clip: expected weights as safetensors, or pytorch_model.bin, got none at "
        "this revision. Name a revision that has them, or convert the model."
    )
    (folder / "pytorch_model.bin").write_bytes(b"looked at where it is loaded")
    assert snapshot("some/clip", None) == folder


@pytest.mark.parametrize("repo_id", ["a/b/c", "no spaces", "a--b/c", "-a"])
def test_what_is_no_hub_id_is_said(cache: Path, repo_id: str) -> None:
    assert "expected a folder or a hub id, got" in refusal(repo_id)


@pytest.mark.parametrize(
    ("kind", "expected", "step"),
    [
        (errors.GatedRepoError, "access, got a gated repository", "set HF_TOKEN."),
        (errors.RevisionNotFoundError, "an existing revision, got 'v9'", "backbone.revision."),
        (errors.RepositoryNotFoundError, "a known hub id, got an unknown", "for a private one."),
        (
            errors.LocalEntryNotFoundError,
            "a cached or reachable model, got no answer",
            "folder.",
        ),
        (
            ConnectionResetError,
            "a complete download, got ConnectionResetError: half way",
            "folder.",
        ),
    ],
)
def test_refusals_of_the_hub_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], expected: str, step: str
) -> None:
    error = kind.__new__(kind)  # the hub's errors want a whole HTTP response to be built from
    error.args = ("half\n way",)

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    text = refusal("some/clip", "v9")
    assert text.startswith(f"backbone some/clip: expected {expected}")
    assert text.endswith(step)


def test_only_configuration_weights_and_tokenizer_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        (tmp_path / "model.safetensors").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert snapshot("some/clip", "v1") == tmp_path
    assert asked == {
        "repo_id": "some/clip",
        "revision": "v1",
        "allow_patterns": ["*.json", "*.txt", "spiece.model", "*.safetensors"],
        "ignore_patterns": ["open_clip_model*"],
        "local_files_only": True,
    }
