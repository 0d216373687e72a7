"""A study looked at before it is run: what its data are, which runs it has, what it will cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images
from clipdrift.materials import Materials, load_materials, without_missing
from clipdrift.reading.model import not_read
from clipdrift.run.conditions import plugins_of, validation_warnings
from clipdrift.spec import AnyStudy, RunConfig, as_spec, expand
from clipdrift.spec.audit import AuditRow, audit, copies_rows
from clipdrift.study.estimate import Estimate, estimate
from clipdrift.study.plan import require_fit

SAMPLES = 3
"""Files named of a class."""


def check(
    study: AnyStudy,
    *,
    cache_dir: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Load the backbone, prepare the images, carve the splits; train nothing.

    Args:
        study: a study, or its file.
        report: told what takes long.

    Returns:
        Sizes, classes with sample files, and what is wrong with images, by dataset; and warnings.

    Raises:
        ClipdriftError: with all that keeps the study from being run.
    """
    spec = without_missing(as_spec(study), report)
    materials = load_materials(spec, cache_dir=cache_dir or default_cache_dir(), report=report)
    require_fit(spec, materials.backbone)
    return {
        "study": spec.name,
        "backbone": materials.backbone.name,
        "image_size": materials.backbone.image_size,
        "not_read": not_read(materials.backbone),
        "targets": _targets(materials),
        "transfers": {
            name: {
                **_texts(t.prompts, t.images),
                "images": len(t.images),
                "unreadable": list(t.bad_images),
                "prompts_not_read": list(t.text_remarks),
                "labels": _labels(t.class_names, t.prompts, t.images),
            }
            for name, t in materials.transfers.items()
        },
        "warnings": validation_warnings(materials),
    }


def _targets(materials: Materials) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **_texts(t.prompts, t.train),
            **{part: len(images) for part, images in t.sets.items()},
            "unreadable": list(t.bad_images),
            "shared_images": list(map(str, materials.shared_images[name].copies)),
            "in_two_classes": materials.shared_images[name].contradictions,
            "prompts_not_read": list(t.text_remarks),
            "labels": _labels(t.class_names, t.prompts, t.train),
        }
        for name, t in materials.targets.items()
    }


def _texts(prompts: list[list[str]], images: Images) -> dict[str, int]:
    """How many classes there are, or captions of some images in place of them."""
    if images.captions is None:
        return {"classes": len(prompts)}
    return {"captions": len(images.captions.owner)}


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


@dataclass(frozen=True)
class Plan:
    """The runs of a study, which factors they share, code of plugins in use, time and disk."""

    name: str
    n_cells: int
    runs: list[RunConfig]
    audit: list[AuditRow]
    plugins: dict[str, str]
    estimate: Estimate


def plan(study: AnyStudy, *, device: str = "auto", cache_dir: Path | None = None) -> Plan:
    """Cells, runs, the matchedness audit, and what all runs will cost here, from a trial of each.

    Args:
        study: a study, or its file.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Raises:
        ClipdriftError: if the study cannot be run. A backbone or dataset that is not at hand leaves
            the cost null, with the reason.
    """
    spec = without_missing(as_spec(study))
    runs = expand(spec, precision="float32")  # precision does not change which runs there are
    cost = estimate(spec, device=device, cache_dir=cache_dir)
    return Plan(
        name=spec.name,
        n_cells=len({(r.target.name, r.method.name, r.learning_rate) for r in runs}),
        runs=runs,
        audit=[*audit(spec), *copies_rows(cost.copies)],
        plugins={name: origin for run in runs for name, origin in plugins_of(run).items()},
        estimate=cost,
    )
