"""A study as one file: what its analysis reads, with hashes, licence and citation."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipdrift.errors import Fault, RecordError, StudyFolderError
from clipdrift.paths import leads_out, read_file
from clipdrift.records.bundle_card import card
from clipdrift.records.folder import AnyFolder, StudyFolder
from clipdrift.records.writing import OURS, atomic_write, writing_to

SUFFIX = ".tar.xz"
MANIFEST, README = "bundle.json", "README.md"
NAME = OURS.pattern
RECORDS = re.compile(
    rf"(study\.yaml|(plan|race)\.json|located/{NAME}\.json|after/({NAME}/)*{NAME}\.json"
    rf"|runs/{NAME}/(record\.json|(probe|transfer)_images\.parquet))"
)
WEIGHTS = re.compile(rf"runs/{NAME}/({NAME}/)*({NAME}\.safetensors|classes\.json|adapter_{NAME})")
IMAGES = re.compile(rf"runs/{NAME}/({NAME}/)*{NAME}\.(png|jpg|webp)")
"""Nothing else is written or taken; no such name is absolute or leads up."""
MAX_FILE, MAX_TOTAL, MAX_FILES = 1_000_000_000, 4_000_000_000, 100_000
"""Bytes of a file and of all, unpacked, and how many files."""
MEMORY = 200_000_000
"""Bytes that unpacking may take; xz at its highest level takes 65 MB."""
STEP = "Ask for the bundle again: it is damaged, or was not made by 'clipdrift bundle'"


class Entry(BaseModel):
    """A file of a bundle."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    bytes: int = Field(ge=0, le=MAX_FILE)


class Manifest(BaseModel):
    """What a bundle says of itself. licence: its SPDX id; null where nobody stated one."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["clipdrift-bundle-1"] = "clipdrift-bundle-1"
    title: str = Field(max_length=200)
    licence: str | None = Field(None, pattern=r"^[A-Za-z0-9.+-]{1,60}$")
    citation: str | None = Field(None, max_length=5_000)
    files: dict[str, Entry] = Field(max_length=MAX_FILES)

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode() + b"\n"


def is_bundle(path: Path) -> bool:
    """By its name: a file of any other is taken for a table."""
    return path.name.endswith(SUFFIX) and not path.is_dir()


def write_bundle(
    folder: StudyFolder,
    out: Path,
    *,
    title: str | None = None,
    licence: str | None = None,
    citation: str | None = None,
    weights: bool = False,
    images: bool = False,
) -> Manifest:
    """Write what the analysis of a study reads, the same bytes for the same study.

    Raises:
        RecordError: if a record cannot be used, or what is said of the study is no text that fits.
        StudyFolderError: if the folder is not there, has a file that is not its own, or `out`
            cannot be written.
    """
    records, faults = folder.records()
    if faults or not records:
        nothing = Fault(str(folder.path), "at least one record", "none", "Run the study first")
        raise RecordError(faults or [nothing])
    if not out.name.endswith(SUFFIX):
        step = f"Name it {out.name.partition('.')[0] or 'study'}{SUFFIX}"
        raise StudyFolderError(Fault(str(out), f"a name that ends in {SUFFIX}", out.name, step))
    patterns = [RECORDS, *([WEIGHTS] if weights else []), *([IMAGES] if images else [])]
    files = dict(_files(folder.path, patterns))
    lacking = {f"runs/{record.run_id}/record.json" for record in records} - files.keys()
    if lacking:
        step = "Rename the method or dataset that it is called by"
        odd = Fault(str(folder.path), "names of letters, digits, . _ -", min(lacking), step)
        raise StudyFolderError(odd)
    before = read_manifest(folder)
    entries = {
        name: Entry(sha256=sha256(data).hexdigest(), bytes=len(data))
        for name, path in files.items()
        for data in [read_file(path, MAX_FILE)]
    }
    said = {"title": title, "licence": licence, "citation": citation}
    given = {} if before is None else before.model_dump(include=set(said))
    given |= {key: value for key, value in said.items() if value is not None}
    given.setdefault("title", records[0].study)
    manifest = _checked({**given, "files": entries}, folder.path)
    own = {MANIFEST: manifest.to_json(), README: card(manifest, records).encode()}
    with writing_to(out), _half_written(out) as half, tarfile.open(half, "w:xz") as archive:
        for name, text in own.items():
            _add(archive, name, text)
        for name, path in files.items():
            _add(archive, name, read_file(path, MAX_FILE))
    return manifest


def _files(root: Path, patterns: list[re.Pattern[str]]) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not any(pattern.fullmatch(name) for pattern in patterns) or not path.is_file():
            continue
        if leads_out(path, root):
            step = "Put the file itself there"
            raise StudyFolderError(
                Fault(str(path), "a file of the study", "a link out of it", step)
            )
        yield name, path


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    item = tarfile.TarInfo(name)  # no date, no owner
    item.size = len(data)
    archive.addfile(item, io.BytesIO(data))


@contextmanager
def _half_written(out: Path) -> Iterator[Path]:
    """A file beside, that takes the name once it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as scratch:
        yield Path(scratch) / out.name
        os.replace(Path(scratch) / out.name, out)


def read_manifest(folder: StudyFolder) -> Manifest | None:
    """What the bundle said that a folder was opened from; None of any other folder.

    Raises:
        RecordError: if it is damaged.
    """
    path = folder.path / MANIFEST
    if not path.exists():
        return None
    return _manifest(read_file(path, MAX_FILE), path)


def open_bundle(path: Path, out: Path) -> Manifest:
    """Make the study folder again, whole or not at all: every file by its hash.

    Only files that a study folder has are taken, no links, no more bytes than the bundle says.

    Raises:
        RecordError: if it is no bundle, damaged, or too large.
        StudyFolderError: if `out` is not new or empty, nor the same bundle opened before.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing_to(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=".open-") as scratch:
        new = StudyFolder(Path(scratch) / "study")
        manifest = _unpack(path, new)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if out.exists():
            if not out.is_dir() or read_manifest(StudyFolder(out)) != manifest:
                step = "Choose another --out; studies are kept apart"
                raise StudyFolderError(Fault(str(out), "a new or empty folder", "another", step))
            return manifest
        shutil.move(new.path, out)
    return manifest


@contextmanager
def opened(place: AnyFolder) -> Iterator[tuple[StudyFolder, Manifest | None]]:
    """A study folder as it is, without a manifest; or a bundle, opened for as long as this is.

    Raises:
        RecordError: if it is a bundle that cannot be opened.
    """
    folder = StudyFolder.at(place)
    if not (folder.path.is_file() and is_bundle(folder.path)):
        yield folder, None
        return
    with tempfile.TemporaryDirectory(prefix="clipdrift-") as scratch:
        copy = StudyFolder(Path(scratch) / "study")
        yield copy, open_bundle(folder.path, copy.path)


def _unpack(path: Path, folder: StudyFolder) -> Manifest:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Unpacked(file), mode="r|") as archive:
            members = iter(archive)
            first = next(members, None)
            manifest = _manifest(_read(archive, first, MANIFEST), path)
            folder.create()
            left = dict(manifest.files)
            for member in members:
                if member.name == README:
                    atomic_write(folder.path / README, _read(archive, member, README))
                    continue
                entry = left.pop(member.name, None)
                if entry is None or member.size != entry.bytes:
                    raise ValueError(f"{member.name[:100]!r}, which it does not list so")
                data = _read(archive, member, member.name)
                if sha256(data).hexdigest() != entry.sha256:
                    raise ValueError(f"another hash of {member.name}")
                place = folder.path / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            if left:
                raise ValueError(f"no {min(left)}")
    except (ValueError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise RecordError(Fault(str(path), "a bundle of a study", str(error), STEP)) from None
    atomic_write(folder.path / MANIFEST, manifest.to_json())
    return manifest


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> bytes:
    file = None
    if member is not None and member.name == name and member.isreg() and member.size <= MAX_FILE:
        file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"no file {name} in its place")
    return file.read()


def _manifest(data: bytes, path: Path) -> Manifest:
    try:
        found = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RecordError(Fault(f"{path} {MANIFEST}", "a list of its files", got, STEP)) from None
    allowed = (RECORDS, WEIGHTS, IMAGES)
    odd = [n for n in found.files if not any(pattern.fullmatch(n) for pattern in allowed)]
    if odd:
        got = repr(odd[0][:200])
        raise RecordError(Fault(f"{path} {MANIFEST}", "files of a study folder", got, STEP))
    if sum(entry.bytes for entry in found.files.values()) > MAX_TOTAL:
        rule = f"at most {MAX_TOTAL / 1e9:g} GB of files"
        raise RecordError(Fault(f"{path} {MANIFEST}", rule, "more", "Leave out weights and images"))
    return found


def _checked(given: dict[str, Any], where: Path) -> Manifest:
    try:
        return Manifest.model_validate(given)
    except ValidationError as error:
        rules = {
            "licence": ("--licence", "an SPDX id", "Give one such as CC-BY-4.0"),
            "title": ("--title", "at most 200 characters", "Shorten it"),
            "citation": ("--citation", "at most 5,000 characters", "Shorten it"),
        }
        other = (str(where), f"at most {MAX_FILES:,} files of 1 GB", "Leave out weights")
        faults = []
        for one in error.errors():
            at, rule, step = rules.get(str(one["loc"][0]), other)
            faults.append(Fault(at, rule, repr(str(one["input"])[:80]), step))
        raise RecordError(faults) from None


class _Unpacked(io.RawIOBase):
    """Bytes of an xz file, as many as are asked for; refuses to grow beyond its bounds."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file, self.left = file, MAX_TOTAL + MAX_FILES * 2048
        self.xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def read(self, size: int = -1) -> bytes:
        out = b""
        while len(out) < size and not self.xz.eof:
            given = self.file.read(65536) if self.xz.needs_input else b""
            if self.xz.needs_input and not given:
                raise EOFError("a file that ends early")
            out += self.xz.decompress(given, size - len(out))
        self.left -= len(out)
        if self.left < 0:
            raise ValueError("more bytes than a bundle may hold")
        return out
