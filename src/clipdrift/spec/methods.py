"""The methods of a study as pydantic models: what trains, and with which options."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from clipdrift.spec.method_base import LayersSpec, MethodBase
from clipdrift.spec.part import Name, PluginOption, broken_rule


def _lower(name: str) -> str:
    """peft's names of types are written in many ways: LN_TUNING, ln-tuning."""
    return name.lower().replace("-", "_")


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
    probe_epochs: Literal[0] = 0
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
    """A linear probe first, then full fine-tuning from its head: full_ft with `probe_epochs`.

    The probe trains the head alone for `probe_epochs` at the peak rate `probe_lr`, otherwise under
    the study's schedule and on the same images in the same order as a `linear_probe` would. It
    comes before the first step: the epochs, steps and rates of the schedule are those of
    fine-tuning, as for every method, so matched runs take equally many steps with the encoder.
    """

    needs_a_head: ClassVar[bool] = True

    kind: Literal["lp_ft"]
    head: Literal["trained"] = "trained"
    probe_epochs: int = Field(6, ge=1)


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
