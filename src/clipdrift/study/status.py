"""Where a study stands: what each planned run is at, and how far. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Mapping

from clipdrift.errors import Fault, StudyFolderError
from clipdrift.records import AnyFolder, StudyFolder
from clipdrift.records.claims import in_use
from clipdrift.run.progress import STATE_FILE, Progress, read_progress

AGAIN = ("failed", "stopped")
"""Of a record whose run a worker may be at once more."""


def study_status(folder: AnyFolder) -> dict[str, str]:
    """Run id -> its state, for every planned run.

    Those with a record are "finished", "diverged", "stopped" or "failed"; of the others, "running"
    is one that a worker is at, "interrupted" one that goes on from its saved state, and the rest
    are "to do". One that is "stopped" was paused by a race, which went on with others.

    Raises:
        StudyFolderError: if there is no study in the folder.
    """
    folder = StudyFolder.at(folder)
    planned = folder.planned()
    if planned is None:
        raise StudyFolderError(
            Fault(
                str(folder.path),
                "a study folder with a plan",
                "none",
                "Run a study with --out there",
            )
        )
    found = {run_id: folder.recorded(run_id, identity) for run_id, identity in planned.items()}
    return {
        run_id: _without_record(folder, run_id)
        if record is None or (record.status in AGAIN and in_use(folder.claim_path(run_id)))
        else record.status
        for run_id, record in found.items()
    }


def _without_record(folder: StudyFolder, run_id: str) -> str:
    if in_use(folder.claim_path(run_id)):
        return "running"
    return "interrupted" if (folder.run_path(run_id) / STATE_FILE).exists() else "to do"


def under_way(folder: AnyFolder, states: Mapping[str, str]) -> dict[str, Progress]:
    """How far the runs are that are running or interrupted, as `study_status` says.

    Workers write it down after an epoch, every few seconds at most.
    """
    folder = StudyFolder.at(folder)
    ids = [run_id for run_id, state in states.items() if state in ("running", "interrupted")]
    read = {run_id: read_progress(folder.run_path(run_id)) for run_id in ids}
    return {run_id: progress for run_id, progress in read.items() if progress is not None}
