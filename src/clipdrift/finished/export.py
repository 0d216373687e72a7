"""A run's model in the formats of transformers and peft, read back and held to the run.

Merged: a whole model, adapted towers and projections in place. Adapter: the LoRA factors as
peft reads them onto the untouched vision tower, with head and projection in a file beside them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone, at_hand, backbone_folder, backbone_source, load_backbone
from clipdrift.backbone.preprocessing import IMAGE_PROCESSOR, PROCESSOR, RESAMPLE
from clipdrift.backbone.text import TRIAL
from clipdrift.checkpoint.find import ORIGIN_FILE, read_json
from clipdrift.errors import AdapterInactiveError, Fault, MethodError
from clipdrift.finished.card_head import TARGET, ZERO_SHOT, told_of_run, with_head
from clipdrift.finished.convert import as_open_clip
from clipdrift.finished.evaluate import finished_run
from clipdrift.finished.folders import new_folder
from clipdrift.finished.model_card import card
from clipdrift.finished.saved import ADAPTED, Saved, made_of, plain_model, saved_run
from clipdrift.formats.write import COPIED
from clipdrift.methods.adapted import HEAD_FILE
from clipdrift.methods.guard import ROUNDING, relative
from clipdrift.methods.peft_folder import CONFIG, WEIGHTS
from clipdrift.methods.peft_folder import FOLDER as ADAPTER_FOLDER
from clipdrift.methods.weights_file import save_tensors
from clipdrift.records import atomic_write
from clipdrift.run.files import CLASSES_FILE
from clipdrift.spec.parts import BackboneSpec


def export_merged(
    run_dirs: Path | Sequence[Path], out: Path, *, alpha: float = ADAPTED, scale: float = ADAPTED
) -> None:
    """Write the run's model as a folder that transformers loads as it does the backbone, float32.

    Of several runs, an `alpha` or a `scale`: the weights that `made_of` makes. A text tower that
    was not adapted is the backbone's, bit by bit; a contrastive run brings its logit scale.
    Tokenizer and preprocessing are copied.

    Raises:
        MethodError: if no plain weights amount to what the method makes of the vision tower.
        ClipdriftError: if the run cannot be read, or `out` has something in it.
    """
    saved = made_of([run_dirs] if isinstance(run_dirs, Path) else run_dirs, alpha, scale)
    model = plain_model(saved)
    with new_folder(out) as folder:
        model.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):  # written for the owner's eyes alone
            shutil.copymode(folder / "config.json", path)
        base = backbone_folder(saved.config.backbone)
        for path in (base / name for name in COPIED):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        if not any((folder / name).is_file() for name in (PROCESSOR, IMAGE_PROCESSOR)):
            said = json.dumps(_preprocessing(saved.backbone), indent=1)
            atomic_write(folder / IMAGE_PROCESSOR, said)
        head = {f"head.{k}": v for k, v in saved.model.head.state_dict().items()}
        save_tensors(head, folder / HEAD_FILE)
        _write_origin(saved, folder, base=None)
        written = load_backbone(BackboneSpec(id=str(folder)))
        images = saved.backbone.trial_images()
        with torch.inference_mode():
            _require_equal(written.live_encoder()(images), saved.model.encoder(images), out)
            if saved.model.text is not None:
                _require_equal(written.live_text_encoder()(TRIAL), saved.model.text(TRIAL), out)


def export_open_clip(
    run_dirs: Path | Sequence[Path], out: Path, *, alpha: float = ADAPTED, scale: float = ADAPTED
) -> None:
    """Write the run's model as open_clip keeps one; head, classes and origin lie beside it.

    Raises:
        MethodError, ClipdriftError: as `export_merged`.
        BackboneError: if open_clip has no such model.
    """
    with new_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as place:
        merged_folder = Path(place) / out.name
        export_merged(run_dirs, merged_folder, alpha=alpha, scale=scale)
        as_open_clip(merged_folder, folder, str(out))
        for name in (HEAD_FILE, ORIGIN_FILE):
            shutil.copyfile(merged_folder / name, folder / name)


def export_adapter(run_dir: Path, out: Path) -> None:
    """Write an adapter as a folder that `PeftModel.from_pretrained` loads onto the vision tower.

    Raises:
        MethodError: if the run is not one of an adapter of peft's on the vision tower.
        ClipdriftError: if the run cannot be read, or `out` has something in it.
    """
    _, config = finished_run(run_dir)
    if config.method.kind not in ("lora", "peft"):
        expected = "a run of an adapter of peft's (lora, peft) for --adapter"
        raise MethodError(Fault(str(run_dir), expected, config.method.kind, "Use --merged"))
    if config.method.tower != "vision":
        expected = "a run whose adapter lies on the vision tower, for --adapter"
        got = f"tower: {config.method.tower}"
        raise MethodError(Fault(str(run_dir), expected, got, "Use --merged"))
    saved = saved_run(run_dir)
    with new_folder(out) as folder:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(run_dir / ADAPTER_FOLDER / name, folder / name)
        shutil.copyfile(run_dir / HEAD_FILE, folder / HEAD_FILE)
        spec = saved.config.backbone
        found = backbone_source(spec)
        # What peft and transformers find by this name themselves goes by it.
        named = not at_hand(spec.id) and isinstance(found, Path)
        base = spec.id if named else str(backbone_folder(spec))
        _write_origin(saved, folder, base=base)
        read_back = saved.backbone.encoder()
        read_back.projection.load_state_dict(saved.model.encoder.projection.state_dict())
        _wrap(read_back.tower, folder)
        images = saved.backbone.trial_images()
        with torch.inference_mode():
            _require_equal(read_back(images), saved.model.encoder(images), out)


def _preprocessing(backbone: Backbone) -> dict[str, Any]:
    """How its images were shown, as transformers writes it: the backbone's folder did not say."""
    side, size = backbone.resized, backbone.image_size
    short = backbone.resize_mode == "shortest"
    kind = backbone.architecture.model_class.removesuffix("Model")
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "size": {"shortest_edge": side} if short else {"height": side, "width": side},
        "do_center_crop": short or side != size,
        "crop_size": {"height": size, "width": size},
        "resample": RESAMPLE[backbone.interpolation],
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
    }


def _wrap(tower: Any, folder: Path) -> None:
    """Put an adapter onto a tower with peft's own loader, in place."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's use of transformers
        PeftModel.from_pretrained(tower, folder).eval()


def _require_equal(read_back: Tensor, live: Tensor, out: Path) -> None:
    """What was written, read by the library it is for, gives the run's embeddings."""
    difference = relative(read_back, live)
    if not difference <= ROUNDING:
        raise AdapterInactiveError(
            Fault(
                str(out),
                "an export that gives the embeddings of the run",
                f"a relative difference of {difference:.2e}",
                "Nothing was written; use the versions of transformers and peft of the run, or "
                "--merged where peft draws the adapter's start anew when it loads it",
            )
        )


def _write_origin(saved: Saved, folder: Path, *, base: str | None) -> None:
    """What it comes from, its classes, and a README; `base` is what an adapter is put onto."""
    origin = json.dumps(origin_of(saved), indent=1, ensure_ascii=False)
    atomic_write(folder / ORIGIN_FILE, origin)
    model_class = saved.backbone.architecture.model_class
    resample = RESAMPLE[saved.config.interpolation]
    text = card(
        saved.record,
        saved.config,
        made=saved.made,
        model_class=model_class,
        resample=resample,
        base=base,
    )
    target = saved.config.target
    headed = with_head(
        text,
        () if saved.made else told_of_run(saved.record.result, target.name),
        name=saved.record.run_id,
        backbone=saved.config.backbone.id,
        library="peft" if base else "transformers",
        task=ZERO_SHOT if target.paired else TARGET,
    )
    atomic_write(folder / "README.md", headed)


def origin_of(saved: Saved) -> dict[str, Any]:
    """What a model comes from, what its outputs are called, and how images are shown to it."""
    return {
        "run_id": saved.record.run_id,
        "identity": saved.record.identity,
        **({"made": saved.made} if saved.made else {}),
        "backbone": saved.config.backbone.model_dump(mode="json"),
        "backbone_sha256": saved.backbone.sha256,
        "target": saved.config.target.name,
        "method": saved.config.method.model_dump(mode="json"),
        "interpolation": saved.config.interpolation,
        "several_labels": saved.config.target.several,
        **_classes(saved),
    }


def _classes(saved: Saved) -> dict[str, Any]:
    """Names and templates; numbers where an earlier version kept no names."""
    path = saved.run_dir / CLASSES_FILE
    if path.is_file():
        return read_json(path)
    return {"classes": [str(number) for number in range(len(saved.model.head.weight))]}
