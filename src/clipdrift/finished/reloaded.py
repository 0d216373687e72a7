"""A finished run's model from its files, proven before anything is made of it."""

from __future__ import annotations

from clipdrift.errors import Fault, RecordError
from clipdrift.finished.evaluate import finished_run, require_same_content
from clipdrift.materials import Materials
from clipdrift.methods.adapted import AdaptedModel, reload
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec import StudySpec


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
