"""Finding a backbone's folder and loading it, every key accounted for.

A backbone is always read from a folder in transformers format: the embedded `mini-clip`, a folder
of the user's, a snapshot of a hub repository, or what a model of open_clip's was converted into.
Weights are safetensors, or the tensors of an old file of torch's, loaded as float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from clipdrift.backbone.architecture import Architecture
from clipdrift.backbone.clip import CLIP
from clipdrift.backbone.content import PICKLED, folder_hash, is_pickled
from clipdrift.backbone.converted import converted
from clipdrift.backbone.faults import CONVERT, refusal
from clipdrift.backbone.model import Backbone
from clipdrift.backbone.preprocessing import preprocessing
from clipdrift.backbone.siglip import SIGLIP
from clipdrift.backbone.sizes import size_faults
from clipdrift.errors import BackboneError, Fault, is_failure
from clipdrift.formats.known import is_tagged, tagged
from clipdrift.formats.source import CONFIG, Source, find, is_transformers
from clipdrift.formats.state import flat_tensors
from clipdrift.hub import open_clip_snapshot, snapshot
from clipdrift.paths import unfit_model_files
from clipdrift.spec.parts import BackboneSpec

EMBEDDED = ("mini-clip",)
ARCHITECTURES = {"clip": CLIP, "siglip": SIGLIP}
"""model_type of a config.json -> the kind of model."""


def load_backbone(spec: BackboneSpec, *, device: str = "cpu") -> Backbone:
    """Load a CLIP or SigLIP as float32 with exact key accounting.

    Raises:
        BackboneError: missing folder, hub out of reach, another kind of model, keys missing or
            left over.
    """
    folder = backbone_folder(spec)
    model, config, kind = load_model(folder, spec)
    images = preprocessing(folder, model.config.vision_config.image_size, kind, spec)
    return Backbone(
        name=Path(spec.id).name if os.path.exists(spec.id) else spec.id,
        architecture=kind,
        model=model.to(device),
        tokenizer=load_tokenizer(folder, spec),
        image_size=images.size,
        resize_mode=images.resize_mode,
        mean=images.mean,
        std=images.std,
        sha256=folder_hash(folder),
        precision_on_disk=precision_on_disk(config),
        resized=images.resized,
        interpolation=images.interpolation,
    )


def load_model(folder: Path, spec: BackboneSpec) -> tuple[Any, dict[str, Any], Architecture]:
    """The float32 model of a folder, every key accounted for, its config.json, and its kind.

    Raises:
        BackboneError: another kind of model, files missing or damaged, keys missing or left over,
            towers that do not read.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    config = _read_json(folder / "config.json", spec)
    kind = _architecture(config, spec)
    if wrong := size_faults(config, folder, f"backbone {spec.id}"):
        raise BackboneError(wrong)
    with _loading(spec):
        model, loading = getattr(transformers, kind.model_class).from_pretrained(
            **_weights(folder),
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are counted below, by name
            output_loading_info=True,
        )
    unmatched = sorted(
        {*loading["missing_keys"], *loading["unexpected_keys"]}
        | {str(key) for key in loading.get("mismatched_keys", ())}
    )
    unmatched = [key for key in unmatched if not key.endswith("position_ids")]
    if unmatched:
        raise refusal(
            spec,
            "weights that match the model key by key",
            f"{len(unmatched)} that do not, first {unmatched[0]!r}",
            CONVERT,
        )
    model = model.requires_grad_(False).eval()
    _require_reading(model, spec)
    return model, config, kind


@torch.no_grad()
def _require_reading(model: Any, spec: BackboneSpec) -> None:
    """Refuse a configuration that is found to be none only when something is read by it.

    An image of one colour and a text of two tokens: an `eos_token_id` that is a list, an epsilon
    that is null or NaN, or an output that is asked for by a word pass until then.
    """
    side = model.config.vision_config.image_size
    with _loading(spec, "a configuration by which its towers read images and texts"):
        seen = model.vision_model(pixel_values=torch.zeros(1, 3, side, side)).pooler_output
        read = model.text_model(input_ids=torch.zeros(1, 2, dtype=torch.long)).pooler_output
    for tower, found in (("vision", seen), ("text", read)):
        if not found.isfinite().all():
            broken = (name for name, p in model.named_parameters() if not p.isfinite().all())
            expected, step = f"a {tower} tower that gives finite values", "Restore its files"
            raise refusal(spec, expected, f"NaN or infinity in {next(broken, 'none')}", step)


def _weights(folder: Path) -> dict[str, Any]:
    """Where transformers finds weights: a folder, or tensors that were read of an old file."""
    from transformers import AutoConfig

    if not is_pickled(folder):
        return {"pretrained_model_name_or_path": folder}
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tensors = flat_tensors(folder / PICKLED)
    return {"pretrained_model_name_or_path": None, "config": config, "state_dict": tensors}


def _architecture(config: dict[str, Any], spec: BackboneSpec) -> Architecture:
    found = config.get("model_type")
    if found == "siglip2":
        raise refusal(
            spec,
            "a CLIP or SigLIP that reads images at one size",
            "model_type 'siglip2', which reads them at sizes of their own (NaFlex)",
            "Name a SigLIP 2 of fixed size, for example google/siglip2-base-patch16-224",
        )
    classes = config.get("architectures")
    made = str(classes[0])[:80] if isinstance(classes, list) and classes else ""
    if made.endswith("ForImageClassification") or str(found).endswith("_vision_model"):
        raise refusal(
            spec,
            "a whole CLIP or SigLIP, whose text tower names the classes",
            f"{made or found}, an image tower without one",
            "Put its tower into the model that it was made from, clip.vision_model.load_state_dict("
            "tower.state_dict()), and save that: clip.save_pretrained(FOLDER)",
        )
    if not isinstance(found, str) or found not in ARCHITECTURES:
        expected = "a CLIP or SigLIP checkpoint (model_type clip or siglip)"
        raise refusal(spec, expected, repr(found)[:80], CONVERT)
    for part in ("vision_config", "text_config"):
        if not isinstance(config.get(part) or {}, dict):
            raise refusal(spec, f"a mapping as {part}", repr(config[part])[:80], CONVERT)
    kind = ARCHITECTURES[found]
    if wrong := kind.faults(config):
        where, step = f"backbone {spec.id}", "Name another checkpoint"
        raise BackboneError([Fault(where, expected, got, step) for expected, got in wrong])
    return kind


def precision_on_disk(config: dict[str, Any]) -> str:
    """The precision that a config.json says its weights were saved in."""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def load_tokenizer(folder: Path, spec: BackboneSpec) -> Any:
    """The tokenizer of a folder.

    Raises:
        BackboneError: files missing or damaged.
    """
    from transformers import AutoTokenizer

    with _loading(spec):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _loading(
    spec: BackboneSpec, expected: str = "a loadable transformers folder"
) -> Iterator[None]:
    try:
        yield
    except BackboneError:
        raise
    except BaseException as error:  # every library below has errors of its own for damaged files
        if not is_failure(error):
            raise
        raise refusal(
            spec,
            expected,
            " ".join(str(error).split())[:160],
            "Check that it holds config.json, model.safetensors and the tokenizer files",
        ) from None


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


def _read_json(path: Path, spec: BackboneSpec) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refusal(spec, "a folder with a readable config.json", str(path), CONVERT)
    return value
