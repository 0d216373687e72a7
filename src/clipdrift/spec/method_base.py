"""What every method of a study states, whatever it trains."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from clipdrift.spec.part import Name, Part, broken_rule
from clipdrift.spec.penalties import PenaltySpec

LearningRate = Annotated[float, Field(gt=0, le=10)]
NO_HEAD = {"head": "frozen", "head_init": "text", "head_lr": "matched"}
"""Of a contrastive loss: classes are read zero-shot by their texts."""


class MethodBase(Part):
    """What every method states openly, so that nothing hides in its name.

    role: `matched` methods share the study's learning rates and are compared pair by pair;
    `reference` methods are points to hold them against, with rates and targets of their own.
    """

    adapts_text: ClassVar[bool] = False
    """Whether `tower` may be text or both."""
    needs_a_head: ClassVar[bool] = False
    """Whether it trains a classifier, which a contrastive loss does not have."""

    name: Name
    role: Literal["matched", "reference"] = "matched"
    loss: Literal["cross_entropy", "contrastive"] = Field(
        "cross_entropy",
        description="contrastive: images against their captions, or the prompts of their classes, "
        "by the loss that the backbone was pretrained with; no head trains",
    )
    tower: Literal["vision", "text", "both"] = Field(
        "vision",
        description="which towers are adapted; text and both need loss: contrastive and one of "
        "full_ft, bitfit, lora, peft",
    )
    positives: Literal["pair", "caption", "class"] = Field(
        "pair",
        description="which texts of a batch are right for an image, with loss: contrastive: its "
        "own; or equal ones of other images too; or those of its class",
    )
    logit_scale: Literal["trained", "frozen"] = Field(
        "trained",
        description="of a contrastive loss: trained with all else, that of a CLIP to at most 100; "
        "or as the checkpoint has it, a SigLIP's bias too",
    )
    projection: Literal["trained", "frozen"] = Field(
        "trained", description="of each tower that is adapted"
    )
    head_init: Literal["random", "text"] = "random"
    head: Literal["trained", "frozen"] = Field(
        "trained",
        description="frozen: zero-shot classification by the class texts, with head_init: text",
    )
    head_lr: Literal["matched"] | LearningRate = "matched"
    probe_epochs: int = Field(
        0, ge=0, description="epochs of the head alone, before the schedule, as in LP-FT"
    )
    probe_lr: LearningRate = Field(1e-3, description="peak rate of the head in those epochs")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="overrides schedule.batch_size; every matched method names its own where "
        "varied holds batch_size",
    )
    penalties: list[PenaltySpec] = Field(
        [], description="what is added to the loss, each with its weight"
    )
    learning_rates: list[LearningRate] | None = None
    targets: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _classes_are_read_zero_shot(cls, value: Any) -> Any:
        """With a contrastive loss the head is the class texts: it need not be said."""
        if not isinstance(value, dict) or value.get("loss") != "contrastive":
            return value
        if cls.needs_a_head:
            expected = "loss: cross_entropy where a classifier trains"
            step = "Leave loss out, or choose a method that trains a part of the encoder"
            raise broken_rule(expected, "contrastive", step)
        said = [key for key in ("head", "head_init", "head_lr") if key in value]
        if wrong := [key for key in said if value[key] != NO_HEAD[key]]:
            expected = "no head with loss: contrastive, whose classes are read zero-shot"
            got = ", ".join(f"{key}: {value[key]}" for key in wrong)
            raise broken_rule(expected, got, f"Leave {' and '.join(wrong)} out")
        return {**NO_HEAD, **value}

    @model_validator(mode="after")
    def _a_text_tower_that_is_read_and_adapted(self) -> Self:
        if self.tower != "vision" and not self.adapts_text:
            kind = getattr(self, "kind", self.name)
            step = "Leave tower out, or choose full_ft, bitfit, lora or peft"
            raise broken_rule(f"tower: vision with kind: {kind}", self.tower, step)
        if self.tower != "vision" and self.loss != "contrastive":
            expected = "tower: vision with loss: cross_entropy, which reads no text"
            step = "Set loss: contrastive, or leave tower out"
            raise broken_rule(expected, self.tower, step)
        return self

    @model_validator(mode="after")
    def _only_of_a_contrastive_loss(self) -> Self:
        said = [key for key in ("positives", "logit_scale") if getattr(self, key) != ADDED[key]]
        if said and self.loss != "contrastive":
            step = f"Set loss: contrastive, or leave {' and '.join(said)} out"
            raise broken_rule("loss: contrastive", f"{self.loss} with {' and '.join(said)}", step)
        return self

    @model_validator(mode="after")
    def _own_grid_only_for_references(self) -> Self:
        own = [key for key in ("learning_rates", "targets") if getattr(self, key) is not None]
        if self.role == "matched" and own:
            raise broken_rule(
                "the study's own grid for a matched method",
                f"{' and '.join(own)} on {self.name!r}",
                "Set role: reference, or remove it",
            )
        return self

    @model_validator(mode="after")
    def _a_head_that_trains_where_it_is_probed(self) -> Self:
        if self.probe_epochs and self.head == "frozen":
            step = "Leave probe_epochs out"
            raise broken_rule("a head that trains with probe_epochs", "head: frozen", step)
        return self

    @model_validator(mode="after")
    def _a_frozen_head_is_at_the_texts(self) -> Self:
        if self.head == "frozen" and self.head_init != "text":
            raise broken_rule(
                "head_init: text with head: frozen", self.head_init, "A random head has to train"
            )
        return self


class LayersSpec(Part):
    """Which blocks of the vision tower are adapted: exactly one of the three."""

    first: int | None = Field(None, ge=1, description="the first so many blocks")
    last: int | None = Field(None, ge=1, description="the last so many blocks")
    range: tuple[int, int] | None = Field(
        None, description="[a, b]: blocks a to b - 1, counted from 0"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        said = {k: v for k, v in self.model_dump().items() if v is not None}
        if len(said) != 1:
            step = "Say which blocks in one way, or leave layers out for all"
            raise broken_rule("exactly one of first, last, range", said or "none", step)
        if self.range is not None and not 0 <= self.range[0] < self.range[1]:
            step = "Count blocks from 0; the end is not included"
            raise broken_rule("a range [a, b] with 0 <= a < b", list(self.range), step)
        return self

    def places(self, n_blocks: int) -> list[int]:
        """Positions of the blocks among `n_blocks`; those that are not there are left out.

        >>> LayersSpec(last=2).places(6), LayersSpec(range=(1, 3)).places(6)
        ([4, 5], [1, 2])
        """
        start, end = self.range or (0, self.first or n_blocks)
        if self.last is not None:
            start = n_blocks - self.last
        return [place for place in range(n_blocks) if start <= place < end]

    def blocks_needed(self) -> int:
        """The least number of blocks of a tower that has all that are named."""
        return self.first or self.last or (self.range or (0, 0))[1]


ADDED: dict[str, Any] = {
    "head": "trained",
    "probe_epochs": 0,
    "penalties": [],
    "layers": None,
    "tower": "vision",
    "loss": "cross_entropy",
    "positives": "pair",
    "logit_scale": "trained",
    "batch_size": None,
    "layer_decay": None,
}
"""Fields that methods got after records were made, with their defaults: what is not asked for is no
part of a run's identity, so that those records are still those of their runs."""


def asked_of_method(resolved: dict[str, Any]) -> dict[str, Any]:
    """A resolved method without its role, which changes no number, and what is not asked for."""
    aside = ("role",) if resolved.get("probe_epochs") else ("role", "probe_lr")
    kept = {key: value for key, value in resolved.items() if key not in aside}
    return {k: v for k, v in kept.items() if k not in ADDED or v != ADDED[k]}
