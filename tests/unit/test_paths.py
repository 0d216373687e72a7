"""Paths from outside: what leads out of a folder, and what is no file to read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clipdrift.backbone.content import folder_hash
from clipdrift.paths import leads_out, read_file, unfit_model_files


def test_links_and_dots_are_followed_before_paths_are_compared(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    (home / "a").mkdir(parents=True)
    (out / "b").mkdir(parents=True)
    (home / "inside").symlink_to(home / "a")
    (home / "outside").symlink_to(out)
    (home / "loop").symlink_to(home / "loop")
    (tmp_path / "alias").symlink_to(home)
    for path in (".", "a", "a/x.png", "inside/x.png", "a/../a/y", "not/there"):
        assert not leads_out(home / path, home), path
        assert not leads_out(tmp_path / "alias" / path, home), path
        assert not leads_out(home / path, tmp_path / "alias"), path
    for path in ("..", "../home2", "outside", "outside/b/x.png", "a/../../out", "/etc", "a\0"):
        assert leads_out(home / path, home), path
    assert leads_out(tmp_path / "home2", home)


def test_links_out_of_a_models_folder_are_named(tmp_path: Path) -> None:
    model, secret = tmp_path / "m", tmp_path / "secret"
    model.mkdir()
    secret.write_text("key")
    (model / "config.json").write_text("{}")
    for name, goal in {
        "vocab.json": "config.json",  # its own
        "README.md": "../secret",  # not read
        "notes.txt": "../secret",
        "model.safetensors": "../secret",
        "merges.txt": "../not/there",
    }.items():
        (model / name).symlink_to(goal)
    said = "expected a file of the folder itself, got a link out of it. Copy it there."
    assert [str(fault) for fault in unfit_model_files(model)] == [
        f"{model / name}: {said}" for name in ("merges.txt", "model.safetensors", "notes.txt")
    ]


def test_pipes_in_a_models_folder_are_named_and_folders_are_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "photo.png")
    (tmp_path / "more.json").mkdir()
    (fault,) = unfit_model_files(tmp_path)
    assert str(fault) == (
        f"{tmp_path / 'config.json'}: expected a plain file, got a pipe, socket or device. "
        "Remove it."
    )
    assert folder_hash(tmp_path) == hashlib.sha256().hexdigest()


def test_blobs_of_a_hubs_cache_are_a_snapshots_own(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (blobs / "123").write_text("{}")
    (tmp_path / "models--a--b" / "secret").write_text("key")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (tmp_path / "alias").symlink_to(snapshot)
    assert unfit_model_files(snapshot) == unfit_model_files(tmp_path / "alias") == []
    (snapshot / "notes.txt").symlink_to("../../secret")
    assert [fault.where for fault in unfit_model_files(snapshot)] == [str(snapshot / "notes.txt")]


def test_only_plain_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert read_file(tmp_path / "x", 5) == read_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="at most 0 MB are read"):
        read_file(tmp_path / "x", 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no plain file"):  # a reader would wait without end
        read_file(tmp_path / "pipe", 5)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(OSError, match="3,000 MB, where at most 250 MB"):
        read_file(tmp_path / "sparse", 250_000_000)
    with pytest.raises(OSError, match="a folder"):
        read_file(tmp_path, 5)
    for name in ("none", "a\0b", "\ud800", "x" * 300):
        with pytest.raises(OSError, match=r"(?i)no such file|name too long"):
            read_file(tmp_path / name, 5)


def test_a_file_that_does_not_know_its_size_is_read_no_further() -> None:
    with pytest.raises(OSError, match="at most"):
        read_file(Path("/proc/self/maps"), 20)
