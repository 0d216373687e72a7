"""clipdrift: matched fine-tuning studies of CLIP-style models.

The names below are the public face: a function for every command (`run_study`, `study_status`,
`write_report` and `import_runs` for run, status, report and import; the others go by the command's
name), and the types in their signatures. Each is imported when it is first used, so that
`import clipdrift` costs nothing and reading records never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipdrift.analysis.folder import read_frames
    from clipdrift.commands.forecasting import forecast_before
    from clipdrift.commands.locating import locate
    from clipdrift.commands.measuring import check, plan
    from clipdrift.commands.models import (
        after,
        convert,
        evaluate,
        export_model,
        load,
        predict,
    )
    from clipdrift.commands.pooling import pool
    from clipdrift.commands.racing import race
    from clipdrift.commands.reading import analyze, audit, choose, forecast, lost, replay
    from clipdrift.commands.sharing import bundle, gallery
    from clipdrift.commands.tuned import Tuned
    from clipdrift.commands.tuning import preview, tune
    from clipdrift.errors import ClipdriftError
    from clipdrift.executors.local import LocalExecutor
    from clipdrift.executors.ray import RayExecutor
    from clipdrift.executors.slurm import SlurmExecutor
    from clipdrift.finished.classifier import Classifier
    from clipdrift.finished.predict import Prediction
    from clipdrift.own_loop.callback import DriftCallback
    from clipdrift.own_loop.record import record
    from clipdrift.reading.gauge import Gauge
    from clipdrift.reading.model_reading import ModelReading
    from clipdrift.records import RunRecord, StudyFolder, read_record
    from clipdrift.records.imported import import_runs
    from clipdrift.report import dose_response_figure, write_report
    from clipdrift.spec import StudySpec, load_spec, parse_spec
    from clipdrift.study.measure import Outcome, run_study
    from clipdrift.study.status import study_status

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "clipdrift.finished.classifier",
    "Prediction": "clipdrift.finished.predict",
    "load": "clipdrift.commands.models",
    "pool": "clipdrift.commands.pooling",
    "predict": "clipdrift.commands.models",
    "ClipdriftError": "clipdrift.errors",
    "DriftCallback": "clipdrift.own_loop.callback",
    "Gauge": "clipdrift.reading.gauge",
    "LocalExecutor": "clipdrift.executors.local",
    "ModelReading": "clipdrift.reading.model_reading",
    "Outcome": "clipdrift.study.measure",
    "RayExecutor": "clipdrift.executors.ray",
    "RunRecord": "clipdrift.records",
    "SlurmExecutor": "clipdrift.executors.slurm",
    "StudyFolder": "clipdrift.records",
    "StudySpec": "clipdrift.spec",
    "after": "clipdrift.commands.models",
    "analyze": "clipdrift.commands.reading",
    "audit": "clipdrift.commands.reading",
    "bundle": "clipdrift.commands.sharing",
    "check": "clipdrift.commands.measuring",
    "choose": "clipdrift.commands.reading",
    "convert": "clipdrift.commands.models",
    "dose_response_figure": "clipdrift.report",
    "evaluate": "clipdrift.commands.models",
    "export_model": "clipdrift.commands.models",
    "forecast": "clipdrift.commands.reading",
    "forecast_before": "clipdrift.commands.forecasting",
    "gallery": "clipdrift.commands.sharing",
    "import_runs": "clipdrift.records.imported",
    "load_spec": "clipdrift.spec",
    "locate": "clipdrift.commands.locating",
    "lost": "clipdrift.commands.reading",
    "parse_spec": "clipdrift.spec",
    "plan": "clipdrift.commands.measuring",
    "race": "clipdrift.commands.racing",
    "read_frames": "clipdrift.analysis.folder",
    "read_record": "clipdrift.records",
    "record": "clipdrift.own_loop.record",
    "replay": "clipdrift.commands.reading",
    "run_study": "clipdrift.study.measure",
    "Tuned": "clipdrift.commands.tuned",
    "preview": "clipdrift.commands.tuning",
    "study_status": "clipdrift.study.status",
    "tune": "clipdrift.commands.tuning",
    "write_report": "clipdrift.report",
}

__all__ = [
    "Classifier",
    "ClipdriftError",
    "DriftCallback",
    "Gauge",
    "LocalExecutor",
    "ModelReading",
    "Outcome",
    "Prediction",
    "RayExecutor",
    "RunRecord",
    "SlurmExecutor",
    "StudyFolder",
    "StudySpec",
    "Tuned",
    "after",
    "analyze",
    "audit",
    "bundle",
    "check",
    "choose",
    "convert",
    "dose_response_figure",
    "evaluate",
    "export_model",
    "forecast",
    "forecast_before",
    "gallery",
    "import_runs",
    "load",
    "load_spec",
    "locate",
    "lost",
    "parse_spec",
    "plan",
    "pool",
    "predict",
    "preview",
    "race",
    "read_frames",
    "read_record",
    "record",
    "replay",
    "run_study",
    "study_status",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipdrift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
