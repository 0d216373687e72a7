"""What rescaled runs keep beside plain interpolation, by numpy's interp and seeds left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions.after_training import AfterTraining, rows
from clipdrift.records import RunRecord
from clipdrift.records.after import AfterReading, Kind
from clipdrift.records.readings import Result

SET = "shapes100"
KEPT = f"transfer.{SET}.retention_pct"
POINTS = {0.25: (0.4, 99.0), 0.5: (0.6, 96.0), 1.0: (0.8, 70.0)}
"""Factor -> accuracy and percent kept, about which seeds lie."""


def read(record: RunRecord, accuracy: float, kept: float) -> Result:
    transfer = record.result.transfer[SET].model_copy(update={"retention_pct": kept})
    changes = {"test_accuracy": accuracy, "transfer": {SET: transfer}}
    return record.result.model_copy(update=changes)


def made(record: RunRecord, kind: Kind, scale: float, at: tuple[float, float]) -> AfterReading:
    cell = ("backbone", "target", "method", "role", "learning_rate")
    return AfterReading.model_construct(
        name="",
        identity=f"{kind}{scale}{record.seed}",
        kind=kind,
        alpha=None,
        scale=scale,
        seeds=[record.seed],
        runs={record.run_id: record.identity},
        head_inits=1,
        result=read(record, *at),
        **{name: getattr(record, name) for name in cell},
    )


def told(records: list[RunRecord], readings: list[AfterReading]) -> dict[str, AfterTraining]:
    found = rows(runs_frame(records), readings)
    return {row.weights: row for row in found if row.metric == KEPT}


def test_beside_plain_interpolation(make_records) -> None:  # type: ignore[no-untyped-def]
    plain = make_records(targets=("digits",), methods=("lora",), rates=(1e-4,), seeds=(1, 2, 3, 4))
    draw = np.random.default_rng(2)

    def about(accuracy: float, kept: float) -> tuple[float, float]:
        return accuracy + 0.01 * draw.standard_normal(), kept + draw.standard_normal()

    at = {scale: [about(*point) for _ in plain] for scale, point in POINTS.items()}
    lines = [about(0.7, 90.0) for _ in plain]
    flat = [(0.2, 99.0) for _ in plain]
    records = [
        r.model_copy(update={"result": read(r, *p)}) for r, p in zip(plain, at[1.0], strict=True)
    ]
    readings = [
        made(r, kind, scale, point)
        for kind, scale, points in (
            ("lines", 0.5, lines),
            ("lines", 0.0, flat),
            ("scaled", 0.5, at[0.5]),
            ("scaled", 0.25, at[0.25]),
        )
        for r, point in zip(records, points, strict=True)
    ]
    found = told(records, readings)

    def gap(seeds: list[int]) -> float:
        means = {scale: np.mean([at[scale][i] for i in seeds], axis=0) for scale in POINTS}
        accuracy, kept = np.mean([lines[i] for i in seeds], axis=0)
        path = [means[scale] for scale in sorted(means)]
        return float(kept - np.interp(accuracy, *np.transpose(path)))

    row, n = found["LiNeS from 0.5"], len(records)
    left_out = [gap([i for i in range(n) if i != out]) for out in range(n)]
    error = np.sqrt((n - 1) / n * np.square(left_out - np.mean(left_out)).sum())
    whole = gap(list(range(n)))
    assert row.above_plain == pytest.approx(whole)
    low, high = stats.t.interval(0.95, n - 1, whole, error)
    assert (row.above_plain_low, row.above_plain_high) == pytest.approx((low, high))
    assert found["LiNeS from 0"].above_plain is None  # less accurate than any factor that was read
    assert found["update times 0.5"].above_plain is None
    assert told(records, readings[:n])["LiNeS from 0.5"].above_plain is None  # no factor was read
    # Of one seed there is a gap and no interval.
    alone = told(records[:1], [one for one in readings if one.seeds == [1]])["LiNeS from 0.5"]
    assert alone.above_plain == pytest.approx(gap([0]))
    assert alone.above_plain_low is None
