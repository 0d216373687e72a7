"""The adapted model: image encoder under a method, plus the classifier that trains with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from clipdrift.backbone import Backbone, Encoder, ImageEncoder, TextEncoder, weights_of
from clipdrift.methods import family_of
from clipdrift.methods.class_texts import ClassTexts, Prompts
from clipdrift.methods.full_ft import rate_factors
from clipdrift.methods.head import Head, TextHead, at_random, at_texts
from clipdrift.methods.tower_weights import effective_state
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors
from clipdrift.records.writing import writing_to
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.methods import FullFtSpec

HEAD_FILE = "head.safetensors"
HEAD = "head."
TEXT_FOLDER = "text"
NOT_PLAIN = "no plain weights amount to what this method makes of the vision tower"
"""Why weight drift and interpolated weights are null where `vision_state` is None."""


class AdaptedModel(nn.Module):
    """uint8 images -> class logits: a head on the un-normalised projected embedding.

    texts: of a contrastive loss, its text side; the head then holds the class texts, see
    `read_texts`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        head: Head,
        spec: MethodBase,
        texts: ClassTexts | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.texts = texts
        self.spec = spec
        self.family = family_of(spec)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(pixels))
        return logits

    @property
    def text(self) -> TextEncoder | None:
        """The live text path, where its tower is adapted; None where it is the baseline's."""
        return self.texts.encoder if self.texts else None

    def adapted(self) -> dict[str, Encoder]:
        """The encoders whose towers the method adapts, by the sub-folder they are saved in."""
        found: dict[str, Encoder] = {"": self.encoder} if self.spec.tower != "text" else {}
        return found if self.text is None else {**found, TEXT_FOLDER: self.text}

    def read_texts(self) -> None:
        """Put the head at the class texts as they are read now, where the loss is contrastive.

        To be called when weights have changed, before anything is classified.
        """
        if self.texts is not None and self.texts.prompts:
            at_texts(self.head, self.texts.class_features(), self.texts.scale)

    def keep_bounds(self) -> None:
        """What is bounded after a step: the logit scale, where one trains."""
        if self.texts is not None:
            self.texts.keep_bounds()

    def vision_state(self) -> dict[str, Tensor] | None:
        """The tower's weights as a plain CLIP would hold them; None if no plain CLIP could."""
        if self.spec.tower == "text":
            return effective_state(self.encoder)
        return self.family.effective_state(self.encoder)

    def text_state(self) -> dict[str, Tensor] | None:
        """The text tower's weights likewise, of a model that adapts one."""
        return None if self.text is None else self.family.effective_state(self.text)

    def projection_state(self) -> dict[str, Tensor]:
        """The visual projection's weights as they are; none where the backbone has none."""
        return weights_of(self.encoder.projection)

    def text_projection_state(self) -> dict[str, Tensor]:
        """The text projection's weights as they are; none where no text tower is adapted."""
        return {} if self.text is None else weights_of(self.text.projection)

    def trained(self) -> dict[str, Tensor]:
        """Every tensor that trains, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of every trained tensor, to come back to."""
        return {name: p.detach().clone() for name, p in self.trained().items()}

    def rewind(self, snapshot: Mapping[str, Tensor]) -> None:
        """Come back to a snapshot."""
        assign({k: p.data for k, p in self.trained().items()}, snapshot, where="snapshot")
        self.read_texts()

    def parameter_groups(self, rate: float, head_rate: float) -> Iterator[dict[str, object]]:
        """Optimiser groups: one rate for everything, or one for each depth of a tower; the head's
        own where the study says so."""
        texts = list(self.texts.parameters()) if self.texts else []
        inside: list[tuple[list[nn.Parameter], float]] = [
            ([*self.encoder.parameters(), *texts], rate)
        ]
        if isinstance(self.spec, FullFtSpec) and (decay := self.spec.layer_decay) is not None:
            encoders: list[Encoder] = [self.encoder, *([self.text] if self.text else [])]
            parts = [part for encoder in encoders for part in rate_factors(encoder, decay)]
            own_groups = {id(p) for _, group in parts for p in group}
            inside = [(group, factor * rate) for factor, group in parts]
            inside.append(([p for p in texts if id(p) not in own_groups], rate))
        for part, own in ((list(self.head.parameters()), head_rate), *inside):
            trained = [p for p in part if p.requires_grad]
            if trained:
                yield {"params": trained, "lr": own}

    def rebuilt(self, backbone: Backbone) -> AdaptedModel:
        """The model built anew from the untouched backbone, with the tensors that train here.

        All but its head.

        Raises:
            RecordError: if what trains is not what this method lets train.
        """
        prompts = self.texts.prompts if self.texts else None
        fresh = _bare(backbone, self.spec, self.head.weight.shape[0], prompts)
        _adapt(fresh, seed=0)
        inside = {k: p.data for k, p in fresh.trained().items() if not k.startswith(HEAD)}
        trained = {k: p for k, p in self.trained().items() if not k.startswith(HEAD)}
        assign(inside, trained, where="the encoder that trained")
        return fresh.eval()

    def save(self, folder: Path) -> None:
        """Write the method's own files, and head and projections in one more.

        Those of a text tower lie in a folder of their own. The folder above `folder` must be there.
        """
        for place in (folder, *(folder / name for name in self.adapted())):
            with writing_to(place):
                place.mkdir(exist_ok=True)
        for name, encoder in self.adapted().items():
            self.family.save(encoder, folder / name)
        save_tensors(self._beside(), folder / HEAD_FILE)

    def restore(self, folder: Path) -> None:
        """Read back what `save` wrote onto a fresh, untouched encoder."""
        for name, encoder in self.adapted().items():
            self.family.restore(encoder, self.spec, folder / name)
        self._free_projections()
        saved = load_tensors(folder / HEAD_FILE)
        assign(self._beside(), saved, where=str(folder / HEAD_FILE))

    def _free_projections(self) -> None:
        """Let the projections behind adapted towers train, where the method says so."""
        for encoder in self.adapted().values():
            encoder.projection.requires_grad_(self.spec.projection == "trained")

    def _beside(self) -> dict[str, Tensor]:
        """Head, projections and logit scale, by the names they are saved under."""
        tensors = {f"{HEAD}{k}": p.detach() for k, p in self.head.named_parameters()}
        tensors |= {f"projection.{name}": p for name, p in self.projection_state().items()}
        tensors |= {f"text_projection.{k}": p for k, p in self.text_projection_state().items()}
        return tensors | (self.texts.beside() if self.texts else {})


def build(
    backbone: Backbone,
    spec: MethodBase,
    n_classes: int,
    *,
    seed: int,
    text_features: Tensor | None,
    prompts: Prompts | None = None,
    captions: Sequence[str] = (),
) -> AdaptedModel:
    """The model at step 0: baseline encoder under a method, fresh head.

    The head depends on (seed, shape) alone and so is equal for all matched methods.

    Args:
        text_features: [C, E] unit class embeddings, needed for `head_init: text`.
        prompts: of each class, equally many, needed for `loss: contrastive`.
        captions: instead, where images have captions and there are no classes.

    Raises:
        MethodError: if the method's options do not fit the backbone.
    """
    model = _bare(backbone, spec, n_classes, prompts, captions)
    _adapt(model, seed=seed)
    if model.texts is not None:
        model.read_texts()
    elif spec.head_init == "text" and text_features is not None:
        at_texts(model.head, text_features, backbone.logit_scale)
    elif isinstance(model.head, nn.Linear):
        at_random(model.head, seed)
    return model


def reload(
    backbone: Backbone,
    spec: MethodBase,
    n_classes: int,
    folder: Path,
    *,
    prompts: Prompts | None = None,
) -> AdaptedModel:
    """The model that a run saved, rebuilt from the untouched backbone.

    Without `prompts` a contrastive model classifies by the class texts that were saved, and can
    neither go on training nor be given other weights.

    Files are taken as they are. Call `evaluate.finished_run` first, as every command does: it holds
    them to the hashes in the run's record.

    Raises:
        RecordError: if a file is missing or damaged, or its tensors are not the expected ones.
    """
    model = _bare(backbone, spec, n_classes, prompts)
    model.restore(folder)
    return model.eval()


def _adapt(model: AdaptedModel, *, seed: int) -> None:
    for encoder in model.adapted().values():
        model.family.adapt(encoder, model.spec, seed)
    model._free_projections()


def _bare(
    backbone: Backbone,
    spec: MethodBase,
    n_classes: int,
    prompts: Prompts | None,
    captions: Sequence[str] = (),
) -> AdaptedModel:
    encoder, texts = backbone.encoder(), None
    if spec.loss == "contrastive":
        texts = ClassTexts(
            backbone,
            prompts or [],
            trains=spec.tower != "vision",
            scale_trains=spec.logit_scale == "trained",
            captions=captions,
        )
    kind = nn.Linear if spec.head == "trained" else TextHead
    head: Head = kind(backbone.width, n_classes).to(encoder.mean.device)
    return AdaptedModel(encoder, head, spec, texts)
