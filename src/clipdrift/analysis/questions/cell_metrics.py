"""What each cell reached: mean, SD over seeds and interval of every metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import in_order, metric_columns
from clipdrift.analysis.rows import Count, Drawn, Fits, Metric, OfCell, Reason, RunIds, Said
from clipdrift.analysis.statistics.cell_means import (
    CellKey,
    cells,
    matrix,
    number,
    summarise,
    why_incomplete,
)
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.crossed import SEEDS, SEEDS_AND_IMAGES, Crossed, binomial
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, Fit, fits
from clipdrift.analysis.statistics.influence import NOT_RECORDED, Images
from clipdrift.analysis.statistics.intervals import Interval, of_share


@dataclass(frozen=True, kw_only=True)
class CellMetric(OfCell):
    """Every metric of every cell over its seeds.

    mean: over seeds
    sd: over seeds, ddof 1
    n_images: labelled images that each run was read on; null where the metric is no mean over them,
        or they are not known
    image_se: error of the mean from drawing images, paired with the baseline's; binomial where only
        the counts are known
    ci_low: 95 % interval of the mean
    ci_high: its upper end
    """

    table: ClassVar = "cells"

    fit: Fits
    metric: Metric
    n: Count
    mean: Annotated[float | None, Said("value")]
    sd: Annotated[float | None, Said("size")]
    n_images: Annotated[int | None, Said("count")]
    image_se: Annotated[float | None, Said("size")]
    ci_low: Annotated[float | None, Said("value")]
    ci_high: Annotated[float | None, Said("value")]
    interval_over: Drawn
    run_ids: RunIds
    reason: Reason


def rows(
    frame: pd.DataFrame,
    *,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
) -> list[CellMetric]:
    """Every metric of every cell over its seeds and images.

    The interval of a mean draws seeds and images: see `crossed`. Where a metric is no mean over
    labelled images, or they are not known, it is mean +- t_{0.975, n-1} SD / sqrt(n), SD
    with ddof 1, over seeds alone. `interval_over` says which. That of an accuracy is taken on its
    log odds (`of_share`). Both are over the runs in which the metric is defined. Diverged runs are
    not in the frame.

    Returns:
        One row per cell and metric; `run_ids` are the runs in which the metric is defined.
    """
    runs = in_order(frame)
    metrics = metric_columns(runs)
    flags = fits(runs, underfit_fraction)
    return [
        row
        for key, at in cells(runs).items()
        for row in reached(key, flags[key], runs.iloc[at], metrics, images or Images())
    ]


def reached(
    cell: CellKey,
    fit: Fit | None,
    runs: pd.DataFrame,
    metrics: Sequence[str],
    images: Images,
) -> Iterator[CellMetric]:
    """Every metric over the runs of one cell."""
    values = matrix(runs, list(metrics))
    ids = runs["run_id"].to_numpy(dtype=object)
    found = summarise(values)
    for i, metric in enumerate(metrics):
        n, defined = int(found.n[i]), np.isfinite(values[:, i])
        used = ids[defined].tolist()
        told = _over_images(images, used, metric, values[defined, i])
        ends = Interval(number(found.ci_low[i]), number(found.ci_high[i]))
        both = told.error is not None
        if told.error is not None:
            ends = told.error.ci
        if metric.endswith("accuracy"):
            ends = of_share(ends, float(found.mean[i]))
        reasons = [why_incomplete(n, len(ids), float(found.sd[i])), told.reason]
        yield CellMetric(
            **cell._asdict(),
            fit=fit,
            metric=metric,
            n=n,
            mean=number(found.mean[i]),
            sd=number(found.sd[i]),
            n_images=told.n_images,
            image_se=told.error.image_se if told.error else None,
            ci_low=ends.low,
            ci_high=ends.high,
            interval_over=None if ends.low is None else SEEDS_AND_IMAGES if both else SEEDS,
            run_ids=used,
            reason="; ".join(text for text in reasons if text) or None,
        )


class _Told(NamedTuple):
    """What the images of a metric tell; the error is None where it is not known."""

    n_images: int | None
    error: Crossed | None
    reason: str | None


def _over_images(images: Images, run_ids: list[str], metric: str, values: Floats) -> _Told:
    influence = images.influence(run_ids, metric)
    if influence is not None:
        return _Told(influence.values.shape[1], influence.crossed(), None)
    n = images.count(run_ids, metric)
    if n is None:
        return _Told(None, None, None)
    if images.answers(run_ids, metric):
        return _Told(n, binomial(values, n), None)
    return _Told(n, None, NOT_RECORDED)
