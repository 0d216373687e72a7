"""What `clipdrift check` found of a study: as plain data, and as lines to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from clipdrift.data.images import Images
from clipdrift.materials import Materials
from clipdrift.reading.model import not_read
from clipdrift.run.conditions import validation_warnings
from clipdrift.spec import StudySpec

SAMPLES, LISTED = 3, 20
"""Files shown of a class, and classes shown of a dataset; `--json` has all classes."""


def found_of(spec: StudySpec, materials: Materials) -> dict[str, Any]:
    """Sizes, classes with sample files, and what is wrong with images, by dataset."""
    return {
        "study": spec.name,
        "backbone": materials.backbone.name,
        "image_size": materials.backbone.image_size,
        "not_read": not_read(materials.backbone),
        "targets": {
            name: {
                "classes": len(t.prompts),
                **{part: len(images) for part, images in t.sets.items()},
                "unreadable": list(t.bad_images),
                "shared_images": list(map(str, materials.shared_images[name].copies)),
                "in_two_classes": materials.shared_images[name].contradictions,
                "prompts_not_read": list(t.text_remarks),
                "labels": _labels(t.class_names, t.prompts, t.train),
            }
            for name, t in materials.targets.items()
        },
        "transfers": {
            name: {
                "classes": len(t.prompts),
                "images": len(t.images),
                "unreadable": list(t.bad_images),
                "prompts_not_read": list(t.text_remarks),
                "labels": _labels(t.class_names, t.prompts, t.images),
            }
            for name, t in materials.transfers.items()
        },
        "warnings": validation_warnings(materials),
    }


def _labels(
    class_names: tuple[str, ...], prompts: list[list[str]], images: Images
) -> list[dict[str, Any]]:
    """Each label with its name, its first prompt, and a few of its images."""
    of_class = [np.flatnonzero(images.labels == label)[:SAMPLES] for label in range(len(prompts))]
    return [
        {
            "label": label,
            "name": name,
            "prompt": prompts[label][0],
            "files": [images.names[place] for place in images.index[of_class[label]]],
        }
        for label, name in enumerate(class_names)
    ]


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """The same in sentences, with what a reader must look at first."""
    yield f"{found['study']}: backbone {found['backbone']}, {found['image_size']} px"
    for reason, names in _by_reason(found["not_read"]).items():
        yield f"not read ({reason}): {', '.join(names)}"
    for kind in ("targets", "transfers"):
        for name, about in found[kind].items():
            counts = ", ".join(f"{n:,} {what}" for what, n in about.items() if isinstance(n, int))
            bad = len(about["unreadable"])
            yield f"{kind[:-1]} {name}: {counts}" + (f"; {bad} unreadable left out" if bad else "")
            for one in about["labels"][:LISTED]:
                yield f"  {one['label']:3}  {one['name']}: {', '.join(one['files'])}"
            if more := about["labels"][LISTED:]:
                yield f"  and {len(more):,} more classes (--json lists them)"
    yield from (f"warning: {text}" for text in found["warnings"])
    yield from _warnings(found["targets"])
    for about in (*found["targets"].values(), *found["transfers"].values()):
        yield from (f"warning: {text}" for text in about["prompts_not_read"])


def _warnings(targets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shared = {name: about["shared_images"] for name, about in targets.items()}
    for name, texts in shared.items():
        yield from (f"warning: target {name}: {text}" for text in texts)
    if any(shared.values()):
        yield (
            "Accuracy on copies is no measure of what was learned. `splits: {group_by: "
            "duplicates}` keeps copies within a target together; copies in transfer sets have to "
            "be removed."
        )
    told = [text for about in targets.values() for text in about["in_two_classes"]]
    yield from (f"warning: {text}" for text in dict.fromkeys(told))


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Why -> what, in the order of the names."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(reason, []).append(name)
    return grouped


__all__ = ["found_of", "lines_of"]
