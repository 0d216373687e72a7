"""What would ending runs early by a forecast have saved, and how often wrongly?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from clipdrift.analysis.questions.held_out import Held, LeftOut, OfBackbone, Why
from clipdrift.analysis.questions.lessons import Lessons
from clipdrift.analysis.rows import Row, RunIds, Said, key

LIMITS = (50.0, 80.0, 90.0, 95.0)


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Row):
    """What ending runs would have done whose whole interval lies below a limit.

    limit_pct: retention in percent below which runs end
    n: runs forecast
    n_below: runs that ended below the limit
    n_stopped: runs whose upper bound lies below it
    n_right: of those, runs that ended below it
    n_wrong: of those, runs that kept it
    seconds_saved: training time that would not have been spent; null where none is recorded
    seconds_saved_pct: its share
    steps_saved_pct: share of training steps
    """

    table: ClassVar = "early_stopping"

    backbone: OfBackbone = None
    split: LeftOut
    limit_pct: Annotated[float, key("Limit (%)", "one")]
    n: Annotated[int, Said("count", "Runs")]
    n_below: Annotated[int, Said("count", "Below it")]
    n_stopped: Annotated[int, Said("count", "Stopped")]
    n_right: Annotated[int, Said("count", "rightly")]
    n_wrong: Annotated[int, Said("count", "wrongly")]
    seconds_saved: Annotated[float | None, Said("one", "Saved (s)")]
    seconds_saved_pct: Annotated[float | None, Said("one", "Saved (%)")]
    steps_saved_pct: Annotated[float | None, Said("one", "Steps (%)")]
    run_ids: RunIds = field(default_factory=list)
    reason: Why


def stopping(data: Lessons, held: Held, limit: float) -> EarlyStopping:
    """What ending runs whose upper bound lies below a limit would have done to these runs.

    Needs forecasts with an interval (`held.bounded`).
    """
    there = held.there
    stopped = there & (held.forecast.high < limit)
    saved = (data.steps - data.early_steps)[stopped].sum()
    n, total = int(there.sum()), float(data.steps[there].sum())
    seconds, whole = (data.seconds - data.early_seconds)[stopped].sum(), data.seconds[there].sum()
    return EarlyStopping(
        split=held.split,
        limit_pct=limit,
        n=n,
        n_below=int((there & (data.kept < limit)).sum()),
        n_stopped=int(stopped.sum()),
        n_right=int((stopped & (data.kept < limit)).sum()),
        n_wrong=int((stopped & (data.kept >= limit)).sum()),
        seconds_saved=float(seconds) if whole else None,
        seconds_saved_pct=float(100 * seconds / whole) if whole else None,
        steps_saved_pct=float(100 * saved / total) if total else None,
        reason=held.reason,
    )
