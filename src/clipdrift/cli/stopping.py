"""`run --stop-below`: which forecast ends runs, and from which records it was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipdrift.errors import Fault, RecordError, SpecError

if TYPE_CHECKING:
    from clipdrift.early_warning.forecast import Saved
    from clipdrift.early_warning.rule import StopRule
    from clipdrift.records import StudyFolder
    from clipdrift.spec import StudySpec

FROM = "--forecast-from"
StopBelow = Annotated[
    float | None,
    typer.Option(
        help="retention in percent: end runs whose forecast says that they will keep less",
        show_default=False,
    ),
]
ForecastFrom = Annotated[
    list[Path] | None,
    typer.Option(
        help="with --stop-below: study folders to learn from, or a file of 'forecast --save'; "
        "repeatable; default: the study's own finished runs",
        show_default=False,
    ),
]


def chosen_rule(
    below: float | None, sources: Sequence[Path], spec: StudySpec, folder: StudyFolder
) -> tuple[StopRule | None, list[str]]:
    """The rule that was asked for, and what to say of it; None where none was.

    Raises:
        ClipdriftError: if limit or records make no rule, before anything is started.
    """
    if below is None:
        if sources:
            step = "Add --stop-below with a retention in percent, or leave it out"
            raise SpecError(Fault(FROM, "--stop-below beside it", "none", step))
        return None, []
    from clipdrift.early_warning.rule import StopRule, limit_faults, rule_faults

    wrong = list(limit_faults(below))
    if wrong:
        raise SpecError(wrong)
    saved, origin = _forecast(sources, spec, folder)
    rule = StopRule(saved, below)
    wrong = list(rule_faults(rule, spec))
    if wrong:
        raise SpecError(wrong)
    return rule, list(_words(rule, spec, origin))


def _forecast(sources: Sequence[Path], spec: StudySpec, folder: StudyFolder) -> tuple[Saved, str]:
    from clipdrift.early_warning.forecast import read_forecast
    from clipdrift.early_warning.rule import read_rule
    from clipdrift.records import StudyFolder

    if len(sources) == 1 and sources[0].is_file():
        return read_forecast(sources[0]), str(sources[0])
    if sources:
        return _learned([StudyFolder(path) for path in sources], spec)
    # Runs that were stopped are missing from the finished ones: what was learned before them is
    # the better forecast, and decides as it did.
    before = read_rule(folder)
    if before is not None:
        return before.forecast, f"an earlier call on {folder.path}"
    if not folder.path.is_dir():
        rule = "finished runs to learn from"
        step = f"Name finished studies with {FROM}"
        raise RecordError(Fault("--stop-below", rule, "a new study", step))
    return _learned([folder], spec)


def _learned(folders: Sequence[StudyFolder], spec: StudySpec) -> tuple[Saved, str]:
    from clipdrift.analysis.forecasting import fitted
    from clipdrift.analysis.questions.lessons import lessons

    try:
        data, _ = lessons(folders, after_epoch=1, transfers=[t.name for t in spec.transfers])
    except SpecError as error:
        step = f"Learn from records of the study's transfer datasets, or give {FROM} a file of "
        step += "'clipdrift forecast DIR --transfer NAME --save FILE'"
        wrong = [replace(fault, where="--stop-below", next_step=step) for fault in error.faults]
        raise SpecError(wrong) from None
    except RecordError as error:
        step = f"Name finished studies with {FROM}, or run more of the grid first"
        raise RecordError([replace(fault, next_step=step) for fault in error.faults]) from None
    return fitted(data), ", ".join(str(folder.path) for folder in folders)


def _words(rule: StopRule, spec: StudySpec, origin: str) -> list[str]:
    from clipdrift.spec import expand

    saved = rule.forecast
    learned = saved.trained_on
    first = (
        f"stopping runs whose retention on {', '.join(saved.transfers)}, forecast after epoch "
        f"{saved.after_epoch}, has an upper bound ({saved.level:.0%} interval) below "
        f"{rule.below_pct:g} %: learned from {learned.get('n_runs')} runs in "
        f"{learned.get('n_cells')} cells, {origin}"
    )
    whole = sorted({c.method.name for c in expand(spec, precision="float32") if rule.unknown(c)})
    if not whole:
        return [first]
    why = "the forecast has not learned from them and gives no interval"
    return [first, f"never stopped, as {why}: {', '.join(whole)}"]
