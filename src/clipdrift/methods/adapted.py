"""The adapted model: image encoder under a method, plus the classifier that trains with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.methods import Family, family_of
from clipdrift.methods.head import Head, TextHead, at_random, at_texts
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors
from clipdrift.spec.methods import MethodBase

HEAD_FILE = "head.safetensors"
ENCODER = "encoder."
NOT_PLAIN = "no plain weights amount to what this method makes of the vision tower"
"""Why weight drift and interpolated weights are null where `vision_state` is None."""


class AdaptedModel(nn.Module):
    """uint8 images -> class logits: a head on the un-normalised projected embedding."""

    def __init__(self, encoder: ImageEncoder, head: Head, spec: MethodBase) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.spec = spec
        self.family = family_of(spec)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(pixels))
        return logits

    def vision_state(self) -> dict[str, Tensor] | None:
        """The tower's weights as a plain CLIP would hold them; None if no plain CLIP could."""
        return self.family.effective_state(self.encoder)

    def projection_state(self) -> dict[str, Tensor]:
        """The visual projection's weights as they are; none where the backbone has none."""
        return {name: p.detach() for name, p in self.encoder.projection.named_parameters()}

    def trained(self) -> dict[str, Tensor]:
        """Every tensor that trains, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of every trained tensor, to come back to."""
        return {name: p.detach().clone() for name, p in self.trained().items()}

    def rewind(self, snapshot: dict[str, Tensor]) -> None:
        """Come back to a snapshot."""
        assign({k: p.data for k, p in self.trained().items()}, snapshot, where="snapshot")

    def parameter_groups(self, rate: float, head_rate: float) -> Iterator[dict[str, object]]:
        """Optimiser groups: one rate for everything, the head's own where the study says so."""
        for part, own in ((self.head, head_rate), (self.encoder, rate)):
            trained = [p for p in part.parameters() if p.requires_grad]
            if trained:
                yield {"params": trained, "lr": own}

    def rebuilt(self, backbone: Backbone) -> ImageEncoder:
        """The encoder built anew from the untouched backbone, with the tensors that train here.

        Raises:
            RecordError: if what trains is not what this method lets train.
        """
        encoder = backbone.encoder()
        _adapt(encoder, self.family, self.spec, seed=0)
        fresh = {f"{ENCODER}{n}": p.data for n, p in encoder.named_parameters() if p.requires_grad}
        trained = {n: p for n, p in self.trained().items() if n.startswith(ENCODER)}
        assign(fresh, trained, where="the encoder that trained")
        return encoder.eval()

    def save(self, folder: Path) -> None:
        """Write the method's own files, and head and projection in one more."""
        self.family.save(self.encoder, folder)
        save_tensors(self._head_and_projection(), folder / HEAD_FILE)

    def restore(self, folder: Path) -> None:
        """Read back what `save` wrote onto a fresh, untouched encoder."""
        self.family.restore(self.encoder, self.spec, folder)
        self.encoder.projection.requires_grad_(self.spec.projection == "trained")
        saved = load_tensors(folder / HEAD_FILE)
        assign(self._head_and_projection(), saved, where=str(folder / HEAD_FILE))

    def _head_and_projection(self) -> dict[str, Tensor]:
        tensors = {f"head.{k}": p.detach() for k, p in self.head.named_parameters()}
        projection = self.projection_state()
        return {**tensors, **{f"projection.{name}": p for name, p in projection.items()}}


def build(
    backbone: Backbone, spec: MethodBase, n_classes: int, *, seed: int, text_features: Tensor | None
) -> AdaptedModel:
    """The model at step 0: baseline encoder under a method, fresh head.

    The head depends on (seed, shape) alone and so is equal for all matched methods.

    Args:
        text_features: [C, E] unit class embeddings, needed for `head_init: text`.

    Raises:
        MethodError: if the method's options do not fit the backbone.
    """
    model = _bare(backbone, spec, n_classes)
    _adapt(model.encoder, model.family, spec, seed=seed)
    if spec.head_init == "text" and text_features is not None:
        at_texts(model.head, text_features, backbone.logit_scale)
    elif isinstance(model.head, nn.Linear):
        at_random(model.head, seed)
    return model


def reload(backbone: Backbone, spec: MethodBase, n_classes: int, folder: Path) -> AdaptedModel:
    """The model that a run saved, rebuilt from the untouched backbone.

    Files are taken as they are. Call `evaluate.finished_run` first, as every command does: it holds
    them to the hashes in the run's record.

    Raises:
        RecordError: if a file is missing or damaged, or its tensors are not the expected ones.
    """
    model = _bare(backbone, spec, n_classes)
    model.restore(folder)
    return model.eval()


def _adapt(encoder: ImageEncoder, family: Family, spec: MethodBase, *, seed: int) -> None:
    family.adapt(encoder, spec, seed)
    encoder.projection.requires_grad_(spec.projection == "trained")


def _bare(backbone: Backbone, spec: MethodBase, n_classes: int) -> AdaptedModel:
    encoder = backbone.encoder()
    kind = nn.Linear if spec.head == "trained" else TextHead
    head: Head = kind(backbone.width, n_classes).to(encoder.mean.device)
    return AdaptedModel(encoder, head, spec)
