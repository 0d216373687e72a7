"""Does a drift signal depend on which probe images were drawn, and how many are enough?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.frame import whole_table
from clipdrift.analysis.rows import Reason, Row, Said, key
from clipdrift.analysis.statistics.ranks import Floats
from clipdrift.errors import Fault
from clipdrift.records import RunRecord, StudyFolder

FILE_NAME = "probe_images.parquet"
Positions = NDArray[np.intp]
IMAGE, LABEL, BASELINE = "image", "label", "_baseline"
N_SUBSETS = 5
SETTLED_WITHIN = 1e-3


@dataclass(frozen=True, kw_only=True)
class ProbeSensitivity(Row):
    """Spread of each signal over balanced subsets of the probe images.

    signal: a level of a record
    n_images: of the probe set
    n_subsets: balanced, disjoint
    seed: of the deal into subsets
    mean: over all images, in the signal's unit
    cv: SD / |mean| of subset means
    settled_at: images from which on every running mean is within 0.1 %
    """

    table: ClassVar = "probe_sensitivity"

    run_id: Annotated[str, key("Run")]
    signal: Annotated[str, key("Signal", "level")]
    n_images: Annotated[int, Said("count", "Images")]
    n_subsets: Annotated[int, Said("count", "Subsets")]
    seed: Annotated[int, Said("count")]
    mean: float | None = None
    cv: Annotated[float | None, Said(head="CV")] = None
    settled_at: Annotated[int | None, Said("count", "Settles at")] = None
    reason: Reason = None


def rows(
    tables: Mapping[str, pd.DataFrame], *, n_subsets: int = N_SUBSETS, seed: int = 0
) -> list[ProbeSensitivity]:
    """Spread of every signal over balanced subsets of the probe set, and where its mean settles.

    The images of each class are dealt in random order to the subsets, which are disjoint, together
    the whole probe set, and differ by one image per class at most. CV = SD (ddof 1) / |mean| of
    the subset means. The deal depends on `seed` and the image numbers alone, so runs on one probe
    set share it.

    Settled: the fewest images k, taken in random order with the classes in turn, from which on
    every running mean lies within 0.1 % of the mean of all.

    Args:
        tables: run id -> one row per probe image: `image` (distinct), optional `label`, and one
            column per signal.
        n_subsets: number of subsets, 2 or more.
        seed: of the order.

    Returns:
        One row per run and signal.

    >>> table = pd.DataFrame({"image": [0, 1, 2, 3], "cls_entropy_nats": [2.0, 2.0, 2.0, 2.0]})
    >>> [(r.cv, r.settled_at) for r in rows({"a": table}, n_subsets=2)]
    [(0.0, 1)]
    """
    out = []
    for run_id in sorted(tables):
        table = tables[run_id].sort_values(IMAGE, kind="stable").reset_index(drop=True)
        dealt = dealt_by_class(table, seed)
        order = in_turn(table, dealt)
        for signal in signals(table):
            values = table[signal].to_numpy(dtype=np.float64, na_value=np.nan)
            row = ProbeSensitivity(
                run_id=run_id, signal=signal, n_images=len(order), n_subsets=n_subsets, seed=seed
            )
            out.append(_sensitivity(row, values, dealt, order))
    return out


def signals(table: pd.DataFrame) -> list[str]:
    """Names of the numeric columns read on the adapted model, sorted.

    Readings of the untouched backbone are the same for every run and stand beside as `_baseline`.
    """
    numeric = map(str, table.select_dtypes(include="number").columns)
    return sorted(n for n in numeric if n not in (IMAGE, LABEL) and not n.endswith(BASELINE))


def dealt_by_class(table: pd.DataFrame, seed: int) -> Positions:
    """The images in random order inside each class, the classes one after the other.

    Every n-th of them is a balanced subset: no class has two images more in one than in another.

    Args:
        table: rows in order of `image`; without `label` all images count as one class.
        seed: of the generator.

    Returns:
        Positions in the table, shape (n_images,).
    """
    return np.lexsort((np.random.default_rng(seed).permutation(len(table)), _classes(table)))


def in_turn(table: pd.DataFrame, dealt: Positions) -> Positions:
    """The dealt images with the classes taking turns: first one of each, then a second, ..."""
    classes = pd.Series(_classes(table)[dealt])
    return dealt[np.argsort(classes.groupby(classes).cumcount().to_numpy(), kind="stable")]


def _classes(table: pd.DataFrame) -> NDArray[np.intp]:
    if LABEL not in table:
        return np.zeros(len(table), dtype=np.intp)
    return np.unique(table[LABEL].to_numpy(), return_inverse=True)[1]


def _sensitivity(
    row: ProbeSensitivity, values: Floats, dealt: Positions, order: Positions
) -> ProbeSensitivity:
    n = values.size
    if n == 0:
        return replace(row, reason="no images")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return replace(row, reason=f"undefined on {bad} of {n} images")
    mean = float(values.mean())
    row = replace(row, mean=mean)
    # Rounding of a mean of this many terms: below it the mean is zero and has no relative spread.
    if abs(mean) <= 1e-12 * float(np.abs(values).max()):
        return replace(row, reason="the mean is 0: no relative spread")
    running = np.cumsum(values[order]) / np.arange(1, n + 1)
    away = np.flatnonzero(np.abs(running - mean) > SETTLED_WITHIN * abs(mean))
    row = replace(row, settled_at=int(away[-1]) + 2 if away.size else 1)
    if n < row.n_subsets:
        return replace(row, reason=f"{n} images for {row.n_subsets} subsets")
    means = np.array([values[dealt[i :: row.n_subsets]].mean() for i in range(row.n_subsets)])
    return replace(row, cv=float(means.std(ddof=1)) / abs(mean))


def read_tables(
    folder: StudyFolder, records: Sequence[RunRecord]
) -> tuple[dict[str, pd.DataFrame], list[Fault]]:
    """The per-image tables beside records of a study, and the faults of unusable ones.

    Runs without such a file (imported or packed records) are left out.
    """
    tables: dict[str, pd.DataFrame] = {}
    faults = []
    for record in sorted(records, key=lambda record: record.run_id):
        path = folder.run_path(record.run_id) / FILE_NAME
        if not path.exists():
            continue
        table = whole_table(path, record.files.get(FILE_NAME))
        if IMAGE in table and table[IMAGE].is_unique:
            tables[record.run_id] = table
        else:
            expected = f"the recorded table of probe images, with distinct values in {IMAGE!r}"
            step = "Run the study again to redo the run"
            faults.append(Fault(str(path), expected, "a damaged or different file", step))
    return tables, faults
