"""Finished runs of which something is made without training: data, models, what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clipdrift.data.cache import default_cache_dir
from clipdrift.errors import Fault, RecordError
from clipdrift.finished.evaluate import finished_run, require_same_content
from clipdrift.machine.devices import strict_float32
from clipdrift.materials import Materials, load_materials
from clipdrift.methods.adapted import AdaptedModel, reload
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import AfterReading
from clipdrift.records.located import LocatedRun
from clipdrift.spec import StudySpec

Say = Callable[[str], None]


@dataclass
class Done:
    """What a call read, kept and could not read (cell or run -> why)."""

    read: int = 0
    kept: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def runs_with_weights(folder: StudyFolder) -> list[RunRecord]:
    """Finished runs that were trained here: imported ones have no weights."""
    return [r for r in folder.records()[0] if r.status == "finished" and r.config is not None]


def study_with_runs(folder: StudyFolder) -> StudySpec:
    """The study of a folder in which runs are finished.

    Raises:
        RecordError: if there is none.
    """
    spec = folder.read_spec()
    if spec is None or not runs_with_weights(folder):
        got = "none" if spec else "imported records, which have no weights"
        step = "Run a study there first"
        raise RecordError(Fault(str(folder.path), "finished runs with weights", got, step))
    return spec


def materials_of(
    spec: StudySpec, folder: StudyFolder, *, cache_dir: Path | None, device: str, say: Say
) -> Materials:
    """The data of a study, and what the backbone reads on them in its folder.

    Raises:
        ClipdriftError: if backbone or data cannot be used.
    """
    strict_float32()
    materials = load_materials(spec, cache_dir=cache_dir or default_cache_dir(), device=device)
    ensure_baselines(spec, materials, folder, say)
    return materials


def is_there(path: Path, read: Callable[[Path], AfterReading | LocatedRun], identity: str) -> bool:
    """Whether a file holds what was read before of just this."""
    try:
        return read(path).identity == identity
    except RecordError:
        return False


def reloaded(
    record: RunRecord, folder: StudyFolder, materials: Materials, gauge: Gauge, device: str
) -> AdaptedModel:
    """The model of a run as its files hold it and its guard proves it.

    Raises:
        RecordError: if weights are missing or changed, or data have changed.
        AdapterInactiveError: if the encoder is not the adapted one.
    """
    run_dir = folder.run_path(record.run_id)
    _, config = finished_run(run_dir)
    require_same_content(record, materials)
    prompts = gauge.target.prompts
    model = reload(gauge.backbone, config.method, len(prompts), run_dir, prompts=prompts)
    model = model.to(device)
    gauge.require_adapted(model)
    return model
