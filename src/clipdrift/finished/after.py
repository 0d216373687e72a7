"""After training, on any method: soups over seeds and rescaled movements of finished runs.

Weights are read from the runs' files and proven, made anew, and read by the same code and under the
same guard as runs. Readings lie in `after/` of the study folder; no record is changed. What was
read before is kept, so the same call goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from clipdrift.errors import Fault, SpecError
from clipdrift.finished.runs import (
    Done,
    Say,
    is_there,
    materials_of,
    reloaded,
    runs_with_weights,
    study_with_runs,
)
from clipdrift.finished.saved import LARGEST_SCALE
from clipdrift.interventions.rescaled import damped, lines, tempered
from clipdrift.machine.devices import choose_device
from clipdrift.machine.provenance import provenance
from clipdrift.materials import Materials
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.interpolate import interpolated
from clipdrift.methods.merged import Merged, as_model, merged, scaled, soup
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import not_read, undefined_reasons
from clipdrift.reading.target import read_result
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.after import AfterReading, Kind, after_path, read_after
from clipdrift.records.claims import claim
from clipdrift.records.readings import Result
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, content_hash

Cell = list[RunRecord]
CellName = tuple[str, float]
"""Method and learning rate."""


OPTIONS: dict[Kind, tuple[str, float]] = {
    "soup": ("--alpha", 1.0),
    "scaled": ("--scale", LARGEST_SCALE),
    "lines": ("--lines", 1.0),
    "damped": ("--damp", 1.0),
    "tempered": ("--temper", 1.0),
}
"""Where the numbers of each kind are given, and the largest that makes sense."""


@dataclass(frozen=True)
class Asked:
    """What to read of every cell, kind by kind: at which numbers."""

    values: Mapping[Kind, Sequence[float]]

    def faults(self) -> Iterator[Fault]:
        """Values that make no sense, or that a name could not tell apart."""
        for kind, values in self.values.items():
            name, high = OPTIONS[kind]
            rule = f"distinct numbers from 0 to {high:g} of at most four decimals"
            for value in values:
                if not 0 <= value <= high or round(value, 4) != value or values.count(value) > 1:
                    yield Fault(name, rule, f"{value:g}", "Correct the value")


def read_after_training(
    folder: StudyFolder,
    asked: Asked,
    *,
    cells: Collection[CellName] | None = None,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Say = lambda text: None,
) -> Done:
    """Read soups and rescaled runs of every cell that are not yet read.

    Args:
        cells: those alone, by method and learning rate.

    Raises:
        SpecError: if a value asked for makes no sense.
        RecordError: if there is no finished run, weights are missing, or data have changed.
        AdapterInactiveError: if the encoder that is scored is not the one that was made.
    """
    if faults := list(asked.faults()):
        raise SpecError(faults)
    device = choose_device(device)
    spec = study_with_runs(folder)
    materials = materials_of(spec, folder, cache_dir=cache_dir, device=device, say=say)
    done = Done()
    for cell in _cells(folder):
        if cells is not None and (cell[0].method, cell[0].learning_rate) not in cells:
            continue
        gauge = Gauge.of_run(RunConfig.model_validate(cell[0].config), materials, folder)
        _Cell(cell, folder, materials, gauge, device, done, say).read(asked)
    return done


def _cells(folder: StudyFolder) -> list[Cell]:
    cells: dict[tuple[str, str, float], Cell] = {}
    for record in runs_with_weights(folder):
        key = (record.target, record.method, record.learning_rate)
        cells.setdefault(key, []).append(record)
    return [sorted(cells[key], key=lambda record: record.seed) for key in sorted(cells)]


class _Cell:
    """The finished runs of one cell; their weights are read when they are first needed."""

    def __init__(
        self,
        records: Cell,
        folder: StudyFolder,
        materials: Materials,
        gauge: Gauge,
        device: str,
        done: Done,
        say: Say,
    ) -> None:
        self.records, self.folder, self.materials = records, folder, materials
        self.gauge, self.device, self.done, self.say = gauge, device, done, say
        first = records[0]
        self.config = RunConfig.model_validate(first.config)
        self.name = f"{first.target}-{first.method}-lr{first.learning_rate!r}".replace("+", "")
        self._weights: dict[str, Merged | None] = {}

    def read(self, asked: Asked) -> None:
        """Read all that is asked for and not there."""
        for kind, values in asked.values.items():
            if kind == "soup" and values and len(self.records) < 2:
                self.done.left_out[f"soup of {self.name}"] = "one finished run: nothing to average"
                continue
            each = [self.records] if kind == "soup" else [[record] for record in self.records]
            for value, of in product(values, each):
                self._one(kind, of, value)

    def _one(self, kind: Kind, of: Cell, value: float) -> None:
        alpha, scale = (value, None) if kind == "soup" else (None, value)
        runs = {record.run_id: record.identity for record in of}
        data = self.materials.content(self.gauge.target.name)
        identity = content_hash([PROTOCOL_VERSION, kind, alpha, scale, sorted(runs.values()), data])
        of_one = f"alpha{alpha:g}" if kind == "soup" else f"{scale:g}-seed{of[0].seed}"
        name = f"{self.name}-{kind}-{of_one}"
        path = after_path(self.folder, name, identity)
        if is_there(path, read_after, identity):
            self.done.kept += 1
            return
        with claim(self.folder.claims_path / f"after-{path.stem}") as mine:
            if not mine:
                self.done.left_out[name] = "being read by another process"
                return
            parts = [self._of(record) for record in of]
            if any(part is None for part in parts):
                why = "the method has no plain weights that could be averaged or rescaled"
                self.done.left_out[self.name] = why
                return
            self.say(f"reading {name}")
            result = self._measure([part for part in parts if part is not None], kind, value)
            reading = AfterReading(
                name=name,
                identity=identity,
                kind=kind,
                alpha=alpha,
                scale=scale,
                backbone=of[0].backbone,
                target=of[0].target,
                method=of[0].method,
                role=of[0].role,
                learning_rate=of[0].learning_rate,
                seeds=[record.seed for record in of],
                runs=runs,
                head_inits=len({record.fingerprints.get("head_init") for record in of}),
                leaks=sorted({leak for record in of for leak in record.leaks}),
                result=result,
                undefined=undefined_reasons(result, not_read(self.gauge.backbone)),
                provenance={**provenance(self.device), "data": data},
            )
            atomic_write(path, reading.to_json())
            self.done.read += 1

    def _of(self, record: RunRecord) -> Merged | None:
        """The weights of a run, as its files hold them and its guard proves them."""
        if record.run_id not in self._weights:
            model = reloaded(record, self.folder, self.materials, self.gauge, self.device)
            self._weights[record.run_id] = merged(model)
        return self._weights[record.run_id]

    def _measure(self, parts: list[Merged], kind: Kind, value: float) -> Result:
        backbone, prompts = self.gauge.backbone, self.gauge.target.prompts
        made = soup(parts) if kind == "soup" else self._rescaled(parts[0], kind, value)
        model = as_model(made, backbone, self.config.method, prompts).to(self.device)
        if kind != "soup":
            return self._result(model)
        with interpolated(model, backbone, value):
            return self._result(model)

    def _rescaled(self, part: Merged, kind: Kind, value: float) -> Merged:
        if kind == "tempered":
            return tempered(part, self.gauge.backbone, self.gauge.probe, value)
        made = {"scaled": scaled, "lines": lines, "damped": damped}[kind]
        return made(part, self.gauge.backbone, value)

    def _result(self, model: AdaptedModel) -> Result:
        self.gauge.require_adapted(model, model.snapshot())
        return read_result(self.gauge, model)
