"""Warnings of the analysis in words, the urgent ones first."""

from __future__ import annotations

from dataclasses import dataclass

from clipdrift.analysis.questions.caveats import Caveat
from clipdrift.analysis.rows import rate_text
from clipdrift.report.source import Study

WARNING_WORDS = {
    "runs_to_do": "The study is not whole: what follows is of the runs that are there",
    "raced": "The study was raced: what follows is of the runs that it took",
    "leak": "Sets that were not kept apart",
    "run_not_finished": "Run not finished, in no mean",
    "run_stopped": "Run that a race paused, in no mean",
    "unreadable_record": "Record that cannot be read",
    "duplicate_kept_once": "Duplicated run, counted once",
    "duplicate_dropped": "Duplicated run that contradicts itself, left out",
    "pairs_dropped": "Matched pairs dropped",
    "pairs_not_compared": "Pairs of methods not compared",
    "undefined_value": "Undefined value",
    "several_backbones": "Several backbones",
    "one_method": "One method",
    "one_learning_rate": "One learning rate",
    "one_seed": "One seed",
    "other_score": "Scored otherwise than by accuracy",
    "few_right_images": "Retention of few images",
    "run_warning": "Remark of a run",
    "trained_elsewhere": "Trained elsewhere, recorded beside the study",
}
URGENT = ("runs_to_do", "raced", "leak", "duplicate_dropped", "unreadable_record")
MAX_LISTED = 40


@dataclass(frozen=True)
class Notice:
    """A warning of the analysis in words."""

    kind: str
    heading: str
    detail: str
    runs: str
    urgent: bool


def notices(study: Study) -> list[Notice]:
    """Everything a reader must know before the numbers, the urgent first."""
    # What a race paused is told at once, not run by run.
    raced = any(study.rows(Caveat, kind="raced"))
    rows = [row for row in study.rows(Caveat) if not (raced and row.kind == "run_stopped")]
    out = [_notice(study, row) for row in rows]
    return sorted(out, key=lambda notice: not notice.urgent)[:MAX_LISTED]


def _notice(study: Study, row: Caveat) -> Notice:
    rate = None if row.learning_rate is None else rate_text(row.learning_rate)
    seed = None if row.seed is None else f"seed {row.seed}"
    where = " · ".join(filter(None, [row.target, row.method, rate, seed]))
    count = f" ({row.count} times)" if row.count > 1 else ""
    kind = row.kind
    return Notice(
        kind,
        WARNING_WORDS.get(kind, kind.replace("_", " ")) + (f": {where}" if where else ""),
        f"{row.detail}{count}",
        study.index.encode(row.run_ids),
        kind in URGENT,
    )
