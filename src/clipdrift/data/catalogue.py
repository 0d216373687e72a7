"""Public datasets known by name: where they are, what their classes and CLIP's prompts are."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Self

import yaml
from pydantic import Field, model_validator

from clipdrift.data.hub import open_hub
from clipdrift.data.parts import DatasetParts
from clipdrift.errors import DataError, Fault
from clipdrift.spec.datasets import DatasetSpec, Part, SplitFiles


class Entry(Part):
    """One dataset of `catalogue.yaml`.

    `class_names` are in label order and guarded by their hash; where there are none, the names in
    the data are used, which must be `n_classes`. `templates` are those CLIP's authors published.
    """

    title: str
    hub: str
    config: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    splits: SplitFiles
    other_tests: list[str] = Field([], description="further test splits, known as <name>-<split>")
    n_classes: int = Field(ge=2)
    licence: str
    citation: str
    class_names: list[str] | None = None
    class_names_sha256: str | None = None
    templates: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _class_names_as_pinned(self) -> Self:
        if self.class_names is not None and (
            len(self.class_names) != self.n_classes
            or names_sha256(self.class_names) != self.class_names_sha256
        ):
            raise ValueError(f"the class names of {self.title} are not those that were pinned")
        return self


def names_sha256(class_names: list[str]) -> str:
    """SHA-256 (hex) over class names in label order."""
    return hashlib.sha256(json.dumps(class_names).encode()).hexdigest()


@cache
def catalogue() -> dict[str, Entry]:
    """Every dataset by name; other test splits are entries of their own without a training part."""
    text = resources.files("clipdrift.data").joinpath("catalogue.yaml").read_text("utf-8")
    entries: dict[str, Entry] = {}
    for name, content in yaml.safe_load(text).items():
        entry = Entry.model_validate(content)
        entries[name] = entry
        for split in entry.other_tests:
            other = {"splits": SplitFiles(test=split), "other_tests": []}
            entries[f"{name}-{split.replace('_', '-')}"] = entry.model_copy(update=other)
    return entries


def open_entry(spec: DatasetSpec) -> DatasetParts:
    """The parts of the catalogue's dataset `spec.builtin`, from the Hub.

    `revision` and `class_names` of the study are kept; columns and splits are the catalogue's.

    Raises:
        DataError: what `open_hub` raises; another number of classes than the catalogue knows.
    """
    entry = catalogue()[str(spec.builtin)]
    source = {
        "builtin": None,
        "hub": entry.hub,
        "image_column": entry.image_column,
        "label_column": entry.label_column,
        "hub_splits": entry.splits,
        "class_names": spec.class_names or entry.class_names,
    }
    opened = open_hub(spec.model_copy(update=source), config=entry.config)
    found = len(next(iter(opened.parts.values())).class_names)
    if found != entry.n_classes:
        raise DataError(
            Fault(
                f"{spec.name}.builtin",
                f"{entry.n_classes} classes in {entry.hub}",
                f"{found}",
                "The data has changed; name it under hub: with a revision and class_names",
            )
        )
    return opened
