"""Means over seeds of what is read block by block, and of what is read after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from clipdrift.analysis.rows import Count, Metric, OfCell, Reason, Said
from clipdrift.analysis.statistics.cell_means import cells, number, summarise, why_incomplete
from clipdrift.analysis.statistics.columns import DRIFT
from clipdrift.analysis.usable import CELL_KEY

AFTER_EPOCHS = ("val_accuracy", "train_loss")
SHOWN_AFTER_EPOCHS = (DRIFT, "penalty.")
OF_TRANSFERS = (".accuracy", ".mean_recall", ".retention_pct")


@dataclass(frozen=True, kw_only=True)
class OfProfile(OfCell):
    """
    mean: over seeds
    sd: over seeds, ddof 1
    """

    metric: Metric
    n: Count
    mean: Annotated[float | None, Said("value")]
    sd: Annotated[float | None, Said("size")]
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class BlockMean(OfProfile):
    """Drift of every cell block by block, at the selected epoch.

    block: 1 is the block at the image side
    """

    table: ClassVar = "blocks"

    block: Annotated[int, Said("count")]


@dataclass(frozen=True, kw_only=True)
class EpochMean(OfProfile):
    """Loss, accuracy, retention, penalties and drift of every cell after every epoch.

    epoch: 0 is the untouched model with the fresh head
    """

    table: ClassVar = "epochs"

    epoch: Annotated[int, Said("count")]


Profile = TypeVar("Profile", bound=OfProfile)
Wide = Any
"""A table of pandas with two levels of columns, which its types do not know."""


def by_block(frame: pd.DataFrame) -> list[BlockMean]:
    """Every drift signal of every cell in every block.

    Args:
        frame: as `per_block_frame` makes it.
    """
    drift = frame[frame["signal"].str.startswith(DRIFT)]
    keys = ["run_id", *CELL_KEY, "signal", "block"]
    wide = drift.set_index(keys)["value"].unstack(["signal", "block"])
    return list(_profile(wide, BlockMean, "block"))


def by_epoch(frame: pd.DataFrame) -> list[EpochMean]:
    """What stands in a run's history, of every cell after every epoch.

    Args:
        frame: as `history_frame` makes it.
    """
    names = [name for name in map(str, frame.columns) if _after_epochs(name)]
    known = [name for name in names if frame[name].notna().any()]
    wide = frame.set_index(["run_id", *CELL_KEY, "epoch"])[known].unstack("epoch")
    return list(_profile(wide, EpochMean, "epoch"))


def _after_epochs(name: str) -> bool:
    if name.startswith("transfer."):
        return name.endswith(OF_TRANSFERS)
    return name in AFTER_EPOCHS or name.startswith(SHOWN_AFTER_EPOCHS)


def _profile(wide: Wide, kind: Callable[..., Profile], at: str) -> Iterator[Profile]:
    """A row per cell and column of `wide`: one row a run, columns (metric, block or epoch).

    A column that no run of a cell has, such as another method's penalty, has no row there.
    """
    wide = wide.sort_index(axis=1)
    values = wide.to_numpy(dtype=np.float64)
    for cell, runs in cells(wide.index.to_frame(index=False)).items():
        found = summarise(values[runs])
        for i in np.flatnonzero(found.n).tolist():
            name, position = wide.columns[i]
            yield kind(
                **cell._asdict(),
                metric=str(name),
                n=int(found.n[i]),
                mean=number(found.mean[i]),
                sd=number(found.sd[i]),
                reason=why_incomplete(int(found.n[i]), len(runs), float(found.sd[i])),
                **{at: int(position)},
            )
