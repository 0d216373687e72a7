"""The waist between measuring and reading: one JSON record per run, and the folder they lie in."""

from clipdrift.records.folder import AnyFolder, StudyFolder
from clipdrift.records.readings import EpochReading
from clipdrift.records.schema import SCHEMA_VERSION, RunRecord, read_record
from clipdrift.records.writing import atomic_write

__all__ = [
    "SCHEMA_VERSION",
    "AnyFolder",
    "EpochReading",
    "RunRecord",
    "StudyFolder",
    "atomic_write",
    "read_record",
]
