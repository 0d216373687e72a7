"""Paths from outside: what leads out of a folder, and what is no file to read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipdrift.paths import leads_out, read_file


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
