"""Images in folders: a sub-folder per class, or `train/`, `test/` and maybe `val/` of such folders.

Of a transfer dataset with parts, only `test/` is read.

Names that begin with a dot are ignored. Files without an image suffix are counted by suffix.
Links are followed as long as they stay inside the folder; one that leaves it is a fault, so that a
folder never reads more than it shows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from clipdrift.data.decode import MORE, open_image, suffixes
from clipdrift.data.labels import WrittenLabels, number_labels
from clipdrift.data.naming import composed
from clipdrift.data.parts import DatasetParts, ImagePart, file_stamp, identity_of
from clipdrift.errors import DataError, Fault, UnavailableError, brief, did_you_mean
from clipdrift.paths import leads_out
from clipdrift.spec.datasets import DatasetSpec, SplitFiles, TransferSpec

TRAIN_AND_TEST = SplitFiles(train="train", test="test")
VALIDATION = ("val", "valid", "validation")
"""What a part for validation is called, beside the two others."""
SHOWN = 5


class _Listing:
    """The images of one part, with the faults and the ignored files met on the way."""

    def __init__(self, root: Path, where: str, skipped: Collection[str]) -> None:
        """skipped: class folders that are left out."""
        self.root, self.where = root, where
        self.skipped = {composed(name) for name in skipped}
        self.files: list[Path] = []
        self.labels: list[str] = []
        self.faults: list[Fault] = []
        self.ignored: Counter[str] = Counter()

    def read(self, part: Path) -> None:
        """List every class folder of `part`."""
        classes, stray = 0, []
        for entry in self._visible(part) if self._stays(part) else ():
            if composed(entry.name) in self.skipped:
                continue
            if os.path.isdir(entry):
                classes += 1
                self._read_class(entry)
            elif entry.suffix.lower() in suffixes():
                stray.append(self._shown(entry))
            else:
                self.ignored[entry.suffix.lower()] += 1
        if stray:
            many = f"{', ... ' if len(stray) > SHOWN else ' '}({len(stray):,} images)"
            got = f"{', '.join(stray[:SHOWN])}{many}" if stray[1:] else f"the image {stray[0]}"
            self._fault("class folders", f"{got} outside of them")
        if classes < 2 and not self.faults:
            self._fault(
                "two or more class folders",
                f"{classes} in {self._shown(part)}",
                "Put the images of each class into a folder with its name",
            )

    def _read_class(self, folder: Path) -> None:
        before, nested = len(self.files), []
        ignored: Counter[str] = Counter()
        for entry in self._visible(folder):
            if os.path.isdir(entry):
                nested.append(entry.name)
            elif entry.suffix.lower() in suffixes():
                self.files.append(entry)
                self.labels.append(folder.name)
            else:
                ignored[entry.suffix.lower()] += 1
        self.ignored += ignored
        if nested:
            self._fault(
                "class folders that hold images only",
                f"folders in {self._shown(folder)}: {', '.join(nested[:5])}",
                "Name the folder whose sub-folders are the classes, or name it under skip_classes",
            )
        elif len(self.files) == before:
            step = "Remove the folder, name it under skip_classes, or add images "
            step += f"({', '.join(sorted(suffixes()))})"
            if readers := _readers(ignored):
                step = f"Install {readers}, or convert them"
            self._fault(
                "images in every class folder",
                f"none in {self._shown(folder)}" + (f" ({_kinds(ignored)})" if ignored else ""),
                step,
            )

    def _visible(self, folder: Path) -> Iterator[Path]:
        try:
            entries = sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError as error:
            self._fault("a folder that can be read", f"{self._shown(folder)}: {error.strerror}")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if self._stays(entry):
                yield entry

    def _stays(self, entry: Path) -> bool:
        out = entry.is_symlink() and leads_out(entry, self.root)
        if out:
            self._fault("links that stay inside the folder", f"{self._shown(entry)}", "Copy it")
        return not out

    def _shown(self, path: Path) -> str:
        return str(path if path == self.root else path.relative_to(self.root))

    def _fault(self, expected: str, got: str, next_step: str = "Move or remove it") -> None:
        self.faults.append(Fault(self.where, expected, got, next_step))


def open_folder(spec: DatasetSpec, named: SplitFiles = TRAIN_AND_TEST) -> DatasetParts:
    """The parts of `spec.folder`: class folders alone are one part, "train".

    Args:
        named: what the folders of the two parts are called.

    Raises:
        DataError: no such folder, stray images, nested or empty class folders, a link that leaves
            the folder, classes that differ between train and test; all faults of one folder.
    """
    where = f"{spec.name}.folder"
    root = _existing(Path(str(spec.folder)).expanduser(), where)
    folders, notes = _part_folders(root, where, named)
    if isinstance(spec, TransferSpec) and "test" in folders:
        folders = {"test": folders["test"]}
    faults = _unknown_skips(spec, folders, where)
    listings = {part: _Listing(root, where, spec.skip_classes) for part in folders}
    for part, listing in listings.items():
        listing.read(folders[part])
    faults += [fault for listing in listings.values() for fault in listing.faults]
    if faults:
        raise DataError(faults)
    written = {part: WrittenLabels(listing.labels) for part, listing in listings.items()}
    labels, names = number_labels(written, spec.class_names, where=spec.name)
    parts = {
        part: ImagePart(
            labels=labels[part],
            names=[str(path.relative_to(root)) for path in listing.files],
            class_names=names,
            load=lambda position, files=listing.files: open_image(files[position]),  # type: ignore[misc]
            identity=identity_of("folder", [file_stamp(path) for path in listing.files]),
        )
        for part, listing in listings.items()
    }
    ignored = sum((listing.ignored for listing in listings.values()), Counter[str]())
    if ignored:
        notes.append(f"{spec.name}: {_left_out(ignored)}")
    return DatasetParts(parts, tuple(notes))


def _unknown_skips(spec: DatasetSpec, folders: dict[str, Path], where: str) -> list[Fault]:
    """A name that was mistyped would skip nothing."""
    there = {composed(entry.name) for folder in folders.values() for entry in folder.iterdir()}
    return [
        Fault(
            f"{spec.name}.skip_classes",
            "names of class folders",
            brief(name),
            did_you_mean(name, sorted(there), "Remove"),
        )
        for name in spec.skip_classes
        if composed(name) not in there
    ]


def _left_out(ignored: Counter[str]) -> str:
    """Files by suffix, the most frequent first, and what would read those that hold images."""
    missing = _readers(ignored)
    step = f"; images among them are read with {missing} installed" if missing else ""
    return f"{ignored.total():,} files are left out ({_kinds(ignored)}){step}"


def _kinds(files: Counter[str]) -> str:
    ordered = sorted(files.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in ordered)


def _readers(files: Counter[str]) -> str:
    """What would have to be installed to read images among files that were left out."""
    return " and ".join(package for own, package in MORE.values() if files.keys() & set(own))


def _existing(folder: Path, where: str) -> Path:
    if os.path.isdir(folder):
        return folder.resolve()
    there = os.path.exists(folder)
    got = f"the file {folder}" if there else f"{folder}, which does not exist"
    step = "Give the folder, or use files: for a CSV or Parquet file"
    kind = DataError if there else UnavailableError
    raise kind(Fault(where, "a folder of class folders", got, step))


def _holds_folders(path: Path) -> bool:
    """Whether a folder may be a part: one of images alone is a class that is called like a part."""
    try:
        return any(os.path.isdir(entry) for entry in path.iterdir()) or not any(path.iterdir())
    except OSError:  # it is told when it is read
        return True


def _part_folders(root: Path, where: str, named: SplitFiles) -> tuple[dict[str, Path], list[str]]:
    """Where each part lies, and what was left aside."""
    parts = {**dict.fromkeys(VALIDATION, "val"), str(named.train): "train", str(named.test): "test"}
    visible = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in visible if path.is_dir()]
    named_so = [path for path in folders if path.name in parts and _holds_folders(path)]
    found = {parts[path.name]: path for path in reversed(named_so)}
    others = [path.name for path in folders if path not in found.values()]
    if not found.keys() & {"train", "test"}:
        return {"train": root}, []
    if not found.keys() >= {"train", "test"} and len(folders) > 1:
        raise DataError(
            Fault(
                where,
                f"{named.train}/ and {named.test}/, or class folders",
                ", ".join(path.name for path in folders[:10]),
                f"Rename the part you want to test on to {named.test}, or move the class folders "
                f"into {named.train}",
            )
        )
    beside = f"beside {named.train}/ and {named.test}/ is not read"
    notes = [f"{where}: {name}/ {beside}" for name in others]
    return {part: found[part] for part in ("train", "val", "test") if part in found}, notes
