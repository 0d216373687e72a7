"""What a study is, as written in YAML and as resolved to runs.

`parts`, `methods`, `datasets` and `carving` hold the pydantic models, `load` reads a file and
reports every fault with its line, `grid` expands a study to run configurations with their identity,
`audit` says how matched runs stand on each factor, `study_faults` what breaks a study.
"""

from clipdrift.spec.datasets import TargetSpec, TransferSpec
from clipdrift.spec.grid import PROTOCOL_VERSION, RunConfig, canonical_json, content_hash, expand
from clipdrift.spec.load import AnyStudy, as_spec, dump_spec, load_spec, parse_spec
from clipdrift.spec.parts import StudySpec

__all__ = [
    "PROTOCOL_VERSION",
    "AnyStudy",
    "RunConfig",
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
