"""How many images each set of a target gets, and how they are drawn."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from clipdrift.spec.part import Part, added, broken_rule

Draw = Literal["by_class", "in_turn"]
"""Each class from a generator of its own, or one generator for all of them, in label order."""


class SplitSpec(Part):
    """How train and validation images are carved from the training part of a target."""

    train_per_class: int | None = Field(None, ge=1, description="default: all that remain")
    val_per_class: int | None = Field(
        None, ge=1, description="or val_fraction; either, and a val/ of the data is not read"
    )
    val_fraction: float | None = Field(
        None, ge=0, lt=1, description="default 0.15; 0 only with paper_test_selected or last"
    )
    test_per_class: int | None = Field(None, ge=1, description="default: the whole test part")
    seed: int = Field(0, ge=0, description="independent of the training seeds")
    draw: Draw = added(
        "by_class",
        "in_turn: validation, probe and training images from one numpy RandomState(seed)",
    )
    group_by: Literal["duplicates"] | None = added(
        None,
        "duplicates: copies of a picture go where its first image goes, and sizes count pictures; "
        "of a test part of its own, copies leave the training part",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.val_per_class is not None and self.val_fraction is not None:
            raise broken_rule("val_per_class or val_fraction", "both", "Keep one of the two")
        return self


class ProbeSpec(Part):
    """The fixed, unlabelled images on which drift is read."""

    per_class: int | None = Field(None, ge=1)
    n_images: int | None = Field(None, ge=2, description="class-balanced total; default 200")
    source: Literal["train", "test"] = Field("train", description="test only to redo the paper")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.per_class is not None and self.n_images is not None:
            raise broken_rule("per_class or n_images", "both", "Keep one of the two")
        return self
