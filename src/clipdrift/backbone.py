"""Loading a CLIP, its image encoder and its text features.

A backbone is always read from a folder in transformers format: the embedded `mini-clip`, a folder
of the user's, or a snapshot of a hub repository. Weights are safetensors, loaded as float32.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.errors import BackboneError, Fault
from clipdrift.hub import snapshot
from clipdrift.sizes import size_faults
from clipdrift.spec.parts import BackboneSpec

EMBEDDED = ("mini-clip",)


class ImageEncoder(nn.Module):
    """uint8 images -> un-normalised projected embeddings, through the vision tower as it is now.

    Whatever adapts the tower does so in place, so the path that is trained, probed and scored
    is one and the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, tower: nn.Module, projection: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] with the checkpoint's mean and std."""
        return (pixels.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> embeddings [B, E]."""
        pooled: Tensor = self.tower(pixel_values=pixel_values).pooler_output
        embeddings: Tensor = self.projection(pooled)
        return embeddings

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encode(self.normalise(pixels))


@dataclass(frozen=True)
class Backbone:
    """An untouched CLIP. Never modified: methods work on `encoder()`, a copy."""

    name: str
    model: Any
    tokenizer: Any
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    precision_on_disk: str

    def encoder(self) -> ImageEncoder:
        """A fresh copy of the image encoder, frozen, in eval mode."""
        encoder = ImageEncoder(
            copy.deepcopy(self.model.vision_model),
            copy.deepcopy(self.model.visual_projection),
            self.mean,
            self.std,
        )
        return encoder.requires_grad_(False).eval()

    @torch.no_grad()
    def text_features(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Unit text embeddings of classes, averaged over their prompts.

        Args:
            prompts: for each class its prompts, e.g. `[["a photo of a cat"], ["a dog"]]`.

        Returns:
            [C, E] float32, rows of unit length (the ensembling of Radford et al. 2021, sec. 3.1.4).
        """
        features = []
        for group in prompts:
            tokens = self.tokenizer(
                list(group),
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            known = self.model.config.text_config.vocab_size
            _require_known(tokens.input_ids, known, f"backbone {self.name}")
            out = self.model.get_text_features(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
            ).pooler_output
            unit = nn.functional.normalize(out.float(), dim=-1)
            features.append(nn.functional.normalize(unit.mean(dim=0), dim=0))
        return torch.stack(features)

    def vision_state(self) -> dict[str, Tensor]:
        """The tower's weights by name: what weight drift is measured against."""
        return {name: p.detach() for name, p in self.model.vision_model.named_parameters()}


def _require_known(ids: Tensor, vocab_size: int, where: str) -> None:
    """Refuse token ids without an embedding: the tokenizer is another model's, or was edited."""
    if ids.numel() and int(ids.min()) >= 0 and int(ids.max()) < vocab_size:
        return
    got = f"ids up to {int(ids.max())}" if ids.numel() else "no tokens"
    step = "Restore the tokenizer files of this model"
    raise BackboneError(Fault(where, f"token ids from 0 to {vocab_size - 1}", got, step))


def load_backbone(spec: BackboneSpec, *, device: str = "cpu") -> Backbone:
    """Load a CLIP as float32 with exact key accounting.

    Raises:
        BackboneError: missing folder, hub out of reach, not a CLIP, keys missing or left over.
    """
    folder = backbone_folder(spec)
    model, config = load_clip(folder, spec)
    tokenizer = load_tokenizer(folder, spec)
    size, mean, std = preprocessing(folder, config, spec)
    return Backbone(
        name=spec.id if spec.id in EMBEDDED else folder.name if Path(spec.id).is_dir() else spec.id,
        model=model.to(device),
        tokenizer=tokenizer,
        image_size=size,
        mean=mean,
        std=std,
        sha256=folder_hash(folder),
        precision_on_disk=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


def load_clip(folder: Path, spec: BackboneSpec) -> tuple[Any, dict[str, Any]]:
    """The float32 model of a folder, every key accounted for, and its configuration as written.

    Raises:
        BackboneError: not a CLIP, files missing or damaged, keys missing or left over.
    """
    from transformers import CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config = _read_json(folder / "config.json", spec)
    if config.get("model_type") != "clip":
        raise _fault(
            spec, "a CLIP checkpoint (model_type clip)", repr(config.get("model_type")), _CONVERT
        )
    if wrong := size_faults(config, folder, f"backbone {spec.id}"):
        raise BackboneError(wrong)
    with _loading(spec):
        model, loading = CLIPModel.from_pretrained(
            folder,
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
        raise _fault(
            spec,
            "weights that match the model key by key",
            f"{len(unmatched)} that do not, first {unmatched[0]!r}",
            _CONVERT,
        )
    return model.requires_grad_(False).eval(), config


def load_tokenizer(folder: Path, spec: BackboneSpec) -> Any:
    """The tokenizer of a folder.

    Raises:
        BackboneError: files missing or damaged.
    """
    from transformers import AutoTokenizer

    with _loading(spec):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _loading(spec: BackboneSpec) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every library below has errors of its own for damaged files
        raise _fault(
            spec,
            "a loadable transformers folder",
            " ".join(str(error).split())[:160],
            "Check that it holds config.json, model.safetensors and the tokenizer files",
        ) from None


_CONVERT = "Name a CLIP in transformers format, for example openai/clip-vit-base-patch32"


def backbone_folder(spec: BackboneSpec) -> Path:
    """The local folder of a backbone: embedded, the user's, or a snapshot from the hub.

    Raises:
        BackboneError: if there is none.
    """
    if spec.id in EMBEDDED:
        return Path(str(files("clipdrift").joinpath("assets", spec.id)))
    if os.path.isdir(spec.id):
        return Path(spec.id)
    if spec.id.startswith((".", "/", "~")):
        raise _fault(spec, "a model folder", "nothing there", "Check the path")
    return snapshot(spec.id, spec.revision)


def folder_hash(folder: Path) -> str:
    """SHA-256 over config, weights and tokenizer of a model folder, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".txt"}:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def preprocessing(
    folder: Path, config: Mapping[str, Any], spec: BackboneSpec
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Image size, mean and std: the checkpoint's own, else CLIP's."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    path = folder / "preprocessor_config.json"
    size = int((config.get("vision_config") or {}).get("image_size", 224))
    try:
        own = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        mean = tuple(float(v) for v in own.get("image_mean") or OPENAI_CLIP_MEAN)
        std = tuple(float(v) for v in own.get("image_std") or OPENAI_CLIP_STD)
        if (len(mean), len(std)) != (3, 3) or min(std) <= 0:
            raise ValueError
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise _fault(
            spec,
            "three channel means and positive deviations",
            str(path),
            "Mend or remove the file",
        ) from None
    return size, mean, std


def _read_json(path: Path, spec: BackboneSpec) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _fault(spec, "a folder with a readable config.json", str(path), _CONVERT)
    return value


def _fault(spec: BackboneSpec, expected: str, got: str, next_step: str) -> BackboneError:
    return BackboneError(Fault(f"backbone {spec.id}", expected, got, next_step))
