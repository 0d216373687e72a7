"""Finding a backbone's folder, which is always one in transformers format.

The embedded `mini-clip`, a folder of the user's, a snapshot of a hub repository, or what a model of
open_clip's, or weights that lack a part, were converted into.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from clipdrift.backbone.converted import converted
from clipdrift.backbone.described import described
from clipdrift.backbone.faults import refusal
from clipdrift.errors import BackboneError
from clipdrift.formats.known import is_model, is_tagged, tagged
from clipdrift.formats.source import (
    CONFIG,
    WITH_WEIGHTS,
    Source,
    find,
    is_tower,
    is_transformers,
)
from clipdrift.hub import open_clip_snapshot, snapshot
from clipdrift.paths import unfit_model_files
from clipdrift.spec.parts import BackboneSpec

EMBEDDED = ("mini-clip",)


def backbone_folder(spec: BackboneSpec) -> Path:
    """A folder with a backbone in transformers format: embedded, the user's, or from the hub.

    A model of open_clip's is converted into one, which stays in the cache.

    Raises:
        BackboneError: if there is none, a file of it is a link to somewhere else, or it cannot be
            converted.
    """
    found = backbone_source(spec)
    return found if isinstance(found, Path) else converted(found, f"backbone {spec.id}")


def backbone_source(spec: BackboneSpec) -> Path | Source:
    """Where a backbone lies: a folder in transformers format, or what has to be converted into one.

    Raises:
        BackboneError: if there is none, or a file of it is a link to somewhere else.
    """
    where = f"backbone {spec.id}"
    if spec.id in EMBEDDED:
        return Path(str(files("clipdrift").joinpath("assets", spec.id)))
    path, here = Path(spec.id), os.path.exists(spec.id)
    if not here:
        if spec.id.startswith((".", "/", "~")):
            raise refusal(spec, "a model's folder or file", "nothing there", "Check the path")
        path = _of_hub(spec)
    if path.is_dir() and (links := unfit_model_files(path)):
        raise BackboneError(links)
    source = find(path)
    if (path / "adapter_config.json").is_file():
        got, step = "a peft adapter", "Save what merge_and_unload() of it gives, and name that"
        raise refusal(spec, "a whole model", got, step)
    if spec.model is not None and not is_model(spec.model) and _names_weights(spec.model):
        return _onto(path, source, spec)
    if source is None and not path.is_dir():
        got, step = "another file", "Name the folder of the model, or its file of weights"
        raise refusal(spec, "a file of weights (.pt, .safetensors, ...)", got, step)
    if source is None:
        if spec.model is not None:
            got, step = f"{spec.model!r}, and a config.json that says it", "Leave it away"
            raise refusal(spec, "no name of a model", got, step)
        return path
    if not here and is_tagged(spec.id):
        source = source.as_tagged(tagged(spec.id))
    return source.as_model(spec.model, where)


def _onto(path: Path, source: Source | None, spec: BackboneSpec) -> Source:
    """Weights that lack a part, to be put onto the model that has it.

    Raises:
        BackboneError: if one of the two is not what it has to be.
    """
    said = source is None and path.is_dir() and not is_tower(path)
    if said or (source is not None and source.model_cfg is not None):
        got = f"{spec.model!r}, and a configuration beside the weights"
        raise refusal(spec, "a model that is said once", got, "Leave backbone.model away")
    base = BackboneSpec(id=str(spec.model))
    whole = backbone_folder(base)
    described(whole, base)
    if is_tower(whole):
        raise refusal(base, "a whole model", "an image tower alone", WITH_WEIGHTS)
    weights = path if source is None else source.weights
    return Source(weights, path if path.is_dir() else path.parent, whole=whole)


def at_hand(model: str) -> bool:
    """Whether a name is that of a model in the package or on this machine; else a hub has it."""
    return model in EMBEDDED or os.path.exists(model)


def _names_weights(model: str) -> bool:
    """Whether a name is that of weights, as an id of a backbone is, and not of an architecture."""
    return "/" in model or at_hand(model)


def _of_hub(spec: BackboneSpec) -> Path:
    """A snapshot of a repository: of its files for transformers, else of those for open_clip."""
    if is_tagged(spec.id):
        hub = tagged(spec.id).hub
        assert hub is not None
        return open_clip_snapshot(hub, spec.revision)
    folder = snapshot(spec.id, spec.revision)
    if not is_transformers(folder) and (folder / CONFIG).is_file():
        return open_clip_snapshot(spec.id, spec.revision)
    return folder
