"""LocatedRun: how the edits of one finished run were read. They lie in `located/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clipdrift.errors import Fault, RecordError
from clipdrift.records.checked import Sealed, read_checked
from clipdrift.records.folder import StudyFolder
from clipdrift.records.schema import RunRecord
from clipdrift.records.transfer import Number
from clipdrift.records.writing import ours

FOLDER = "located"
VERSION = 2
Edited = Literal["adapted", "untouched"]
EditName = Literal[
    "none",
    "revert",
    "graft",
    "revert_above",
    "revert_below",
    "attention_other_model",
    "attention_other_image",
    "attention_shuffled",
    "attention_uniform",
    "state_other_model",
]
PartKind = Literal[
    "all",
    "block",
    "attention",
    "mlp",
    "norms",
    "embeddings",
    "projection",
    "text",
    "cls",
    "patches",
]
What = Literal["weights", "kinds", "elsewhere", "attention", "heads", "states", "ablations"]
WHAT: dict[What, str] = {
    "weights": "parts put back and moved alone, beside random changes of their size; kinds of "
    "module inside the blocks that may carry the loss",
    "kinds": "weights, and kinds of module inside every block",
    "elsewhere": "weights, and beside each edit a step of its size in another block",
    "attention": "the other model's attention pattern, in each block and in all",
    "heads": "the other model's attention pattern in each head alone",
    "states": "the CLS token alone, or the patch tokens alone, of the other model behind a block",
    "ablations": "attention shuffled, uniform, or of another image",
}
"""What can be asked of a model."""
ABLATIONS: tuple[EditName, ...] = (
    "attention_other_image",
    "attention_shuffled",
    "attention_uniform",
)
STATES: tuple[PartKind, ...] = ("cls", "patches")
EDITS: dict[EditName, str] = {
    "none": "the model as it is",
    "revert": "the part of the adapted model put back to the untouched weights",
    "graft": "the part of the adapted model put into the untouched one",
    "revert_above": "the block and all behind it put back, projection included",
    "revert_below": "the block and all before it put back, embeddings included",
    "attention_other_model": "run with the attention pattern of the other model",
    "attention_other_image": "run with its own attention pattern of another image",
    "attention_shuffled": "run with each row of its attention pattern in random order",
    "attention_uniform": "run with equal attention to all tokens",
    "state_other_model": "what leaves the block is the other model's, of the CLS token or of the "
    "patch tokens",
}
"""What was done to the model."""
Points = Annotated[float, Field(ge=-100, le=100)]
"""A difference of scores, percentage points."""


class EditRow(BaseModel):
    """What one edit did on one set of images.

    of: the model that was edited, adapted or untouched; changes are against that model as it is.
    block: 1 is nearest to the image; null of what is in no block, or in all.
    head: of attention, from 1; null of all heads.
    dataset: a transfer set, or the target's test part, read with the head that trained.
    score: accuracy, mean recall or mean average precision, a fraction.
    change_pp: score less that of the model before the edit, percentage points.
    control_pp: mean of the same over random changes of the same norm in the same place; null on
        the target, as is `elsewhere_pp`.
    elsewhere_pp: of a step of the same norm along the movement of the same kind in another block.
    retention_pct: score in percent of the untouched model's; null on the target.
    gone_pp: points that a ridge read-out of the embeddings lost against the untouched model.
    misaligned_pp: points of zero-shot score lost less `gone_pp`.
    moved_rel: norm of what was moved, relative to the part's own; null of attention patterns.
    """

    model_config = ConfigDict(extra="forbid")

    edit: EditName
    of: Edited
    block: Annotated[int | None, Field(ge=1)]
    kind: PartKind
    head: Annotated[int | None, Field(ge=1)] = None
    dataset: str
    on_target: bool = False
    score: Annotated[float, Field(ge=0, le=1)]
    change_pp: Points
    control_pp: Points | None = None
    elsewhere_pp: Points | None = None
    retention_pct: Annotated[Number, Field(ge=0)] = None
    gone_pp: Points | None = None
    misaligned_pp: Annotated[Number, Field(ge=-200, le=200)] = None
    moved_rel: Annotated[Number, Field(ge=0)] = None


class LocatedRun(Sealed):
    """Every edit of one finished run, and which run that was."""

    version: int = VERSION
    run_id: str
    run: str = Field(description="identity of the run")
    identity: str
    what: list[What]
    draws: int
    n_images: int
    rows: list[EditRow]
    provenance: dict[str, Any] = Field(default_factory=dict)
    checksum: str = ""


def located_path(folder: StudyFolder, run_id: str) -> Path:
    return folder.path / FOLDER / f"{run_id}.json"


def read_located(path: Path) -> LocatedRun:
    """Read and verify the edits of one run.

    Raises:
        RecordError: if the file is missing, torn, edited or of another version.
    """
    step = "Run 'clipdrift locate' again to redo it"
    return read_checked(path, LocatedRun, VERSION, "edits of a run", step)


def located(
    folder: StudyFolder, records: Sequence[RunRecord]
) -> tuple[dict[str, LocatedRun], list[Fault]]:
    """Run id -> its edits, of runs as they are now; and faults of unusable files."""
    finished = {r.run_id: r.identity for r in records if r.status == "finished"}
    found, faults = {}, []
    for path in ours(folder.path / FOLDER, "*.json"):
        try:
            one = read_located(path)
        except RecordError as error:
            faults += error.faults
            continue
        if path == located_path(folder, one.run_id) and finished.get(one.run_id) == one.run:
            found[one.run_id] = one
    return found, faults
