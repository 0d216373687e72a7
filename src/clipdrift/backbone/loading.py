"""Loading a backbone from its folder, every key accounted for.

Weights are safetensors, or the tensors of an old file of torch's, loaded as float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from clipdrift.backbone.architecture import Architecture
from clipdrift.backbone.content import folder_hash
from clipdrift.backbone.described import described, model_type, precision_on_disk
from clipdrift.backbone.faults import CONVERT, refusal
from clipdrift.backbone.finding import backbone_folder
from clipdrift.backbone.model import Backbone
from clipdrift.backbone.preprocessing import preprocessing
from clipdrift.backbone.tower import as_part, may_lack, without_texts
from clipdrift.errors import BackboneError, is_failure
from clipdrift.formats.onto import configuration
from clipdrift.formats.source import folder_tensors, is_pickled, is_tower
from clipdrift.spec.parts import BackboneSpec


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
        tokenizer=load_tokenizer(folder, spec) if hasattr(model, "text_model") else None,
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
    config, kind = described(folder, spec)
    tower = is_tower(folder)
    with _loading(spec):
        model, loading = getattr(transformers, kind.model_class).from_pretrained(
            **(as_part(folder, model_type(config)) if tower else _weights(folder)),
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
    if tower:
        lacking = {key for key in loading["missing_keys"] if may_lack(key)}
        kind, unmatched = without_texts(model, kind, lacking), sorted({*unmatched} - lacking)
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
        towers = {"vision": seen.isfinite().all()}
        if hasattr(model, "text_model"):
            read = model.text_model(input_ids=torch.zeros(1, 2, dtype=torch.long)).pooler_output
            towers["text"] = read.isfinite().all()
    for tower, finite in towers.items():
        if not finite:
            broken = (name for name, p in model.named_parameters() if not p.isfinite().all())
            expected, step = f"a {tower} tower that gives finite values", "Restore its files"
            raise refusal(spec, expected, f"NaN or infinity in {next(broken, 'none')}", step)


def _weights(folder: Path) -> dict[str, Any]:
    """Where transformers finds weights: a folder, or tensors that were read of an old file."""
    if not is_pickled(folder):
        return {"pretrained_model_name_or_path": folder}
    config, tensors = configuration(folder), folder_tensors(folder)
    return {"pretrained_model_name_or_path": None, "config": config, "state_dict": tensors}


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
