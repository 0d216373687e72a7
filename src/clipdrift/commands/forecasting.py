"""What a study that has not been run will gain and keep, learned from study folders at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clipdrift.analysis.forecasting import check_asked
from clipdrift.analysis.questions.before_trial import BeforeTrial, trials
from clipdrift.analysis.questions.beforehand import (
    SIGNALS,
    Expected,
    Known,
    expected,
    of_outcome,
    of_plan,
    of_runs,
    require_enough,
    taught,
)
from clipdrift.analysis.usable import usable_records
from clipdrift.errors import ClipdriftError, Fault, SpecError
from clipdrift.finished import beforehand
from clipdrift.records import AnyFolder, RunRecord, StudyFolder
from clipdrift.spec import AnyStudy, as_spec, expand

Runs = list[tuple[str, RunRecord]]


class ForecastBefore(NamedTuple):
    """expected: every cell's gain, and its retention on every transfer set. trials: how good such
    forecasts are. targets: learned from. left_out: folder, target, method or set -> why."""

    expected: list[Expected]
    trials: list[BeforeTrial]
    targets: list[str]
    left_out: dict[str, str]
    faults: list[Fault]


def forecast_before(
    study: AnyStudy,
    *folders: AnyFolder,
    level: float = 80,
    transfers: Sequence[str] = (),
    after_epoch: int = 1,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> ForecastBefore:
    """Expected gain of accuracy and retention of every cell of a study, before it is run.

    From forward passes, and one batch's gradient of each method, of the untouched model; learned by
    ridge regression from study folders, in which these readings are kept as `before.json`.

    Args:
        study: that has not been run, or its file.
        folders: studies to learn from; one whose data or backbone are not at hand is left out.
        level: coverage of the interval, percent.
        transfers: those of the study on which retention is forecast, default all.
        after_epoch: of the forecast that this one is held against.

    Raises:
        SpecError: if an argument or the study makes no sense.
        RecordError: if there are not enough studies to learn from; it says how many would do.
        ClipdriftError: if the study's backbone or data cannot be used.
    """
    check_asked(after_epoch, level)
    spec, share = as_spec(study), level / 100
    if unknown := [name for name in transfers if name not in {t.name for t in spec.transfers}]:
        sets = ", ".join(one.name for one in spec.transfers) or "none"
        rule, step = f"transfer sets of the study ({sets})", "Name one of them"
        raise SpecError([Fault("--transfer", rule, name, step) for name in unknown])
    faults: list[Fault] = []
    runs: Runs = []
    for folder in map(StudyFolder.at, folders):
        records, own_faults = folder.records()
        faults += own_faults
        runs += [(str(folder.path), r) for r in usable_records(records) if r.role == "matched"]
    where = ", ".join(str(StudyFolder.at(folder).path) for folder in folders)
    require_enough(where, (run.target for _, run in runs), share)
    known, left_out = _read(runs, cache_dir=cache_dir, device=device, say=say)
    lessons = [taught(name, known) for name in SIGNALS]
    own = beforehand.of_study(spec, cache_dir=cache_dir, device=device, say=say)
    plan = [
        one
        for one in of_plan(expand(spec, precision="float32"), own)
        if not transfers or one.transfer in (None, *transfers)
    ]
    asked = [data for data in lessons if any(of_outcome(data.name, one) for one in plan)]
    for data in asked:
        require_enough(_less(where, left_out), (cell.target for cell in data.cells), share)
    return ForecastBefore(
        [row for data in asked for row in expected(data, plan, share)],
        [row for data in asked for row in trials(data, runs, share, after_epoch)],
        sorted({cell.target for data in asked for cell in data.cells}),
        left_out | own.left_out,
        faults,
    )


def _read(
    runs: Runs, *, cache_dir: Path | None, device: str, say: Callable[[str], None]
) -> tuple[list[Known], dict[str, str]]:
    """What is known of the cells of each folder, and why of others nothing is."""
    by_place: dict[str, list[RunRecord]] = {}
    for place, run in runs:
        by_place.setdefault(place, []).append(run)
    known: list[Known] = []
    left_out: dict[str, str] = {}
    for place, mine in by_place.items():
        folder = StudyFolder(Path(place))
        try:
            before = beforehand.of_folder(folder, cache_dir=cache_dir, device=device, say=say)
        except ClipdriftError as error:
            left_out[place] = str(error.faults[0])
            continue
        left_out |= {f"{place}, {name}": why for name, why in before.left_out.items()}
        known += of_runs(place, mine, before)
    return known, left_out


def _less(where: str, left_out: Mapping[str, str]) -> str:
    """The folders, less what was left out of them."""
    without = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    return f"{where} (left out: {without})" if without else where
