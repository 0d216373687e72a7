"""Disks that are full or may not be written, under a study that is being measured."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import InProcess
from tiny_study import tiny

from clipdrift.errors import ClipdriftError
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec
from clipdrift.study.measure import Outcome, run_study


def measure_here(spec: StudySpec, out: Path, cache: Path) -> Outcome:
    """In this process, where what fails is the writing of files."""
    return run_study(spec, out, cache_dir=cache, executor=InProcess())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_the_study_goes_on(small_disk: Path, cache_dir: Path) -> None:
    spec = tiny(seeds=[7, 11, 19], methods=["full_ft"])
    with pytest.raises(ClipdriftError, match=r"No space left on device|got .*space"):
        measure_here(spec, small_disk / "out", cache_dir)
    remount(small_disk, "size=200m")
    outcome = measure_here(spec, small_disk / "out", cache_dir)
    assert (outcome.failed, outcome.kept + outcome.measured) == ({}, 3)
    assert StudyFolder(small_disk / "out").records()[1] == []


def test_a_folder_that_becomes_read_only_is_told(small_disk: Path, cache_dir: Path) -> None:
    remount(small_disk, "size=200m")
    measure_here(tiny(), small_disk / "out", cache_dir)
    remount(small_disk, "ro")
    with pytest.raises(ClipdriftError, match="Read-only file system"):
        measure_here(tiny(seeds=[7, 11]), small_disk / "out", cache_dir)
    remount(small_disk, "rw")
    outcome = measure_here(tiny(seeds=[7, 11]), small_disk / "out", cache_dir)
    assert (outcome.kept, outcome.measured) == (1, 1)
