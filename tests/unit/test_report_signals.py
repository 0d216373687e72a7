"""Which columns of the run frame count as signals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from clipdrift.analysis.statistics.columns import signal_columns
from clipdrift.report.figures.predictors import once


def test_weights_between_and_corrupted_parts_foretell_nothing() -> None:
    extras = ("interpolation.0.5.test_accuracy", "corruption.jpeg.3.accuracy", "own_signal")
    names = ["val_accuracy", "drift.gini_pct", *(f"extra.{name}" for name in extras)]
    frame = pd.DataFrame({name: [0.1, 0.2] for name in names})
    found = {signal.name for signal in signal_columns(frame)}
    drift = {"drift.gini_pct", "|drift.gini_pct|"}
    assert found == {"val_accuracy", *drift, "extra.own_signal", "log10_learning_rate"}


def test_the_figure_draws_a_size_that_ranks_as_its_signal_does_once() -> None:
    rho = {"drift.a": 0.5, "|drift.a|": 0.5, "drift.b": 0.1, "|drift.b|": 0.9}
    rows: list[Any] = [
        SimpleNamespace(signal=name, when="final", spearman_overall=value)
        for name, value in rho.items()
    ]
    assert [row.signal for row in once(rows)] == ["drift.a", "drift.b", "|drift.b|"]
