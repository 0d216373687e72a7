"""clipdrift: matched fine-tuning studies of CLIP-style models.

The names below are the public face for notebooks; each is imported when it is first used, so that
`import clipdrift` costs nothing and reading records never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipdrift.analysis.folder import read_frames
    from clipdrift.analysis.summary import analyze_folder, write_analysis
    from clipdrift.errors import ClipdriftError
    from clipdrift.finished.evaluate import evaluate_run
    from clipdrift.own_loop.callback import DriftCallback
    from clipdrift.own_loop.record import record
    from clipdrift.reading.gauge import Gauge, ModelReading
    from clipdrift.records import StudyFolder, read_record
    from clipdrift.report import dose_response_figure, write_report
    from clipdrift.spec import load_spec, parse_spec
    from clipdrift.study.measure import run_study
    from clipdrift.study.status import study_status

__version__ = "0.1.0"

_HOMES = {
    "ClipdriftError": "clipdrift.errors",
    "DriftCallback": "clipdrift.own_loop.callback",
    "Gauge": "clipdrift.reading.gauge",
    "ModelReading": "clipdrift.reading.gauge",
    "StudyFolder": "clipdrift.records",
    "analyze_folder": "clipdrift.analysis.summary",
    "dose_response_figure": "clipdrift.report",
    "evaluate_run": "clipdrift.finished.evaluate",
    "load_spec": "clipdrift.spec",
    "parse_spec": "clipdrift.spec",
    "read_frames": "clipdrift.analysis.folder",
    "read_record": "clipdrift.records",
    "record": "clipdrift.own_loop.record",
    "run_study": "clipdrift.study.measure",
    "study_status": "clipdrift.study.status",
    "write_analysis": "clipdrift.analysis.summary",
    "write_report": "clipdrift.report",
}

__all__ = [
    "ClipdriftError",
    "DriftCallback",
    "Gauge",
    "ModelReading",
    "StudyFolder",
    "analyze_folder",
    "dose_response_figure",
    "evaluate_run",
    "load_spec",
    "parse_spec",
    "read_frames",
    "read_record",
    "record",
    "run_study",
    "study_status",
    "write_analysis",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipdrift' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
