"""Which columns of the run frame count as signals."""

from __future__ import annotations

import pandas as pd

from clipdrift.analysis.signals import signal_columns


def test_weights_between_and_corrupted_parts_foretell_nothing() -> None:
    extras = ("interpolation.0.5.test_accuracy", "corruption.jpeg.3.accuracy", "own_signal")
    names = ["val_accuracy", "drift.gini_pct", *(f"extra.{name}" for name in extras)]
    frame = pd.DataFrame({name: [0.1, 0.2] for name in names})
    found = {signal.name for signal in signal_columns(frame)}
    assert found == {"val_accuracy", "drift.gini_pct", "extra.own_signal", "log10_learning_rate"}
