"""The words of a backbone that cannot be used."""

from __future__ import annotations

from clipdrift.errors import BackboneError, Fault
from clipdrift.spec.parts import BackboneSpec

CONVERT = "Name a CLIP in transformers format, for example openai/clip-vit-base-patch32"


def refusal(spec: BackboneSpec, expected: str, got: str, next_step: str) -> BackboneError:
    """The error of a backbone, for the caller to raise."""
    return BackboneError(Fault(f"backbone {spec.id}", expected, got, next_step))
