"""What a search chose, made again: fresh seeds, other images, and the model that is shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipdrift.analysis.questions.candidates import AS_TRAINED, INTERPOLATED
from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.checkpoint.find import ORIGIN_FILE, read_json
from clipdrift.commands.models import export_model
from clipdrift.errors import Fault, RecordError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import AfterReading, readings
from clipdrift.spec import StudySpec

FRESH_SEEDS = [101, 103, 107]
"""None of the race's; what is told of the model comes from them."""
OTHER_DRAW, MORE_IMAGES = 1, 4
"""Added to the seed that draws a transfer set's images; and how many times as many are read."""


class Made(NamedTuple):
    """The weights that were chosen: of a cell, as trained or made after training."""

    method: str
    learning_rate: float
    kind: str
    alpha: float = 1.0
    scale: float = 1.0

    @property
    def soup(self) -> bool:
        return self.kind == "soup"

    @property
    def prefix(self) -> str:
        """What the names of an interpolated model's readings begin with in a record."""
        return f"extra.interpolation.{self.alpha:g}." if self.kind == "interpolated" else ""


def chosen(best: Candidacy, search: StudyFolder) -> Made:
    """The first candidate of a choice, as what is to be made again of fresh seeds.

    Raises:
        RecordError: if nothing can be chosen.
    """
    if best.method is None or best.learning_rate is None or best.weights is None:
        step = "Raise the budget, or name a transfer set that the model knows"
        raise RecordError(Fault(str(search.path), "a candidate", str(best.reason), step))
    cell = (best.method, best.learning_rate)
    if best.weights == AS_TRAINED:
        return Made(*cell, "trained")
    if best.weights == INTERPOLATED:
        return Made(*cell, "interpolated", alpha=best.alpha or 0.0)
    read, _ = readings(search, search.records()[0])
    one = next(r for r in read if (r.method, r.learning_rate, r.weights) == (*cell, best.weights))
    if one.kind == "soup":
        return Made(*cell, "soup", alpha=1.0 if one.alpha is None else one.alpha)
    return Made(*cell, one.kind, scale=1.0 if one.scale is None else one.scale)


def confirmation(study: StudySpec, made: Made) -> StudySpec:
    """The study of the chosen cell alone: fresh seeds, other images of the transfer sets."""
    body = study.model_dump(mode="json", exclude_none=True)
    (method,) = [m for m in body["methods"] if m["name"] == made.method]
    method.update(role="matched")
    method.pop("learning_rates", None)
    body |= {
        "name": f"{study.name}-confirmation",
        "methods": [method],
        "learning_rates": [made.learning_rate],
        "seeds": FRESH_SEEDS,
        "transfers": [_drawn_anew(one) for one in body["transfers"]],
    }
    body["evaluation"] |= {
        "in_full": True,
        "epoch_transfer_images": 0,
        "interpolation": [made.alpha] if made.kind == "interpolated" else [],
    }
    return StudySpec.model_validate(body)


def _drawn_anew(transfer: dict[str, Any]) -> dict[str, Any]:
    drawn = {"seed": transfer.get("seed", 0) + OTHER_DRAW}
    if n := transfer.get("n_images"):
        drawn |= {"n_images": MORE_IMAGES * n, "too_few": "all"}
    return {**transfer, **drawn}


def shipped(folder: StudyFolder, made: Made) -> tuple[list[RunRecord], AfterReading | None]:
    """The runs whose weights are shipped, and the reading of what was made of them, if it was.

    Of single runs that with the highest accuracy on validation images: test images have no say.

    Raises:
        RecordError: if fresh seeds did not finish.
    """
    records = [r for r in folder.records()[0] if r.status == "finished"]
    read = [one for one in readings(folder, records)[0] if one.kind == made.kind]
    if not records or (made.kind in ("soup", "scaled") and not read):
        got = "none of the fresh seeds finished, or what is made of them could not be read"
        step = "Run the same command again, or choose another budget"
        raise RecordError(Fault(str(folder.path), "finished runs", got, step))
    if made.soup:
        return records, read[0]
    if made.kind == "scaled":
        best = max(read, key=lambda one: one.result.val_accuracy or 0.0)
        return [r for r in records if r.run_id in best.runs], best
    name = f"{made.prefix}val_accuracy".removeprefix("extra.")

    def accuracy(record: RunRecord) -> float:
        own = record.result.val_accuracy
        return (own if made.kind == "trained" else record.result.extra.get(name)) or 0.0

    return [max(records, key=accuracy)], None


def export_made(
    folder: StudyFolder,
    runs: Sequence[RunRecord],
    made: Made,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Write the model; one that was written of the same runs stays.

    Raises:
        RecordError: if another lies there.
    """
    names = [record.run_id for record in runs]
    if (out / ORIGIN_FILE).is_file():
        origin = read_json(out / ORIGIN_FILE)
        there = origin.get("made") or {"runs": [origin.get("run_id")], "alpha": 1.0, "scale": 1.0}
        if there == {"runs": names, "alpha": made.alpha, "scale": made.scale}:
            return
        step = f"Move {out} away"
        raise RecordError(Fault(str(out), f"a model of {names}", f"one of {there}", step))
    say(f"writing {out}")
    paths = [folder.run_path(name) for name in names]
    export_model(paths, out, alpha=made.alpha, scale=made.scale)
