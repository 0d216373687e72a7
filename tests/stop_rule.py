"""A forecast made by hand, and a study of which it stops the larger of two rates."""

from __future__ import annotations

from tiny_study import tiny

from clipdrift.early_warning.forecast import KEPT, SIGNALS, Line, Model, Saved
from clipdrift.study.measure import Outcome

# Falls with embedding drift only: of the two rates, only the larger moves the embedding by so much.
LINE = Line(100.0, [0.0, 4000.0, 0.0, 0.0, 0.0], 0.0, 100.0)
MODEL = Model(LINE, [LINE], [0] * 9, [5.0] * 9, [0.1] * 9, 0.1)
DRIFTS = [name for name in SIGNALS if name != KEPT]
SAVED = Saved(MODEL, 0.8, 1, DRIFTS, ["digits"], [3], ["mini-clip"], ["lora"], {"n_runs": 9})
SPEC = tiny(learning_rates=[1e-6, 1e-2])
STOPPED = tiny(learning_rates=[1e-2])


def assert_stopped(outcome: Outcome) -> None:
    """The one run of `STOPPED` was ended by this forecast, and recorded so."""
    assert (outcome.measured, outcome.stopped, outcome.failed) == (0, 1, {})
    (record,) = outcome.folder.records()[0]
    assert record.stopped_early is not None
    assert record.stopped_early.forecast_hash == SAVED.hash


__all__ = ["SAVED", "SPEC", "STOPPED", "assert_stopped"]
