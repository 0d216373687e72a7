"""What one study says of two methods: kept at equal accuracy, reached at their best rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from clipdrift.analysis.frame import SUITE, runs_frame
from clipdrift.analysis.pooled.join import Joined
from clipdrift.analysis.questions.standings import OWN_BEST, TEST_ACCURACY, Standing, standings
from clipdrift.analysis.rows import Row, Said, key
from clipdrift.analysis.statistics.columns import LOG_LR, matched_runs, outcome_columns, parts
from clipdrift.analysis.statistics.curve_images import CurveImages, with_images
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import LEVEL, jackknife
from clipdrift.analysis.statistics.method_curves import VIEWS, MethodCurves
from clipdrift.analysis.statistics.pairs import without_conflicts

Question = Literal["retention_at_equal_accuracy", "accuracy_at_best_rates"]
KEPT: Question = "retention_at_equal_accuracy"
REACHED: Question = "accuracy_at_best_rates"
WHERE = {KEPT: VIEWS[0].name, REACHED: OWN_BEST}
MEAN_KEPT = f"{SUITE}mean_retention_pct"


@dataclass(frozen=True, kw_only=True)
class StudyEffect(Row):
    """The difference of two methods in one study, mean over its backbones and targets.

    Retention is the mean over the transfer sets, at equal validation accuracy; accuracy is that of
    the test part, each method at its best rate.

    study: one, or those that were joined
    diff_pp: method_a - method_b in percentage points
    se_pp: its standard error, as if the errors of backbones and targets went together
    n_places: backbones x targets in the mean
    n_seeds: fewest seeds behind it
    weight: share in the pooled mean
    reason: why it is not pooled
    """

    table: ClassVar = "effects"

    question: Annotated[Question, key("Question", "words")]
    method_a: Annotated[str, key("First", "name")]
    method_b: Annotated[str, key("Second", "name")]
    study: Annotated[str, key("Study", "name")]
    diff_pp: Annotated[float | None, Said("two", "Diff. (pp)")] = None
    se_pp: Annotated[float | None, Said("two", "SE (pp)")] = None
    n_places: Annotated[int, Said("count", "Targets")] = 0
    n_seeds: Annotated[int, Said("count", "Seeds")] = 0
    weight: Annotated[float | None, Said("share", "Weight")] = None
    reason: Annotated[str | None, Said("remark", "Remark")] = None


class Read(NamedTuple):
    """A difference at one backbone and target; without an error `reason` says why."""

    diff: float
    se: float | None
    n_seeds: int
    reason: str | None


def effects(joined: Joined, methods: Sequence[str] = ()) -> Iterator[StudyEffect]:
    """A row for every question and pair of matched methods that the study can say anything of.

    Args:
        methods: those to compare; default all.
    """
    records = joined.records
    agreeing = without_conflicts(runs_frame(records), joined.varied)
    found: dict[tuple[Question, str, str], list[Read]] = {}
    for question, pair, read in _everywhere(agreeing, Images(records), methods):
        found.setdefault((question, *pair), []).append(read)
    for (question, a, b), reads in found.items():
        yield _mean(
            StudyEffect(question=question, method_a=a, method_b=b, study=joined.name), reads
        )


def _mean(row: StudyEffect, reads: list[Read]) -> StudyEffect:
    sure = [read for read in reads if read.se is not None]
    if not sure:
        return replace(row, reason=reads[0].reason)
    return replace(
        row,
        diff_pp=float(np.mean([read.diff for read in sure])),
        se_pp=float(np.mean([read.se for read in sure])),
        n_places=len(sure),
        n_seeds=min(read.n_seeds for read in sure),
    )


def _everywhere(
    frame: pd.DataFrame, images: Images, wanted: Sequence[str]
) -> Iterator[tuple[Question, tuple[str, str], Read]]:
    for _, part in parts(matched_runs(frame), "backbone", "target"):
        names = sorted(set(part["method"]) & set(wanted or part["method"]))
        for pair in combinations(names, 2):
            # Of the two alone: what is held equal must not hang on which others a study has.
            two = part[part["method"].isin(pair)]
            for question, read in _of_pair(two, pair, images):
                yield question, pair, read


def _of_pair(
    part: pd.DataFrame, pair: tuple[str, str], images: Images
) -> Iterator[tuple[Question, Read]]:
    kept = MEAN_KEPT if MEAN_KEPT in part else next(iter(outcome_columns(part)), None)
    asked: dict[Question, str | None] = {
        KEPT: kept,
        REACHED: TEST_ACCURACY if TEST_ACCURACY in part else None,
    }
    metrics = [name for name in asked.values() if name is not None]
    curves = MethodCurves(part, [*metrics, LOG_LR])
    known = CurveImages(curves, images)
    views = {one.view: one for one in standings(curves, known, metrics, UNDERFIT_FRACTION)}
    for question, metric in asked.items():
        view = views.get(WHERE[question])
        if metric is not None and view is not None:
            yield question, _read(view, pair, metrics.index(metric), metric)


def _read(view: Standing, pair: tuple[str, str], i: int, metric: str) -> Read:
    scale = 100.0 if metric == TEST_ACCURACY else 1.0
    values, seeds = view.values[:, i], int(view.seeds[:, i].min())
    if not np.isfinite(values[:, 0]).all():
        first = next(
            n for n, value in zip(pair, values[:, 0], strict=True) if not np.isfinite(value)
        )
        return Read(np.nan, None, seeds, view.reasons.get(first) or "undefined in a cell")
    test = jackknife(values[0] - values[1], seeds, float(np.abs(values[:, 0]).max()))
    ends = with_images(test.interval(), view.images(pair, [metric]).get(metric, []))
    if ends.low is None or ends.high is None:
        return Read(scale * test.value, None, seeds, test.reason)
    half = (ends.high - ends.low) / 2 / float(stdtrit(test.df, (1 + LEVEL) / 2))
    return Read(scale * test.value, scale * half, test.df + 1, None)
