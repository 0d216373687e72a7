"""The methods of a study as pydantic models: what trains, and with which options."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    model_validator,
)

from clipdrift.spec.datasets import Name, Part, PluginOption, broken_rule
from clipdrift.spec.penalties import PenaltySpec

LearningRate = Annotated[float, Field(gt=0, le=10)]
NO_HEAD = {"head": "frozen", "head_init": "text", "head_lr": "matched"}
"""Of a contrastive loss: classes are read zero-shot by their texts."""


def _lower(name: str) -> str:
    """peft's names of types are written in many ways: LN_TUNING, ln-tuning."""
    return name.lower().replace("-", "_")


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


class FullFtSpec(MethodBase):
    """Full fine-tuning of the vision tower, or of those that `tower` names.

    With `loss: contrastive` and `tower: both` it is FLYP (Goyal et al. 2023).
    """

    adapts_text: ClassVar[bool] = True

    kind: Literal["full_ft"]
    layers: LayersSpec | None = Field(
        None, description="blocks that train, and nothing else of the tower; all of it by default"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="factor d of layer-wise rates: d^k for the k-th block from the output, one d "
        "more for what lies before all blocks, 1 for what lies behind them",
    )


class LoraSpec(MethodBase):
    """LoRA on linear layers of the blocks of a tower, scaled by alpha / rank."""

    adapts_text: ClassVar[bool] = True

    kind: Literal["lora"]
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    modules: list[str] = Field(["q_proj", "v_proj"], min_length=1)
    layers: LayersSpec | None = Field(None, description="all blocks where it is left out")


def _one_value(value: Any) -> Any:
    """No list or mapping, which place adapters or describe other models, and a number of JSON's."""
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    step = "Give one value, or leave the option out for peft's default"
    raise broken_rule("a finite number, a text, true or false", value, step)


PeftOption = Annotated[bool | int | float | str, BeforeValidator(_one_value)]


class PeftSpec(MethodBase):
    """Any adapter that peft can put into the layers of a tower, by name.

    `{kind: peft, type: lora, options: {r: 8, lora_alpha: 16, use_dora: true}}`. `options` are the
    fields of peft's configuration of that type, held to their names and types before anything is
    trained; what decides where adapters lie is said by `modules` and `layers`. The adapter has to
    start at the baseline.
    """

    adapts_text: ClassVar[bool] = True

    kind: Literal["peft"]
    type: Annotated[str, AfterValidator(_lower)] = Field(
        description="lora, loha, lokr, oft, boft, ia3, vera, randlora, ln_tuning, hra, fourierft, "
        "... in any case"
    )
    options: dict[str, PeftOption] = Field({}, description="of peft's configuration of the type")
    modules: list[str] | None = Field(
        None,
        min_length=1,
        description="names of layers; default q_proj, v_proj; for ia3 k_proj, v_proj, fc2; for "
        "ln_tuning every layer norm",
    )
    layers: LayersSpec | None = Field(None, description="all blocks where it is left out")


class LinearProbeSpec(MethodBase):
    """A linear classifier on frozen image embeddings."""

    needs_a_head: ClassVar[bool] = True

    kind: Literal["linear_probe"]
    head: Literal["trained"] = "trained"
    projection: Literal["frozen"] = "frozen"


class LastBlocksSpec(MethodBase):
    """The last `blocks` transformer blocks and the final layer norm; the rest frozen."""

    kind: Literal["last_blocks"]
    blocks: int = Field(1, ge=1)


class BitFitSpec(MethodBase):
    """The biases of a tower, those of its layer norms included, and nothing else of it."""

    adapts_text: ClassVar[bool] = True

    kind: Literal["bitfit"]


class LpFtSpec(MethodBase):
    """A linear probe first, then full fine-tuning from its head.

    The probe trains the head alone for `probe_epochs` at the peak rate `probe_lr`, otherwise under
    the study's schedule and on the same images in the same order as a `linear_probe` would. It
    comes before the first step: the epochs, steps and rates of the schedule are those of
    fine-tuning, as for every method, so matched runs take equally many steps with the encoder.
    """

    needs_a_head: ClassVar[bool] = True

    kind: Literal["lp_ft"]
    head: Literal["trained"] = "trained"
    probe_epochs: int = Field(6, ge=1)
    probe_lr: LearningRate = Field(1e-3, description="peak rate of the head in the probe")


class AdapterSpec(MethodBase):
    """Bottleneck adapters: two small layers with a non-linearity between, behind sub-layers.

    `after: [attention, mlp]` is Houlsby's placement, `[mlp]` Pfeiffer's.
    """

    kind: Literal["adapter"]
    bottleneck: int = Field(16, ge=1, description="width of the adapter's inner layer")
    after: list[Literal["attention", "mlp"]] = Field(["attention", "mlp"], min_length=1)
    activation: Literal["gelu", "relu"] = "gelu"


class VptSpec(MethodBase):
    """Visual prompt tuning: learned tokens between CLS and the patches; the tower is frozen.

    Shallow: one set, put in before the first block. Deep: every block has a set of its own.
    Prompts change the encoder before they are trained: epoch 0 is not the baseline.
    """

    kind: Literal["vpt"]
    prompts: int = Field(10, ge=1, le=1000, description="tokens that are added")
    depth: Literal["shallow", "deep"] = "shallow"


class PluginSpec(MethodBase):
    """A method that another package adds, by the name of its entry point in `clipdrift.methods`."""

    kind: Literal["plugin"]
    type: Name = Field(description="name of the entry point")
    options: dict[str, PluginOption] = Field({}, description="what the method takes")


MethodSpec = Annotated[
    FullFtSpec
    | LoraSpec
    | LinearProbeSpec
    | LastBlocksSpec
    | BitFitSpec
    | LpFtSpec
    | AdapterSpec
    | VptSpec
    | PeftSpec
    | PluginSpec,
    Field(discriminator="kind"),
]

METHOD_KINDS: tuple[str, ...] = tuple(
    get_args(model.model_fields["kind"].annotation)[0]
    for model in get_args(get_args(MethodSpec)[0])
)
"""In the order that `kind` may be chosen from."""

ADDED: dict[str, Any] = {
    "head": "trained",
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
    kept = {key: value for key, value in resolved.items() if key != "role"}
    return {k: v for k, v in kept.items() if k not in ADDED or v != ADDED[k]}
