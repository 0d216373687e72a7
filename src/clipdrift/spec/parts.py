"""The study file as pydantic models: what may be written, its ranges and its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import TargetSpec, TransferSpec
from clipdrift.spec.method_base import LearningRate, MethodBase
from clipdrift.spec.methods import LoraSpec, MethodSpec
from clipdrift.spec.part import Name, Part, added, broken_rule


class BackboneSpec(Part):
    """CLIP or SigLIP of transformers or open_clip: `mini-clip`, a folder, a file of weights, a hub
    id with a revision, or open_clip's MODEL/TAG.
    """

    id: str = Field("mini-clip", min_length=1)
    revision: str | None = None
    model: str | None = added(
        None,
        "what a file of weights is of, where it cannot say so: open_clip's name of the model; or "
        "MODEL/TAG, a hub id or folder, whose weights are also what an image tower or CLIP-LoRA's "
        "adapter lacks",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class ScheduleSpec(Part):
    """AdamW, linear warm-up, cosine to zero, gradient clipping: the same for every method."""

    epochs: int = Field(6, ge=1)
    batch_size: int = Field(32, ge=1)
    micro_batch: Annotated[int, Field(ge=1)] | None = added(
        None,
        "images that pass the towers at a time; the gradient is that of the whole batch, which a "
        "contrastive loss compares; default: all, or what memory holds",
    )
    weight_decay: float = Field(0.01, ge=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    warmup: Literal["above_zero", "from_zero"] = added(
        "above_zero",
        "from_zero: its steps are rounded down, and the first of them has rate 0; above_zero: to "
        "the nearest, and none has",
    )
    clip_norm: float = Field(1.0, gt=0)
    horizontal_flip: bool = True
    max_steps: int | None = Field(None, ge=1, description="stop early; for smoke tests")


def _four_decimals(alpha: float) -> float:
    """Readings are named after alpha: its name must say all of it."""
    if round(alpha, 4) != alpha:
        raise broken_rule("at most four decimals", alpha, "Round it")
    return alpha


Alpha = Annotated[float, Field(ge=0, le=1), AfterValidator(_four_decimals)]
Corruption = Literal[
    "contrast", "gaussian_noise", "impulse_noise", "jpeg", "motion_blur", "pixelate"
]


InterpolationPath = Literal["encoder", "with_head", "factors"]
"""encoder: and projection, the head as adapted. with_head: the head too, where it starts at the
class texts and trains. factors: of LoRA, A and B each from where it started."""


class EvaluationSpec(Part):
    """What is read when. Drift and validation accuracy are read after every epoch."""

    batch_size: int = Field(256, ge=1)
    epoch_transfer_images: int = Field(
        1000, ge=0, description="balanced images per transfer set after each epoch; 0: none"
    )
    interpolation: list[Alpha] = Field(
        [], description="read the kept weights also at (1 - a) untouched + a adapted, for these a"
    )
    interpolation_paths: list[InterpolationPath] = Field(
        ["encoder", "with_head"],
        min_length=1,
        description="with_head: the head lies between too, of methods with head_init: text; "
        "factors: of lora, A and B do each by itself, so that its update takes no straight way",
    )
    corruptions: list[Corruption] = Field(
        [], description="read the test part also under these kinds of damage"
    )
    corruption_severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
        [3], min_length=1, description="1 (weak) to 5 (strong)"
    )
    probes: list[Name] = Field(
        [], description="drift signals that other packages add, by the names of their entry points"
    )
    in_full: bool = added(
        False,
        "read each transfer set and the target zero-shot in full at the end: what is gone and what "
        "only misaligned, calibration, geometry; and the calibration of the head",
    )
    panel: bool = added(
        False,
        "read the spectral and geometric panel too: of activations and embeddings after every "
        "epoch; of weight updates, attention flow and gradients after epoch 1 and at the end",
    )


def interpolation_paths(evaluation: EvaluationSpec, method: MethodBase) -> list[InterpolationPath]:
    """The paths that are asked for and that a method has; none where no alpha is asked for."""
    heads = method.head_init == "text" and method.head == "trained"
    has = {"encoder": True, "with_head": heads, "factors": isinstance(method, LoraSpec)}
    return [
        path for path in evaluation.interpolation_paths if evaluation.interpolation and has[path]
    ]


class StudySpec(Part):
    """A whole study: backbone x targets x methods x learning rates x seeds on one shared grid."""

    name: Name
    description: str = ""
    backbone: BackboneSpec = BackboneSpec()
    targets: list[TargetSpec] = Field(min_length=1)
    transfers: list[TransferSpec] = Field(min_length=1)
    methods: list[MethodSpec] = Field(min_length=1)
    learning_rates: list[LearningRate] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(min_length=1)
    schedule: ScheduleSpec = ScheduleSpec()
    splits: SplitSpec = SplitSpec()
    probe: ProbeSpec = ProbeSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    checkpoint: Literal["best_validation", "last", "paper_test_selected"] = "best_validation"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    underfit_fraction: float = Field(
        0.9,
        gt=0,
        le=1,
        description="cells below this share of a target's best underfit or are damaged",
    )
    compare_with: list[Name] | None = Field(
        None,
        min_length=1,
        description="methods that pairs are compared with; default every pair of up to 6 matched "
        "methods, of more those with full_ft, or with the first by name",
    )
    families: list[Literal["target_accuracy", "retention", "drift"]] = Field(
        ["target_accuracy", "retention", "drift"],
        description="questions whose paired tests are corrected by Holm's method, each metric on "
        "each target by itself; p of the others is printed as uncorrected",
    )
    varied: list[Literal["projection", "head_init", "head", "head_lr", "batch_size"]] = Field(
        [], description="factors that matched methods may differ in, because they are studied"
    )

    @model_validator(mode="before")
    @classmethod
    def _methods_from_strings(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("methods"), list):
            methods = [_expand_method(method) for method in value["methods"]]
            return {**value, "methods": methods}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        from clipdrift.spec.study_faults import spec_faults

        faults = spec_faults(self)
        if faults:
            # pydantic carries one error per validator; the loader unfolds the list again.
            raise PydanticCustomError("faults", "a consistent study", {"faults": faults})
        return self

    def matched_methods(self) -> Sequence[MethodBase]:
        """Methods that share the grid and are compared pair by pair."""
        return [method for method in self.methods if method.role == "matched"]


def _expand_method(method: Any) -> Any:
    """`lora` is short for `{kind: lora}`, and a method is named after its kind by default."""
    if isinstance(method, str):
        return {"name": method, "kind": method}
    if isinstance(method, dict):
        if "kind" in method:
            return {"name": method["kind"], **method}
        if "name" in method:
            return {**method, "kind": method["name"]}
    return method
