"""A study as one file: the same bytes each time, opened whole by its hashes or not at all."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

import clipdrift
from clipdrift.errors import RecordError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write, bundle


@pytest.fixture
def study(make_records: Callable[..., list[RunRecord]], tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    for record in make_records(targets=("digits",), seeds=(1, 2), blocks=1):
        atomic_write(folder.record_path(record.run_id), record.to_json())
    run = next(folder.runs_path.iterdir())
    (run / "vision.safetensors").write_bytes(b"weights")
    (run / "attention").mkdir()
    (run / "attention" / "a.png").write_bytes(b"picture")
    (run / "notes.txt").write_text("secret")
    return folder


def named(path: Path) -> list[str]:
    with tarfile.open(path, "r:xz") as archive:
        return archive.getnames()


def test_the_same_study_gives_the_same_bytes_wherever_it_lies(
    study: StudyFolder, tmp_path: Path
) -> None:
    first, again = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    said = {"title": "Digits <b>", "licence": "CC-BY-4.0", "citation": "Someone (2026)"}
    made = clipdrift.bundle(study, first, **said)
    assert not any(name.endswith((".safetensors", ".png", ".txt")) for name in named(first))
    clipdrift.import_runs(first, None, tmp_path / "opened")
    clipdrift.bundle(tmp_path / "opened", again)  # what was said of it is kept
    assert first.read_bytes() == again.read_bytes()
    opened = StudyFolder(tmp_path / "opened")
    assert opened.records() == study.records()
    for name, entry in made.files.items():
        assert sha256((opened.path / name).read_bytes()).hexdigest() == entry.sha256
    head, _, body = (opened.path / "README.md").read_text()[4:].partition("---\n")
    found = yaml.safe_load(head)
    assert (found["license"], found["pretty_name"]) == ("cc-by-4.0", "Digits <b>")
    assert "<b>" not in body
    assert "Someone (2026)" in body


def test_weights_and_images_go_in_when_asked(study: StudyFolder, tmp_path: Path) -> None:
    clipdrift.bundle(study, tmp_path / "a.tar.xz", weights=True, images=True)
    ends = {Path(name).name for name in named(tmp_path / "a.tar.xz")}
    assert {"vision.safetensors", "a.png"} <= ends
    assert "notes.txt" not in ends
    clipdrift.import_runs(tmp_path / "a.tar.xz", None, tmp_path / "opened")
    assert next((tmp_path / "opened").rglob("a.png")).read_bytes() == b"picture"


def packed(path: Path, files: dict[str, bytes], *, listed: dict[str, Any] | None = None) -> Path:
    """A file like a bundle with any content, and a list that fits it unless another is given."""
    own = {n: {"sha256": sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()}
    entries = own if listed is None else listed
    manifest = {"format": "clipdrift-bundle-1", "title": "t", "files": entries}
    with tarfile.open(path, "w:xz") as archive:
        for name, data in {"bundle.json": json.dumps(manifest).encode(), **files}.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name",
    ["../plan.json", "/tmp/plan.json", "runs/../../plan.json", "runs/a/.bashrc", "runs/a/x.py",
     "C:/plan.json", "runs/a/..", "runs/a\\b/record.json"],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.tar.xz", {name: b"{}"})
    with pytest.raises(RecordError, match="expected files of a study folder"):
        clipdrift.import_runs(path, None, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.xz", "deep"]


@pytest.mark.parametrize(
    ("listed", "got"),
    [
        ({"plan.json": {"sha256": "0" * 64, "bytes": 2}}, "another hash of plan.json"),
        ({"plan.json": {"sha256": "0" * 64, "bytes": 3}}, "'plan.json', which it does not list so"),
        ({}, "'plan.json', which it does not list so"),
        ({"plan.json": {"sha256": "0" * 64, "bytes": 10**10}}, "less than or equal to 1000000000"),
    ],
)
def test_content_is_held_by_its_hash(tmp_path: Path, listed: dict[str, Any], got: str) -> None:
    path = packed(tmp_path / "a.tar.xz", {"plan.json": b"{}"}, listed=listed)
    with pytest.raises(RecordError) as caught:
        clipdrift.import_runs(path, None, tmp_path / "out")
    assert got in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = {"plan.json": {"sha256": sha256(b"").hexdigest(), "bytes": 0}}
    manifest = {"format": "clipdrift-bundle-1", "title": "t", "files": entry}
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        data = json.dumps(manifest).encode()
        item = tarfile.TarInfo("bundle.json")
        item.size = len(data)
        archive.addfile(item, io.BytesIO(data))
        item = tarfile.TarInfo("plan.json")
        item.type, item.linkname = kind, "/etc/passwd"
        archive.addfile(item)
    with pytest.raises(RecordError, match=r"no file plan.json in its place"):
        clipdrift.import_runs(tmp_path / "a.tar.xz", None, tmp_path / "out")


def test_what_grows_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.tar.xz", {"runs/a/record.json": b" " * 3_000_000})
    monkeypatch.setattr(bundle, "MAX_TOTAL", 1_000_000)
    monkeypatch.setattr(bundle, "MAX_FILES", 1)
    with pytest.raises(RecordError, match=r"expected at most 0.001 GB of files, got more"):
        clipdrift.import_runs(path, None, tmp_path / "out")
    path = packed(tmp_path / "b.tar.xz", {"runs/a/record.json": b" " * 3_000_000}, listed={})
    with tarfile.open(path, "w:xz") as archive:  # a header of a header
        item = tarfile.TarInfo("x")
        item.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(item)
    with pytest.raises(RecordError, match="more bytes than a bundle may hold"):
        clipdrift.import_runs(path, None, tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"no archive", lzma.compress(b""), lzma.compress(b"x" * 999)]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.xz").write_bytes(data)
    with pytest.raises(RecordError, match="expected a bundle of a study"):
        clipdrift.import_runs(tmp_path / "a.tar.xz", None, tmp_path / "out")


def test_a_cut_bundle_leaves_nothing(study: StudyFolder, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    clipdrift.bundle(study, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecordError, match="expected a bundle of a study"):
        clipdrift.import_runs(path, None, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.xz", "study"]


def test_it_takes_no_folder_of_another_study(study: StudyFolder, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    clipdrift.bundle(study, path)
    clipdrift.import_runs(path, None, tmp_path / "out")
    clipdrift.import_runs(path, None, tmp_path / "out")  # opened before: nothing to do
    with pytest.raises(StudyFolderError, match="expected a new or empty folder"):
        clipdrift.import_runs(path, None, study.path)


def test_what_cannot_be_bundled_is_told(study: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(StudyFolderError, match=r"ends in .tar.xz, got a.zip. Name it a.tar.xz"):
        clipdrift.bundle(study, tmp_path / "a.zip")
    with pytest.raises(RecordError, match=r"--licence: expected an SPDX id, got 'CC BY 4.0'"):
        clipdrift.bundle(study, tmp_path / "a.tar.xz", licence="CC BY 4.0")
    clipdrift.bundle(study, tmp_path / "a.tar.xz")
    with pytest.raises(StudyFolderError, match="Open a bundle first: clipdrift import"):
        clipdrift.choose(tmp_path / "a.tar.xz")
    record = next(study.runs_path.glob("*/record.json"))
    record.write_text(record.read_text().replace("digits", "other"))
    with pytest.raises(RecordError, match="checksum"):
        clipdrift.bundle(study, tmp_path / "b.tar.xz")
    assert not (tmp_path / "b.tar.xz").exists()
