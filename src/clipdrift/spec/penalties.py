"""Penalties of a method: what is added to its loss so that the encoder stays where it was."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clipdrift.spec.part import Name, Part, PluginOption


class PenaltyBase(Part):
    """`weight` times the penalty is added to the mean cross-entropy of a batch.

    With weight 0 it is only measured, and training is what it is without. The mean of each penalty
    over an epoch, before the weight, is in the record's history.
    """

    weight: float = Field(ge=0, le=1e9)

    @property
    def name(self) -> str:
        """In records, tables and messages."""
        return str(self.kind)  # type: ignore[attr-defined]


class L2SpSpec(PenaltyBase):
    """Half the squared distance of the encoder's trained tensors from where they started.

    Of adapters these are their own tensors; the starting point is that of the method, not zero.
    """

    kind: Literal["l2_sp"]


class FeatureDistillationSpec(PenaltyBase):
    """Squared distance of image embeddings to the untouched encoder's, mean over images."""

    kind: Literal["feature_distillation"]
    normalised: bool = Field(
        True, description="of embeddings at unit length, which is 2 - 2 cosine; else as they are"
    )


class AttentionPreservationSpec(PenaltyBase):
    """KL from the untouched CLS attention row to the live one, mean over heads, blocks, images."""

    kind: Literal["attention_preservation"]


class EntropyFloorSpec(PenaltyBase):
    """How far the entropy of CLS attention over patches fell below the untouched one, in nats.

    Mean over heads, blocks and images; entropy above the untouched one costs nothing.
    """

    kind: Literal["entropy_floor"]


class PluginPenaltySpec(PenaltyBase):
    """A penalty that another package adds, by the name of its entry point."""

    kind: Literal["plugin"]
    type: Name = Field(description="name of the entry point in clipdrift.penalties")
    options: dict[str, PluginOption] = Field({}, description="what the penalty takes")

    @property
    def name(self) -> str:
        return self.type


PenaltySpec = Annotated[
    L2SpSpec
    | FeatureDistillationSpec
    | AttentionPreservationSpec
    | EntropyFloorSpec
    | PluginPenaltySpec,
    Field(discriminator="kind"),
]
