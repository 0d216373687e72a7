"""An untouched backbone, ready to be copied from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone.architecture import Architecture
from clipdrift.backbone.encoder import ImageEncoder, weights_of
from clipdrift.backbone.text import TextEncoder, Tokens
from clipdrift.data.decode import Interpolation, ResizeMode, Square
from clipdrift.errors import BackboneError, Fault, is_failure
from clipdrift.formats.source import WITH_WEIGHTS

RESTORE = "Restore the tokenizer files of this model"
TRIED_IMAGES = 4


@dataclass(frozen=True)
class Backbone:
    """An untouched CLIP or SigLIP. Never modified: methods work on `encoder()`, a copy.

    image_size, resize_mode, resized, interpolation, mean, std: see `Preprocessing`.
    """

    name: str
    architecture: Architecture
    model: Any
    tokenizer: Any
    image_size: int
    resize_mode: ResizeMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    precision_on_disk: str
    resized: int
    interpolation: Interpolation

    def square(self, interpolation: Interpolation | None = None) -> Square:
        """What its images are made into; by another filter than its own where a study names one."""
        filter_ = interpolation or self.interpolation
        return Square(self.image_size, filter_, self.resize_mode, self.resized)

    @property
    def width(self) -> int:
        """E, the width of an image or text embedding."""
        return self.architecture.width(self.model)

    def require_texts(self, where: str) -> None:
        """Refuse an image tower alone where classes or captions are read.

        Args:
            where: key of what needs texts.
        """
        if not hasattr(self.model, "text_model"):
            got = f"backbone {self.name}, an image tower alone"
            raise BackboneError(Fault(where, "a backbone that reads texts", got, WITH_WEIGHTS))

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with to be logits, as the checkpoint learned it."""
        return float(self.model.logit_scale.detach().exp())

    def encoder(self) -> ImageEncoder:
        """A fresh copy of the image encoder, frozen, in eval mode."""
        return copy.deepcopy(self.live_encoder()).requires_grad_(False).eval()

    def live_encoder(self) -> ImageEncoder:
        """The image path of the model as it is, not a copy, in eval mode."""
        projection = self.architecture.projection(self.model)
        encoder = ImageEncoder(self.model.vision_model, projection, self.mean, self.std)
        return encoder.to(next(encoder.tower.parameters()).device).eval()

    def trial_images(self) -> Tensor:
        """uint8 [4, S, S, 3] of noise: a difference of weights shows on any image."""
        shape = (TRIED_IMAGES, self.image_size, self.image_size, 3)
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
        return images.to(self.model.device)

    def text_encoder(self) -> TextEncoder:
        """A fresh copy of the text encoder, frozen, in eval mode."""
        live = self.live_text_encoder()
        tower, projection = copy.deepcopy((live.tower, live.projection))
        return TextEncoder(tower, projection, self._tokens).requires_grad_(False).eval()

    def live_text_encoder(self) -> TextEncoder:
        """The text path of the model as it is, not a copy, in eval mode."""
        self.require_texts("texts")
        projection = self.architecture.text_projection(self.model)
        return TextEncoder(self.model.text_model, projection, self._tokens).eval()

    def text_features(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Unit text embeddings [C, E] of classes: `TextEncoder.class_features` of the model."""
        return self.live_text_encoder().class_features(prompts)

    def _tokens(self, prompts: Sequence[str]) -> Tokens:
        text, where = self.model.config.text_config, f"backbone {self.name}"
        with _tokenizing(where):
            tokens = self.architecture.tokens(self.tokenizer, prompts, text.max_position_embeddings)
        _require_known(tokens["input_ids"], text.vocab_size, where)
        return tokens

    def uncut_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts in full, without those that the tokenizer puts around them."""
        written = [self.architecture.written(prompt) for prompt in prompts]
        with _tokenizing(f"backbone {self.name}"):
            ids: list[list[int]] = self.tokenizer(
                written, add_special_tokens=False, truncation=False
            ).input_ids
        return ids

    def vision_state(self) -> dict[str, Tensor]:
        """The tower's weights by name: what weight drift is measured against."""
        return weights_of(self.model.vision_model)

    def text_state(self) -> dict[str, Tensor]:
        """The text tower's weights by name."""
        return weights_of(self.model.text_model)

    def projection_state(self) -> dict[str, Tensor]:
        """The visual projection's weights by name; none where there is no projection."""
        return weights_of(self.architecture.projection(self.model))

    def text_projection_state(self) -> dict[str, Tensor]:
        """The text projection's weights by name, likewise."""
        return weights_of(self.architecture.text_projection(self.model))


@contextmanager
def _tokenizing(where: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # tokenizers raise no narrower kind, and panic
        if not is_failure(error):
            raise
        expected = "a tokenizer that reads class prompts"
        raise BackboneError(Fault(where, expected, str(error), RESTORE)) from error


def _require_known(ids: Tensor, vocab_size: int, where: str) -> None:
    """Refuse token ids without an embedding: the tokenizer is another model's, or was edited."""
    if ids.numel() and int(ids.min()) >= 0 and int(ids.max()) < vocab_size:
        return
    got = f"ids up to {int(ids.max())}" if ids.numel() else "no tokens"
    raise BackboneError(Fault(where, f"token ids from 0 to {vocab_size - 1}", got, RESTORE))
