"""Where images come from: the part of a study file that names target and transfer datasets."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from clipdrift.errors import brief
from clipdrift.spec.carving import Draw, ProbeSpec, SplitSpec
from clipdrift.spec.part import Name, Part, added, broken_rule

SOURCES = ("builtin", "folder", "files", "hub")
PUBLISHED = ("single", "ensemble")
"""Names for the prompts that were published with CLIP for a dataset: the first of them, or all."""


class SplitFiles(Part):
    """CSV, JSON Lines or Parquet files; `test` may be left out and is then carved from `train`."""

    train: str | None = None
    test: str | None = None


PAIRED = ("scenes", "flickr8k", "flickr30k", "coco")
"""Builtin sets of images with captions."""
OF_CLASSES = ("class_names", "skip_classes", "templates")


class DatasetSpec(Part):
    """One dataset. Exactly one of `builtin`, `folder`, `files`, `hub` says where it is.

    With `caption_column` its images have captions in place of classes: all that counts images of a
    class (`train_per_class`, `per_class` and so on) then counts images.

    Of a builtin that cannot be downloaded (`imagenet`), `folder` says where your copy lies. A bare
    string in YAML is short for `{name: <string>, builtin: <string>}`.
    """

    name: Name
    builtin: str | None = Field(None, description="name of a set known to clipdrift")
    folder: str | None = Field(
        None, description="class sub-folders, or train/ and test/, also val/, of them"
    )
    files: SplitFiles | None = Field(
        None, description="CSV, JSON Lines or Parquet with paths or bytes, or webdataset .tar"
    )
    hub: str | None = Field(None, description="Hugging Face dataset id")
    hub_config: str | None = Field(None, description="which of the datasets that an id holds")
    revision: str | None = Field(None, description="commit, tag or branch of the hub id")
    image_column: str = "image"
    label_column: str = Field(
        "label", description="of .tar shards the suffix of the files beside images, such as cls"
    )
    labels_column: str | None = added(
        None,
        "several labels an image, or none: a column of lists or of texts, for label_column",
    )
    label_separator: str = added("|", "what parts the texts of labels_column")
    caption_column: str | list[str] | None = added(
        None,
        "images with captions in place of classes: the column of texts, or of lists of them, or "
        "several columns; of a folder or of .tar shards the suffix of the files beside images, txt",
    )
    hub_splits: SplitFiles = Field(
        SplitFiles(train="train", test="test"), description="names, or shards such as test/*.tar"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="carved when the data has no test part"
    )
    class_names: list[str] | dict[str, str] | None = Field(
        None, description="in label order, or name in the data: name to read; default: from data"
    )
    skip_classes: list[str] = added([], "classes of the data that are left out, by name")
    templates: list[str] | Literal["single", "ensemble"] | None = Field(
        None,
        description="prompts, each with one {}; or those published with CLIP for a builtin: one, "
        "or all; default: a photo of a {}",
    )
    spelling: Literal["published", "data"] = added(
        "published",
        "class names of a builtin from the Hub: as published with CLIP, or as its data has",
    )
    underscores: Literal["spaces", "kept"] = added("spaces", "in class names, written into prompts")
    max_bad_images: int = Field(0, ge=0, description="unreadable images tolerated, each counted")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value, "builtin": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) != 1 and given != ["builtin", "folder"]:
            raise broken_rule(
                f"exactly one of {', '.join(SOURCES)}",
                ", ".join(given) or "none",
                f"Say where the images of {self.name!r} are",
            )
        if self.files is not None and not (self.files.train or self.files.test):
            raise broken_rule("files with train or test", "neither", "Name at least one file")
        return self

    @model_validator(mode="after")
    def _captions_or_classes(self) -> Self:
        if (
            self.caption_column == []
            or (said := self.caption_columns).count("")
            or len({*said}) < len(said)
        ):
            step = "Write for example caption_column: caption"
            raise broken_rule("distinct names of columns", self.caption_column, step)
        if self.folder is not None and not all(name.isalnum() for name in said):
            step = "Write caption_column: txt"
            raise broken_rule("the suffix of the files beside images", self.caption_column, step)
        if self.several and (self.paired or self.skip_classes or not (self.files or self.hub)):
            step = "Give files or hub with labels_column, without caption_column and skip_classes"
            raise broken_rule("a table of images with several labels", f"{self.name!r}", step)
        if self.several and isinstance(self.class_names, dict):
            step = "List the names in the order of their numbers, or leave class_names out"
            raise broken_rule("a list of class_names with labels_column", "a mapping", step)
        wrong = [key for key in OF_CLASSES if getattr(self, key)]
        if self.paired and wrong:
            step = f"Leave {' and '.join(wrong)} out, or caption_column"
            raise broken_rule("captions or classes", f"both for {self.name!r}", step)
        return self

    @property
    def paired(self) -> bool:
        """Whether its images have captions, and no classes."""
        return self.caption_column is not None or self.builtin in PAIRED

    @property
    def several(self) -> bool:
        """Whether its images have any number of labels."""
        return self.labels_column is not None

    @property
    def caption_columns(self) -> list[str]:
        """Those that hold the captions."""
        named = self.caption_column or []
        return [named] if isinstance(named, str) else named

    @field_validator("templates", mode="before")
    @classmethod
    def _prompts_or_the_name_of_published_ones(cls, value: Any) -> Any:
        if value is None or value in PUBLISHED:
            return value
        if not isinstance(value, list) or not value:
            raise broken_rule(
                f"a list of prompts, or one of {', '.join(PUBLISHED)}",
                brief(value),
                "Write for example ['a photo of a {}']",
            )
        for template in value:
            if not isinstance(template, str) or template.count("{}") != 1:
                raise broken_rule(
                    "templates with exactly one {}",
                    brief(template),
                    "Write for example 'a photo of a {}'",
                )
        return value

    @field_validator("class_names", mode="before")
    @classmethod
    def _names_are_text(cls, value: Any) -> Any:
        """Before pydantic tries a list and a mapping in turn, and tells of both."""
        if value is None:
            return None
        if isinstance(value, dict):
            pairs = {_plain_key(key): name for key, name in value.items()}
            texts: list[Any] = [*pairs, *pairs.values()]
        elif isinstance(value, list):
            pairs, texts = {}, value
        else:
            expected = "a list of names, or a mapping {name in the data: name to read}"
            raise broken_rule(expected, brief(value), "Write for example [cat, dog]")
        for text in texts:
            if not isinstance(text, str):
                raise broken_rule("names that are text", _as_read(text), "Put it in quotes")
        names = [unicodedata.normalize("NFC", name) for name in pairs.values() or texts]
        if len(names) < 2 or len(set(names)) < len(names):
            expected, step = "two or more distinct class_names", "Give one distinct name per label"
            raise broken_rule(expected, brief(names), step)
        return pairs or value


def _plain_key(key: Any) -> Any:
    """Class folders and labels are often numbers, which YAML reads as such."""
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else key


def _as_read(value: Any) -> str:
    if not isinstance(value, bool):
        return brief(value)
    words = "yes, on or true" if value else "no, off or false"
    return f"{value}, as YAML reads an unquoted {words}"


class TransferSpec(DatasetSpec):
    """A dataset scored zero-shot only, before and after; its images have one label or captions."""

    n_images: int | None = Field(None, ge=1, description="class-balanced part; default: all")
    seed: int = Field(0, ge=0, description="draws the n_images")
    draw: Draw = added("by_class", "in_turn: the n_images, from one numpy RandomState(seed)")
    too_few: Literal["refuse", "all"] = added(
        "refuse", "all: where there are fewer than n_images, all of them are read"
    )
    missing: Literal["refuse", "skip"] = added(
        "refuse", "skip: a set that cannot be had (offline, gated, no copy) is named and left out"
    )

    @model_validator(mode="after")
    def _not_of_several(self) -> Self:
        if self.several:
            step = "Name it under targets, or give label_column"
            raise broken_rule("a target with labels_column", f"transfer {self.name!r}", step)
        return self


class TargetSpec(DatasetSpec):
    """A dataset to fine-tune on, with what may differ between targets."""

    epochs: int | None = Field(None, ge=1, description="overrides schedule.epochs")
    horizontal_flip: bool | None = Field(None, description="overrides schedule.horizontal_flip")
    splits: SplitSpec | None = Field(None, description="overrides the study's splits")
    probe: ProbeSpec | None = Field(None, description="overrides the study's probe")
    corrupted: list[TransferSpec] = Field(
        [], description="damaged copies of the test part, classified with the head at the end"
    )
