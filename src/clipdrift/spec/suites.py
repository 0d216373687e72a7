"""Suites: many transfer sets by one word, as papers and benchmarks read them together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from clipdrift.errors import did_you_mean
from clipdrift.spec.carving import Draw
from clipdrift.spec.datasets import PAIRED
from clipdrift.spec.part import Part, broken_rule

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("world", "land-cover", "digits", "scenes"),
    "task-arithmetic": ("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"),
    "paint": (
        *("cars", "dtd", "eurosat", "gtsrb", "kitti-distance", "mnist", "resisc45", "sun397"),
        *("svhn", "imagenet", "cifar10", "cifar100", "stl10", "food101"),
    ),
    "mtil": (
        *("aircraft", "caltech101", "cifar100", "dtd", "eurosat", "flowers102", "food101"),
        *("mnist", "pets", "cars", "sun397"),
    ),
    "imagenet-shifts": (
        *("imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"),
    ),
    "datacomp": (
        *("caltech101", "cifar10", "cifar100", "clevr-count", "clevr-distance", "country211"),
        *("dtd", "eurosat", "aircraft", "food101", "gtsrb", "imagenet", "imagenet-sketch"),
        *("imagenet-v2", "imagenet-a", "imagenet-o", "imagenet-r", "kitti-distance", "mnist"),
        *("objectnet", "flowers102", "pets", "voc2007", "pcam", "rendered-sst2", "resisc45"),
        *("cars", "stl10", "sun397", "svhn", "flickr30k", "coco", "camelyon17", "fmow"),
    ),
}
"""Members by their names under `builtin`, in the order of their sources: the embedded sets; Ilharco
et al. 2023 (arXiv:2212.04089); the nine patching and five supported tasks of Ilharco et al. 2022
(arXiv:2208.05592); Zheng et al. 2023 (arXiv:2303.06628); the five shifts of Wortsman et al. 2022
(arXiv:2109.01903); 34 of the 38 of DataComp (tasklist.yml): not WinoGAViL, which has no classes,
iWildCam, two classes of which bear one name, and Dollar Street and GeoDE, whose label order is not
known."""


class SuiteSpec(Part):
    """In place of a transfer set: `{suite: mtil, n_images: 1000}`, or its bare name. Each member is
    read as a transfer set of its own, and what else is said holds for all of them; the resolved
    study names every one. A set that two suites share and ask for alike is read once.

    With `missing: skip` each command decides anew what is there: a study that grows by a set is
    measured anew, as with any other transfer set. Sets are read as `clipdrift datasets` lists them:
    parts and scores are not always those of the paper that a suite is named after.
    """

    suite: str = Field(description=f"one of {', '.join(SUITES)}")
    leave_out: list[str] = Field([], description="members that are not read")
    folders: dict[str, str] = Field(
        {}, description="member: where your copy lies, of those that need one (imagenet)"
    )
    missing: Literal["refuse", "skip"] = Field(
        "refuse", description="skip: members that cannot be had are named and left out"
    )
    n_images: int | None = Field(
        None, ge=1, description="class-balanced part, or all where there are fewer; default: all"
    )
    seed: int = Field(0, ge=0, description="draws the n_images")
    draw: Draw = "by_class"
    templates: Literal["single", "ensemble"] | None = Field(
        None, description="prompts published with CLIP; default: a photo of a {}"
    )
    underscores: Literal["spaces", "kept"] = "spaces"
    max_bad_images: int = Field(0, ge=0, description="of each, unreadable ones tolerated")

    @model_validator(mode="after")
    def _of_its_members(self) -> SuiteSpec:
        if self.suite not in SUITES:
            expected, step = f"one of {', '.join(SUITES)}", "Or name sets one by one"
            raise broken_rule(expected, repr(self.suite), did_you_mean(self.suite, SUITES, step))
        known = SUITES[self.suite]
        wrong = [name for name in (*self.leave_out, *self.folders) if name not in known]
        if wrong:
            expected = f"members of {self.suite} ({', '.join(known)})"
            raise broken_rule(
                expected, ", ".join(wrong), did_you_mean(wrong[0], known, "Correct or remove them")
            )
        if set(self.leave_out) == set(known):
            raise broken_rule("a member that is read", "none", "Leave fewer out")
        return self

    def members(self) -> Iterator[dict[str, Any]]:
        """Each as a transfer set of a study file; of images with captions without prompts."""
        shared = self.model_dump(
            exclude={"suite", "leave_out", "folders", "templates"}, exclude_defaults=True
        )
        if self.n_images is not None:
            shared["too_few"] = "all"
        for name in SUITES[self.suite]:
            if name in self.leave_out:
                continue
            folder = {"folder": self.folders[name]} if name in self.folders else {}
            prompts = {"templates": self.templates} if self.templates else {}
            own = {} if name in PAIRED else prompts
            yield {"name": name, "builtin": name, **folder, **own, **shared}


def suite_of(item: Any) -> Any:
    """What a list of transfer sets has for a suite: its mapping, or its bare name; else None."""
    if isinstance(item, str) and item in SUITES:
        return {"suite": item}
    return item if isinstance(item, dict) and "suite" in item else None
