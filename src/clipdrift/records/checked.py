"""JSON files with a checksum over everything else in them, read only as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records.ranges import beyond
from clipdrift.spec import content_hash

MAX_BYTES = 64_000_000


class Sealed(BaseModel):
    """What is written with a checksum over everything else in it."""

    # NaN in a field of type Any would otherwise be written as null, without a reason.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    def to_json(self) -> str:
        """As JSON text with its checksum filled in.

        Raises:
            ValueError: if a number is NaN or infinite; undefined must be null.
        """
        body = self.body()
        return json.dumps({**body, "checksum": content_hash(body)}, indent=1, allow_nan=False)

    def body(self) -> dict[str, Any]:
        """All that the checksum is of."""
        return self.model_dump(mode="json", exclude={"checksum"})


Model = TypeVar("Model", bound=Sealed)


def read_checked(path: Path, model: type[Model], version: int, what: str, step: str) -> Model:
    """Read and verify what `Sealed.to_json` wrote.

    Args:
        what: the file holds, in words. step: that mends a bad one.

    Raises:
        RecordError: if it is missing, torn, edited or of another version.
    """
    got = "a damaged or edited file"
    try:
        body = json.loads(read_file(path, MAX_BYTES))
        stored = body.pop("checksum")
        right = content_hash(body) == stored and not any(beyond(body))
        if right and body.get("version") == version:
            return model.model_validate({**body, "checksum": stored}, strict=True)
    except OSError as error:
        got = str(error.strerror)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
        pass
    raise RecordError(Fault(str(path), f"{what} of version {version}", got, step))
