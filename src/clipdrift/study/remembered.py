"""What trials of a study came to, kept in the cache for a day.

Another rate, seed or number of epochs asks for no new trial; other data, weights, packages or
another machine do. A file that is damaged, or cannot be written, costs a new trial and no more.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from clipdrift.backbone import at_hand, backbone_source
from clipdrift.data.parts import DatasetParts, file_stamp
from clipdrift.data.sources import open_dataset
from clipdrift.errors import ClipdriftError, StudyFolderError
from clipdrift.paths import read_file
from clipdrift.records import atomic_write
from clipdrift.run.conditions import plugins_of
from clipdrift.spec import RunConfig, StudySpec, content_hash

KEPT_SECONDS = 86_400.0
_PACKAGES = ("clipdrift", "torch", "transformers", "peft")
_NOT_TRIED = {"name", "description", "learning_rates", "seeds"}
"""Keys of a study that change neither how long a step takes nor how many images there are."""


@dataclass(frozen=True)
class Speed:
    """Seconds per image when training, scoring and reading the probe set; bytes saved per run.

    once: seconds per training image in the whole run, for a frozen part that is computed once.
    """

    train: float
    once: float
    score: float
    probe: float
    saved_bytes: int


@dataclass(frozen=True)
class Sizes:
    """Images of each target by part ("corrupted" in all its corruptions), and of all transfer sets.

    transfer_epoch: those that are scored after every epoch.
    """

    targets: dict[str, dict[str, int]]
    transfer: int
    transfer_epoch: int


@dataclass(frozen=True)
class Trials:
    """Speed by method, and sizes; copies: target -> what its sets share, in words."""

    speeds: dict[str, Speed]
    sizes: Sizes
    copies: dict[str, list[str]]


_FORM = TypeAdapter(Trials)


def key_of(spec: StudySpec, runs: Sequence[RunConfig], device: str, threads: int) -> str | None:
    """Of all that trials depend on, as a hash; None of a study that is not ready to be tried, whose
    faults are told by who tries it, and of weights that lie in a hub.
    """
    asked = spec.model_dump(mode="json", exclude=_NOT_TRIED)
    for part in (asked["schedule"], *asked["targets"], *asked["methods"]):
        for name in ("epochs", "learning_rates"):
            part.pop(name, None)
    if not at_hand(spec.backbone.id):
        return None
    try:
        weights = backbone_source(spec.backbone)
        data = [one for target in spec.targets for one in (target, *target.corrupted)]
        stamps = [_stamp(open_dataset(one)) for one in (*data, *spec.transfers)]
        added = {name: origin for run in runs for name, origin in plugins_of(run).items()}
    except ClipdriftError:
        return None
    folder = weights if isinstance(weights, Path) else weights.weights.parent
    files = [file_stamp(path) for path in sorted(folder.iterdir()) if path.is_file()]
    versions = [version(name) for name in _PACKAGES]
    here = [platform.node(), platform.processor(), device, threads, versions]
    return content_hash([asked, stamps, files, str(weights), added, here])


def _stamp(opened: DatasetParts) -> dict[str, str]:
    labels = {name: (part.labels.tolist(), part.class_names) for name, part in opened.parts.items()}
    return {
        name: content_hash([part.identity, *labels[name]]) for name, part in opened.parts.items()
    }


def remembered(cache_dir: Path, key: str) -> Trials | None:
    """Trials of the last day; None where there are none."""
    path = _path(cache_dir, key)
    try:
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            return None
        return _FORM.validate_json(read_file(path))
    except (OSError, ValidationError):
        return None


def remember(cache_dir: Path, key: str, trials: Trials) -> None:
    """Keep them, and remove what is older than a day."""
    with suppress(OSError, StudyFolderError):
        path = _path(cache_dir, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("*.json"):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
        atomic_write(path, json.dumps(_FORM.dump_python(trials)))


def _path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "trials" / f"{key[:32]}.json"
