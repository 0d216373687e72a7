"""A forecast made by hand, and a study of which it stops the larger of two rates."""

from __future__ import annotations

from tiny_study import tiny

from clipdrift.early_warning.forecast import SIGNALS, Line, Model, Saved

# Falls with embedding drift only: of the two rates, only the larger moves the embedding by so much.
LINE = Line(100.0, [0.0, 4000.0, 0.0, 0.0, 0.0], 0.0, 100.0)
MODEL = Model(LINE, [LINE], [0] * 9, [5.0] * 9, [0.1] * 9, 0.1)
SAVED = Saved(MODEL, 0.8, 1, list(SIGNALS), ["digits"], [3], ["mini-clip"], ["lora"], {"n_runs": 9})
SPEC = tiny(learning_rates=[1e-6, 1e-2])
STOPPED = tiny(learning_rates=[1e-2])

__all__ = ["SAVED", "SPEC", "STOPPED"]
