"""Where a loss lies: the edits of a live model, or of every finished run of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipdrift.analysis.questions.carriers import Carrier, carrier
from clipdrift.errors import Fault, SpecError
from clipdrift.finished.locate import locate_runs
from clipdrift.interventions.asked import ALL, DEFAULT, Asked
from clipdrift.interventions.read import read_edits
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.live import live_model
from clipdrift.records import AnyFolder, StudyFolder
from clipdrift.records.located import WHAT, EditRow, What, located

if TYPE_CHECKING:
    import pandas as pd

LIVE = "model"


@dataclass(frozen=True)
class Location:
    """Edits of models. edits: of each run by its id; of a live model under `LIVE`.

    carriers: of a live model, transfer set -> the part that carries its loss; of runs that is told
    over seeds, by the analysis. read, kept: runs. left_out: run -> why it could not be edited.
    """

    edits: dict[str, list[EditRow]]
    carriers: dict[str, Carrier] = field(default_factory=dict)
    read: int = 0
    kept: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row per model, edit and set: `run_id` and the fields of `EditRow`, such as `edit`,
        `of`, `block`, `kind`, `head`, `dataset`, `change_pp`, `control_pp` and `retention_pct`."""
        import pandas as pd

        rows = [
            {"run_id": run_id, **row.model_dump()}
            for run_id, edits in self.edits.items()
            for row in edits
        ]
        frame = pd.DataFrame(rows, columns=["run_id", *EditRow.model_fields])
        return frame.astype({"block": "Int64", "head": "Int64"})


def locate(
    what_of: Gauge | AnyFolder,
    model: Any = None,
    *,
    what: Sequence[What | Literal["all"]] = DEFAULT,
    draws: int = 1,
    n_images: int = 100,
    seed: int = 0,
    workers: int | None = None,
    dry_run: bool = False,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Location:
    """Find the part of an image encoder that carries a loss of zero-shot transfer, by editing it.

    Each block, embeddings and projection are put back to the untouched weights in the adapted
    model, and moved alone in the untouched one, and so are the kinds of module inside blocks that
    may carry the loss; each model runs with the other's attention pattern. Nothing is trained.
    Beside each edit of weights stands a random change of its size.

    Args:
        what_of: a gauge, for a live `model`; or a study folder, for its finished runs.
        model: with a gauge: transformers' CLIP or SigLIP, its vision tower, or one of open_clip's.
        what: what to edit, of `clipdrift locate --help`; "all" for all of it.
        draws: random changes beside each edit of weights, from 1.
        n_images: of each set at most so many are read, class-balanced.
        seed: of all that is drawn.
        workers: runs of a study at once; default: what cores and memory have room for.
        dry_run: of a study: say what would be read and how long it takes, and read nothing.

    Returns:
        Of a model its edits and the part that carries the loss of each transfer set; of a study
        the edits of its runs, which `analyze` and `write_report` then read.

    Raises:
        MethodError: if the model has no plain weights to edit, or was not trained.
        ClipdriftError: if the model, runs or data cannot be read, or a value makes no sense.
    """
    chosen: Any = WHAT if ALL in what else what
    asked = Asked(tuple(chosen), draws, n_images, seed)
    if isinstance(what_of, Gauge):
        if model is None:
            step = "Pass the model, or a study folder in place of the gauge"
            raise SpecError(Fault("model", "the model to edit", "none", step))
        return _live(what_of, model, asked)
    if model is not None:
        step = "Pass a gauge first, or leave the model away"
        raise SpecError(Fault("model", "none beside a study folder", type(model).__name__, step))
    folder = StudyFolder.at(what_of)
    done = locate_runs(
        folder,
        asked,
        workers=workers,
        dry_run=dry_run,
        cache_dir=cache_dir,
        device=device,
        say=say,
    )
    runs, _ = located(folder, folder.records()[0])
    edits = {run_id: run.rows for run_id, run in sorted(runs.items())}
    return Location(edits, {}, done.read, done.kept, done.left_out)


def _live(gauge: Gauge, model: Any, asked: Asked) -> Location:
    if isinstance(model, AdaptedModel):
        gauge.require_adapted(model)
        readable: Any = model
    else:
        readable = live_model(model, gauge.backbone, gauge.guard_pixels)
    found = read_edits(gauge, readable, asked)
    carriers = {
        name: carrier(one.lost, one.parts, one.above, floor=100 / len(one.lost) ** 0.5)
        for name, one in found.carried.items()
    }
    return Location({LIVE: found.rows}, carriers)


__all__ = ["DEFAULT", "LIVE", "Location", "locate"]
