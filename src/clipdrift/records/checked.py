"""JSON files beside the records: written with a checksum, and read only as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from clipdrift.errors import Fault, RecordError
from clipdrift.paths import read_file
from clipdrift.records.ranges import beyond
from clipdrift.records.schema import MAX_BYTES
from clipdrift.spec import content_hash

Model = TypeVar("Model", bound=BaseModel)


def to_checked_json(model: BaseModel) -> str:
    """As JSON text with its `checksum` filled in.

    Raises:
        ValueError: if a number is NaN or infinite; undefined must be null.
    """
    body = model.model_dump(mode="json", exclude={"checksum"})
    return json.dumps({**body, "checksum": content_hash(body)}, indent=1, allow_nan=False)


def read_checked(path: Path, model: type[Model], version: int, what: str, step: str) -> Model:
    """Read and verify what `to_checked_json` wrote.

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


__all__ = ["read_checked", "to_checked_json"]
