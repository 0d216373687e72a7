"""Public datasets known by name: where they are, what their classes and CLIP's prompts are."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from clipdrift.data.folder import TRAIN_AND_TEST, open_folder
from clipdrift.data.hub import hub_rows
from clipdrift.data.naming import renamed
from clipdrift.data.parts import DatasetParts
from clipdrift.data.prompts import DEFAULT_TEMPLATES
from clipdrift.data.rows import labelled_parts
from clipdrift.errors import DataError, Fault, UnavailableError
from clipdrift.spec.datasets import DatasetSpec, SplitFiles
from clipdrift.spec.part import Part


class Entry(Part):
    """One dataset of `catalogue.yaml`: on the Hub, or a copy that everyone must get themselves.

    `class_names` are in label order and guarded by their hash. `folder_names` are the class folders
    of an own copy, in label order too. `templates` are those CLIP's authors published. A set with
    `caption_column` has captions in place of all of these.
    """

    title: str
    hub: str | None = None
    config: str | None = None
    folder_names: list[str] | None = None
    more_folders: bool = Field(False, description="an own copy has other class folders as well")
    image_column: str = "image"
    label_column: str = "label"
    caption_column: str | None = None
    splits: SplitFiles
    other_tests: list[str] = Field([], description="further test splits, known as <name>-<split>")
    n_classes: int = 0
    licence: str
    citation: str
    class_names: list[str] = Field([])
    class_names_sha256: str = ""
    templates: list[str] = Field([])

    @model_validator(mode="after")
    def _class_names_as_pinned(self) -> Self:
        if self.caption_column is None and (
            len(self.class_names) != self.n_classes
            or self.n_classes < 2
            or not self.templates
            or names_sha256(self.class_names) != self.class_names_sha256
        ):
            raise ValueError(f"the class names of {self.title} are not those that were pinned")
        if self.hub is None and self.folder_names is None:
            raise ValueError(f"{self.title} must be on the Hub or have names of class folders")
        return self

    @property
    def source(self) -> str:
        """Where its images come from, for people."""
        return self.hub or "your folder"


def names_sha256(class_names: list[str]) -> str:
    """SHA-256 (hex) over class names in label order."""
    return hashlib.sha256(json.dumps(class_names).encode()).hexdigest()


@cache
def catalogue() -> dict[str, Entry]:
    """Every dataset by name; other test splits are entries of their own without a training part."""
    entries: dict[str, Entry] = {}
    for name, content in yaml.safe_load(_packaged("catalogue.yaml")).items():
        entry = Entry.model_validate(_with_classes(content))
        entries[name] = entry
        for split in entry.other_tests:
            other = {"splits": SplitFiles(test=split), "other_tests": []}
            entries[f"{name}-{split.replace('_', '-')}"] = entry.model_copy(update=other)
    return entries


def _packaged(name: str) -> str:
    return resources.files("clipdrift.data").joinpath(name).read_text("utf-8")


def _with_classes(content: dict[str, Any]) -> dict[str, Any]:
    """An entry with many classes keeps them in a table of its own, or in some rows of another's."""
    own = dict(content)
    name, variant = own.pop("class_file", None), own.pop("class_rows", None)
    if name is None:
        return own
    rows = list(csv.DictReader(_packaged(name).splitlines()))
    rows = [row for row in rows if variant is None or variant in row["variants"].split()]
    columns = [column for column in ("folder_name", "class_name") if column in rows[0]]
    return {**{f"{column}s": [row[column] for row in rows] for column in columns}, **own}


def templates_of(spec: DatasetSpec) -> Sequence[str]:
    """The prompts of a dataset: its own, those published with CLIP that it names, or the default.

    Raises:
        DataError: published prompts of a dataset that the catalogue does not hold.
    """
    if not isinstance(spec.templates, str):
        return spec.templates or DEFAULT_TEMPLATES
    entry = catalogue().get(str(spec.builtin))
    if entry is None or not entry.templates:
        raise DataError(
            Fault(
                f"{spec.name}.templates",
                "prompts, where none were published with CLIP for this dataset",
                repr(spec.templates),
                "Write templates: ['a photo of a {}'], or name a builtin of 'clipdrift datasets'",
            )
        )
    return entry.templates[:1] if spec.templates == "single" else entry.templates


def open_entry(spec: DatasetSpec) -> DatasetParts:
    """The parts of the catalogue's dataset `spec.builtin`, from the Hub or from `spec.folder`.

    `revision` and `class_names` of the study are kept; columns and splits are the catalogue's, and
    class names where the study gives none and does not ask for the data's own.

    Raises:
        DataError: what `hub_rows` or `open_folder` raises; another number of classes than the
            catalogue knows, or other class folders.
    """
    entry = catalogue()[str(spec.builtin)]
    copied = entry.hub is None or spec.folder is not None
    own_names = entry.folder_names if copied else None
    names = spec.class_names or (own_names if spec.spelling == "data" else entry.class_names)
    if isinstance(names, dict):
        names = list(renamed(names, entry.class_names, spec.name))
    if copied and entry.folder_names is not None:
        return _open_copy(spec, entry, entry.folder_names, names or entry.folder_names)
    own = on_hub(spec).model_copy(update={"class_names": names})
    opened = labelled_parts(hub_rows(own), own)
    _require_count(spec, entry, len(next(iter(opened.parts.values())).class_names))
    return opened


def on_hub(spec: DatasetSpec) -> DatasetSpec:
    """Where the Hub has the catalogue's dataset `spec.builtin`, as a study would say it."""
    entry = catalogue()[str(spec.builtin)]
    source = {
        "builtin": None,
        "hub": entry.hub,
        "hub_config": entry.config,
        "image_column": entry.image_column,
        "label_column": entry.label_column,
        "caption_column": entry.caption_column,
        "hub_splits": entry.splits,
    }
    return spec.model_copy(update=source)


def _open_copy(
    spec: DatasetSpec, entry: Entry, folder_names: list[str], names: list[str]
) -> DatasetParts:
    """The user's own copy, whose class folders must be those that the labels are known by."""
    splits, shown = entry.splits, ", ".join(folder_names[:2])
    if spec.folder is None:
        raise UnavailableError(
            Fault(
                f"{spec.name}.folder",
                f"your copy of {entry.title}, a folder with {splits.train}/ and {splits.test}/ of "
                f"class folders ({shown}, ...)",
                "none",
                f"Write {{name: {spec.name}, builtin: {spec.builtin}, folder: /path/to/your/copy}}",
            )
        )
    _require_count(spec, entry, len(names))
    update: dict[str, Any] = {"class_names": None}
    if entry.more_folders and os.path.isdir(spec.folder):
        update["skip_classes"] = sorted({*os.listdir(spec.folder)} - {*folder_names})
    opened = open_folder(spec.model_copy(update=update), TRAIN_AND_TEST if entry.hub else splits)
    found = set(next(iter(opened.parts.values())).class_names)
    missing, unknown = sorted(set(folder_names) - found), sorted(found - set(folder_names))
    if missing or unknown:
        got = [
            f"{len(these):,} {word} ({', '.join(these[:3])}{', ...' if len(these) > 3 else ''})"
            for word, these in (("missing", missing), ("unknown", unknown))
            if these
        ]
        raise DataError(
            Fault(
                f"{spec.name}.folder",
                f"the {entry.n_classes:,} class folders of {entry.title} ({shown}, ...)",
                " and ".join(got),
                "Name the folder that holds them all; a part of the classes is another dataset: "
                "leave builtin out and give class_names",
            )
        )
    renamed = {k: replace(part, class_names=tuple(names)) for k, part in opened.parts.items()}
    return DatasetParts(renamed, opened.notes)


def _require_count(spec: DatasetSpec, entry: Entry, found: int) -> None:
    if found != entry.n_classes:
        raise DataError(
            Fault(
                f"{spec.name}.builtin",
                f"{entry.n_classes} classes in {entry.hub or entry.title}",
                f"{found}",
                "The data has changed; name it under hub: with a revision and class_names"
                if entry.hub
                else "Give one name per class, or leave class_names out",
            )
        )
