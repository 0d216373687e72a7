"""A checkpoint as a model whose image path can be read, with what was found on the way."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.backbone import (
    Backbone,
    ImageEncoder,
    TextEncoder,
    folder_hash,
    load_model,
    load_tokenizer,
    precision_on_disk,
    preprocessing,
)
from clipdrift.checkpoint.adapter import LoadedAdapter, load_adapter
from clipdrift.checkpoint.alike import configuration_findings, tokenizer_finding
from clipdrift.checkpoint.checks import (
    Finding,
    adapter_findings,
    beside_findings,
    movement_finding,
    preprocessing_findings,
    require_same_architecture,
    text_changed,
    text_finding,
    unread_findings,
)
from clipdrift.checkpoint.find import (
    ADAPTER_WEIGHTS,
    ORIGIN_FILE,
    Kind,
    kind_of,
    read_json,
    read_tensors,
    require_finite,
)
from clipdrift.errors import Fault, RecordError
from clipdrift.formats.onto import ACTING, PROJECTION, Put, put_onto
from clipdrift.formats.source import find, is_tower, weight_files
from clipdrift.formats.tokens import TOKENIZERS
from clipdrift.formats.write import write_transformers
from clipdrift.methods.adapted import HEAD_FILE
from clipdrift.methods.weights_file import assign
from clipdrift.paths import file_hash
from clipdrift.spec.parts import BackboneSpec


@dataclass(frozen=True)
class Checkpoint:
    """A model made from a baseline.

    live: the model as it runs, adapters in place. plain: its weights without any wrapper. own_text:
    whether it reads class prompts by weights of its own.
    """

    kind: Kind
    live: Backbone
    plain: Mapping[str, Tensor]
    own_text: bool
    findings: list[Finding]

    @cached_property
    def encoder(self) -> ImageEncoder:
        return self.live.live_encoder()

    def vision_state(self) -> dict[str, Tensor]:
        return _under("vision_model.", self.plain)

    def projection_state(self) -> dict[str, Tensor]:
        return _under("visual_projection.", self.plain)

    @cached_property
    def text(self) -> TextEncoder | None:
        """None where class prompts are read by the baseline's text tower."""
        return self.live.live_text_encoder() if self.own_text else None

    def text_state(self) -> dict[str, Tensor]:
        return _under("text_model.", self.plain)

    def text_projection_state(self) -> dict[str, Tensor]:
        return _under("text_projection.", self.plain)


def load_checkpoint(folder: Path, baseline: Backbone) -> Checkpoint:
    """Load a peft adapter, a CLIP or weights of open_clip's, and hold it against its baseline.

    Args:
        folder: or a file of weights.

    Raises:
        ClipdriftError: if it cannot be read safely and exactly, or is of another architecture.
    """
    kind = kind_of(folder)
    if kind == "run":
        raise RecordError(
            Fault(str(folder), "an adapter or a CLIP", "a run", "Evaluate it without --spec")
        )
    if kind == "adapter":
        found, checkpoint = "peft adapter, safetensors", _adapter(folder, baseline)
    elif kind == "weights":
        found, checkpoint = _foreign(folder, baseline)
    elif is_tower(folder):
        found, checkpoint = _onto(folder, baseline)
        others = configuration_findings(checkpoint.live, baseline)
        checkpoint = replace(checkpoint, findings=[*checkpoint.findings, *others])
    else:
        checkpoint = _whole(folder, baseline)
        found = f"{checkpoint.live.architecture.name} in transformers format, safetensors"
    return replace(checkpoint, findings=[Finding("kind", "ok", found), *checkpoint.findings])


def _foreign(path: Path, baseline: Backbone) -> tuple[str, Checkpoint]:
    """What it is, and a model of open_clip's: by its own configuration, else by the baseline's."""
    source = find(path)
    assert source is not None  # seen to before
    if source.model_cfg is None:
        found, checkpoint = _onto(source.weights, baseline)
        left = ", ".join(ACTING.values())
        said = f"none in the file: {left}, preprocessing and tokenizer are the baseline's"
        note = Finding("configuration", "note", said)
        return found, replace(checkpoint, findings=[note, *checkpoint.findings])
    with tempfile.TemporaryDirectory() as name:
        found, *others = write_transformers(source, Path(name), str(path))
        checkpoint = _whole(Path(name), baseline, origin=source.folder)
    notes = [Finding("file", "note", said) for said in others]
    live = replace(checkpoint.live, name=path.name)
    return found, replace(checkpoint, live=live, findings=[*checkpoint.findings, *notes])


def _onto(path: Path, baseline: Backbone) -> tuple[str, Checkpoint]:
    """What it is, and its weights in a copy of the baseline."""
    put = put_onto(path, baseline.model.state_dict(), baseline.model.config.to_dict())
    require_finite(put.tensors, path)
    live = replace(
        baseline,
        name=path.name,
        model=_copy_with(put, baseline),
        sha256=folder_hash(path) if path.is_dir() else file_hash(path),
        precision_on_disk=put.precision,
    )
    changed = text_changed(live, baseline)
    same = PROJECTION not in put.tensors and bool(baseline.projection_state())
    findings = [
        movement_finding(live, baseline),
        *beside_findings(None if same else _none(live) or "in the file", put.beside),
        *preprocessing_findings(live, baseline, own_channels=False),
        text_finding(changed)
        if put.own_text
        else Finding("text tower", "ok", "none that is whole: the baseline's reads texts"),
        *(Finding("file", "note", said) for said in put.said[1:]),
        _base_finding(path if path.is_dir() else path.parent, baseline, {}),
    ]
    made = Checkpoint("weights", live, dict(live.model.named_parameters()), changed, findings)
    return put.said[0], made


def _copy_with(put: Put, baseline: Backbone) -> Any:
    """A copy of the baseline's model, with weights and what their configuration says in it."""
    if put.acting:
        config = copy.deepcopy(baseline.model.config)
        for key, value in put.acting.items():
            setattr(config.vision_config, key, value)
        model = type(baseline.model)(config).eval()
    else:
        model = copy.deepcopy(baseline.model)
    model.load_state_dict({**baseline.model.state_dict(), **put.tensors})
    return model.to(baseline.model.device).requires_grad_(False)


def _whole(folder: Path, baseline: Backbone, *, origin: Path | None = None) -> Checkpoint:
    model, config, kind = load_model(folder, BackboneSpec(id=str(folder)))
    require_finite(dict(model.named_parameters()), folder)
    model = model.to(baseline.model.device)
    made = replace(baseline, architecture=kind, model=model)
    live, own = _read_as_its_files_say(folder, made, precision_on_disk(config))
    require_same_architecture(live, baseline, str(origin or folder))
    changed = text_changed(live, baseline)
    beside = (origin or folder) / HEAD_FILE
    head = read_tensors(beside) if beside.is_file() else {}
    findings = [
        movement_finding(live, baseline),
        *beside_findings(_none(live) or "in the model", head),
        *preprocessing_findings(live, baseline, own_channels=own),
        *configuration_findings(live, baseline),
        text_finding(changed),
        tokenizer_finding(live, baseline, own_text=changed),
        _base_finding(origin or folder, baseline, {}),
        *unread_findings(folder, (*weight_files(folder), HEAD_FILE)),
    ]
    return Checkpoint("clip", live, dict(model.named_parameters()), changed, findings)


def _read_as_its_files_say(folder: Path, made: Backbone, precision: str) -> tuple[Backbone, bool]:
    """A model that shows images and splits texts as the files beside its weights say.

    Args:
        made: with the baseline's ways of doing so, which hold where a folder has no such file.

    Returns:
        The model, and whether the folder says how images are shown.
    """
    spec, kind = BackboneSpec(id=str(folder)), made.architecture
    images = preprocessing(folder, made.model.config.vision_config.image_size, kind, spec)
    has_own = any((folder / name).is_file() for name in TOKENIZERS)
    shown = images if images.own else made
    live = replace(
        made,
        name=folder.name,
        tokenizer=load_tokenizer(folder, spec) if has_own else made.tokenizer,
        image_size=images.size,
        resize_mode=shown.resize_mode,
        mean=shown.mean,
        std=shown.std,
        sha256=folder_hash(folder),
        precision_on_disk=precision,
        resized=shown.resized,
        interpolation=shown.interpolation,
    )
    return live, images.own


def _adapter(folder: Path, baseline: Backbone) -> Checkpoint:
    loaded = load_adapter(folder, baseline)
    made = replace(baseline, model=loaded.made.clip)
    live, own = _read_as_its_files_say(folder, made, ", ".join(loaded.precisions))
    beside = read_tensors(folder / HEAD_FILE) if (folder / HEAD_FILE).is_file() else {}
    projection = _take_projection(loaded, baseline, beside, folder)
    changed = any(part.startswith("text_") for part in loaded.parts)
    others = [name for name in (*beside, *loaded.beside) if not name.startswith("projection.")]
    findings = [
        *adapter_findings(loaded, baseline),
        *beside_findings(projection, others),
        *preprocessing_findings(live, baseline, own_channels=own),
        text_finding(changed),
        tokenizer_finding(live, baseline, own_text=changed),
        _base_finding(folder, baseline, loaded.config),
        *unread_findings(folder, (ADAPTER_WEIGHTS, HEAD_FILE)),
    ]
    return Checkpoint(
        "adapter", live, dict(loaded.made.merged.named_parameters()), changed, findings
    )


def _take_projection(
    loaded: LoadedAdapter, baseline: Backbone, beside: Mapping[str, Tensor], folder: Path
) -> str | None:
    """Where the projection comes from; a file beside the adapter is read into the model."""
    if "visual_projection" in loaded.parts:
        return "in the adapter"
    if none := _none(baseline):
        return none
    saved = _under("projection.", beside)
    if not saved:
        return None
    for model in (loaded.made.clip, loaded.made.merged):
        own = dict(model.visual_projection.named_parameters())
        assign(own, saved, where=str(folder / HEAD_FILE))
    return f"read from {HEAD_FILE}"


def _none(backbone: Backbone) -> str | None:
    """What is said of a projection where the kind of model has none."""
    return None if backbone.projection_state() else f"none: {backbone.architecture.name} has none"


def _base_finding(folder: Path, baseline: Backbone, config: Mapping[str, Any]) -> Finding:
    """Whether this is the base it was made from: by content where we wrote it, else by name."""
    if (folder / ORIGIN_FILE).is_file():
        if read_json(folder / ORIGIN_FILE).get("backbone_sha256") == baseline.sha256:
            return Finding("base", "ok", f"{baseline.name}, the same content as in training")
        return Finding("base", "wrong", f"not {baseline.name} as it is: trained from other content")
    named = str(config.get("base_model_name_or_path") or "")
    if not named:
        return Finding("base", "note", f"none is named; held against {baseline.name}")
    if Path(named).name == Path(baseline.name).name:
        return Finding("base", "ok", f"{named}, by its name")
    return Finding("base", "note", f"{named} is named, held against {baseline.name}")


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value.detach()
        for name, value in state.items()
        if name.startswith(prefix)
    }
