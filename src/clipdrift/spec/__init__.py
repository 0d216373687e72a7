"""What a study is, as written in YAML and as resolved to runs.

`parts`, `methods` and `datasets` hold the pydantic models, `load` reads a file and reports every
fault with its line, `grid` expands a study to run configurations with their identity, `audit`
checks matchedness.
"""

from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import DatasetSpec, TargetSpec, TransferSpec
from clipdrift.spec.grid import PROTOCOL_VERSION, RunConfig, canonical_json, content_hash, expand
from clipdrift.spec.load import AnyStudy, as_spec, dump_spec, load_spec, parse_spec
from clipdrift.spec.methods import MethodSpec
from clipdrift.spec.parts import ScheduleSpec, StudySpec

__all__ = [
    "PROTOCOL_VERSION",
    "AnyStudy",
    "DatasetSpec",
    "MethodSpec",
    "ProbeSpec",
    "RunConfig",
    "ScheduleSpec",
    "SplitSpec",
    "StudySpec",
    "TargetSpec",
    "TransferSpec",
    "as_spec",
    "canonical_json",
    "content_hash",
    "dump_spec",
    "expand",
    "load_spec",
    "parse_spec",
]
