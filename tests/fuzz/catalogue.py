"""All targets by name."""

from __future__ import annotations

from fuzz import (
    beside_runs,
    data_folders,
    hubs,
    images,
    imports,
    models,
    open_clip,
    records,
    specs,
)
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (
        specs,
        imports,
        records,
        images,
        data_folders,
        models,
        beside_runs,
        hubs,
        open_clip,
    )
    for target in room.TARGETS
}

__all__ = ["TARGETS"]
