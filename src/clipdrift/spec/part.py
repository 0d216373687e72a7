"""What every part of a study file is: known keys only, faults in four parts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Letters, digits, dot, underscore, hyphen; starts with a letter or digit: safe as a file name."""


def broken_rule(expected: str, got: object, next_step: str) -> PydanticCustomError:
    """A validation error that carries the parts of a `Fault` through pydantic."""
    return PydanticCustomError(
        "broken_rule", "{expected}", {"expected": expected, "got": str(got), "next_step": next_step}
    )


def added(default: Any, description: str) -> Any:
    """A field that came when records had been made without it.

    At its default it is left out of what is written, so that a run has the identity it had and an
    old record is still that of its run.
    """
    return Field(default, description=description, exclude_if=lambda value: value == default)


class Part(BaseModel):
    """Base of every part of a study: unknown keys refused, values never coerced in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


PluginOption = StrictBool | StrictInt | StrictFloat | StrictStr
"""What a study may say to a plugin."""
