"""Values of single runs: what the page lists when a number made of them is pressed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clipdrift.records.readings import TARGET_ZERO_SHOT
from clipdrift.report.figures.history import history_metrics
from clipdrift.report.figures.layers import layer_signals
from clipdrift.report.metrics import metric
from clipdrift.report.printed import part_of
from clipdrift.report.source import Study

MAX_VALUES = 150_000
Wide = Any
"""A table of pandas with two levels of columns, which its types do not know."""


@dataclass
class Listed:
    """Name -> the text of every run's value in the order of the page's runs, null if undefined.

    A name is a metric, or a metric at a block or after an epoch.
    """

    values: dict[str, list[str | None]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, shown: str, label: str, column: Any) -> None:
        """Values of a metric `shown` under a name."""
        as_text = metric(shown).with_unit
        self.values[name] = [None if math.isnan(v) else as_text(v) for v in column]
        self.labels[name] = label


def listed(study: Study) -> Listed:
    """All that can be listed; less where there are many runs: then it lists the runs alone."""
    ids, found = list(study.index.ids), Listed()
    runs = study.runs.set_index("run_id")[_metrics(study)].reindex(ids)
    for name in runs:
        found.add(str(name), str(name), metric(str(name)).label, runs[name])
    room = MAX_VALUES - runs.size
    for word, table in (("block", _by_block(study)), ("epoch", _by_epoch(study))):
        if table.size > room:
            continue
        room -= table.size
        for (name, at), column in table.reindex(ids).items():
            label = f"{metric(name).label}, {word} {at}"
            found.add(part_of(name, word, at), name, label, column)
    return found


def _metrics(study: Study) -> list[str]:
    main = list(dict.fromkeys([study.accuracy, *study.outcomes, *study.main_drifts]))
    beside = (".baseline_accuracy", f"{TARGET_ZERO_SHOT}.accuracy")
    before = [name for name in map(str, study.runs) if name.endswith(beside)]
    rest = [name for name in study.metrics if not name.startswith("epoch1.")]
    full = list(dict.fromkeys([*main, *rest, *before]))
    return full if len(full) * len(study.index.ids) <= MAX_VALUES else main


def _by_block(study: Study) -> Wide:
    """One row per run, columns (signal, block)."""
    rows = study.blocks[study.blocks["signal"].isin(layer_signals(study))]
    return rows.set_index(["run_id", "signal", "block"])["value"].unstack(["signal", "block"])


def _by_epoch(study: Study) -> Wide:
    """One row per run, columns (metric, epoch)."""
    if not (names := history_metrics(study)):
        return pd.DataFrame()
    return study.history.set_index(["run_id", "epoch"])[names].unstack("epoch")
