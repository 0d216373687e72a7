"""Answers from records: analysis, audit, choice, forecast, replay. Nothing loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clipdrift.errors import Fault
from clipdrift.records import AnyFolder, StudyFolder

if TYPE_CHECKING:
    from clipdrift.analysis.choose import Choice
    from clipdrift.analysis.questions.lost_classes import LostClass
    from clipdrift.analysis.replay import Replay
    from clipdrift.report import Difference


def analyze(folder: AnyFolder) -> dict[str, Any]:
    """Compute all statistics of a study; write `analysis.json` and `tables/*.csv`.

    Returns:
        What `analysis.json` holds; docs/analysis.md explains its rows.

    Raises:
        RecordError: if no record can be used; the faults of the unusable ones are named.
        StudyFolderError: if the folder does not exist or cannot be written.
    """
    from clipdrift.analysis.files import write_analysis

    return write_analysis(StudyFolder.at(folder))


def audit(folder: AnyFolder) -> list[Difference]:
    """Recompute every number of a report from the records; what differs, or is not there.

    Raises:
        RecordError: if there is no report, or no record can be used.
    """
    from clipdrift.report import audit_report

    return audit_report(StudyFolder.at(folder))


def choose(
    folder: AnyFolder,
    *,
    min_accuracy: float | None = None,
    within: float | None = None,
    min_retention: float | None = None,
    max_retention_loss: float | None = None,
    targets: Sequence[str] = (),
    transfers: Sequence[str] = (),
    top: int | None = 5,
) -> Choice:
    """Which method, learning rate and alpha best meets a budget, for every target.

    Args:
        min_accuracy: floor on target accuracy, percent.
        within: or percentage points below the best accuracy.
        min_retention: floor on retention, percent of the untouched accuracy.
        max_retention_loss: or points of retention to lose; 2 is a retention of 98.
        targets: those to answer for, default all.
        transfers: those on which retention counts, default all.
        top: candidates to list per target; None lists all.

    Raises:
        SpecError: if a floor or a name makes no sense.
        RecordError: if there is no finished run, or none with a retention.
    """
    from clipdrift.analysis.choose import choose as answer
    from clipdrift.analysis.questions.budget import budget

    asked = budget(
        min_accuracy=min_accuracy,
        within_pp=within,
        min_retention=min_retention,
        max_retention_loss=max_retention_loss,
    )
    return answer(StudyFolder.at(folder), asked, targets=targets, transfers=transfers, top=top)


class Forecast(NamedTuple):
    """What the first epochs foretell, and records left out."""

    rows: dict[str, Any]
    faults: list[Fault]


def forecast(
    *folders: AnyFolder,
    after_epoch: int = 1,
    level: float = 80,
    transfers: Sequence[str] = (),
) -> Forecast:
    """Whether an early epoch foretells final retention.

    Args:
        folders: studies to learn from.
        after_epoch: the epoch that is read, from 1.
        level: coverage of the interval, percent.
        transfers: those on which retention counts, default all that the folders share.

    Raises:
        SpecError: if an argument makes no sense.
        RecordError: if there is too little to learn from.
    """
    from clipdrift.analysis.forecasting import check_asked
    from clipdrift.analysis.forecasting import forecast as learn
    from clipdrift.analysis.questions.lessons import lessons

    check_asked(after_epoch, level)
    data, faults = lessons(
        [StudyFolder.at(folder) for folder in folders],
        after_epoch=after_epoch,
        transfers=list(transfers),
    )
    rows = learn(data, after_epoch=after_epoch, level=level / 100)
    return Forecast(rows, faults)


class Lost(NamedTuple):
    """What every cell did to every class of its transfer sets, and records left out."""

    rows: list[LostClass]
    faults: list[Fault]


def lost(folder: AnyFolder) -> Lost:
    """Which classes of the transfer sets fell, and into which, where a study was read in full.

    Raises:
        RecordError: if no finished run was read with `evaluation.in_full`.
    """
    from clipdrift.analysis.questions.lost_classes import of_folder

    return Lost(*of_folder(StudyFolder.at(folder)))


def replay(preset: str, folder: AnyFolder) -> Replay:
    """Every published figure of a preset beside the one that the records of a folder give.

    Raises:
        SpecError: if nothing is published for the preset.
        RecordError: if the folder has no finished run, or none in a published cell.
    """
    from clipdrift.analysis.replay import replay as hold

    return hold(StudyFolder.at(folder), preset)
