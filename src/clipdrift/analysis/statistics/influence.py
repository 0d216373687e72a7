"""What each image adds to an accuracy, a retention or a difference, run by run.

The mean of what the images add is the number itself, and their spread is its error from images. A
ratio is taken as linear about its value: the delta method, paired over the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.frame import ACCURACIES, SUITE
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.crossed import RIGHT_AND_WRONG, WON_AND_LOST, Crossed, crossed
from clipdrift.analysis.statistics.extras import interpolated
from clipdrift.records import RunRecord
from clipdrift.records.after import AfterReading
from clipdrift.records.correct import Correct
from clipdrift.records.readings import Result

NOT_RECORDED = "single images are not recorded: no error from images"
RETENTION, CORRECTED = "retention_pct", "chance_corrected_retention_pct"
DELTA, LOST = "delta_accuracy_pp", "lost_pp"


class Influence(NamedTuple):
    """Runs (one a seed) x images of one metric, in its unit.

    values: (G, n), row means are the metric of each run. added: what the images add that
    `crossed` counts beside those that were read. unit: what one answer more is, times n.
    """

    values: Floats
    added: Floats
    unit: float

    def crossed(self) -> Crossed:
        """Mean, error and interval over seeds and images."""
        return crossed(self.values, self.added)

    def less(self, other: Influence) -> Influence:
        """The difference to other runs, of the same seeds in the same order, on the same images."""
        unit = max(self.unit, other.unit)
        return Influence(self.values - other.values, unit * np.array(WON_AND_LOST), unit)


class Images:
    """Which images every run was right on; without records, of none is anything known.

    Readings of weights made after training stand by their identity, where runs stand by their id.
    """

    def __init__(
        self, records: Sequence[RunRecord] = (), made: Sequence[AfterReading] = ()
    ) -> None:
        self._results = {record.run_id: record.result for record in records}
        self._results |= {one.identity: one.result for one in made}

    @property
    def known(self) -> bool:
        """Whether of any run it is known which images it was right on."""
        return any(result.correct for result in self._results.values())

    def count(self, run_ids: Sequence[str], metric: str) -> int | None:
        """Images that a metric is read on; None where runs differ, or it is not known."""
        counts = {_count(self._results.get(run_id), metric) for run_id in run_ids}
        return counts.pop() if len(counts) == 1 else None

    def answers(self, run_ids: Sequence[str], metric: str) -> bool:
        """Whether a metric is the share of images that were right, not a mean of recalls."""
        if metric not in ACCURACIES:
            return metric.endswith("accuracy")
        results = [self._results.get(run_id) for run_id in run_ids]
        return all(one is None or one.score_name == "accuracy" for one in results)

    def few_right(self, run_id: str, transfer: str) -> str | None:
        """What a retention of one run on few images cannot tell."""
        result = self._results.get(run_id)
        reading = None if result is None else result.transfer.get(transfer)
        return None if reading is None else reading.few_right

    def influence(self, run_ids: Sequence[str], metric: str) -> Influence | None:
        """Of an accuracy, a retention or a change of accuracy in runs that were read alike.

        Args:
            run_ids: of one cell, at most one a seed; in all of them the metric is defined.
            metric: its column in the run frame.

        Returns:
            None where single images of a run are not known, or runs differ in their number.
        """
        if metric.startswith(f"{SUITE}mean_"):
            return self._over_sets(run_ids, metric.removeprefix(f"{SUITE}mean_"))
        place, _, kind = metric.rpartition(".")
        if kind not in (RETENTION, CORRECTED, DELTA, LOST):
            values = self._hits(run_ids, metric)
            return None if values is None else Influence(values, np.array(RIGHT_AND_WRONG), 1.0)
        now = self._hits(run_ids, f"{place}.accuracy")
        before = self._hits(run_ids, f"{_set_of(place)}.baseline_accuracy")
        if now is None or before is None or now.shape != before.shape:
            return None
        if kind in (DELTA, LOST):
            change = now - before if kind == DELTA else before - now
            return Influence(100 * change, 100 * np.array(WON_AND_LOST), 100.0)
        reference = self._reference(run_ids[0], place) if kind == CORRECTED else 0.0
        return None if reference is None else _ratio(now, before, reference)

    def _over_sets(self, run_ids: Sequence[str], kind: str) -> Influence | None:
        """Of a mean over transfer datasets: each by images of its own, all datasets alike."""
        first = self._results.get(next(iter(run_ids), ""))
        read = {} if first is None else first.transfer
        names = [name for name, one in read.items() if one.retention_pct is not None]
        found = [self.influence(run_ids, f"transfer.{name}.{kind}") for name in names]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(names):
            return None
        mean = np.mean([one.values.mean(axis=1) for one in known], axis=0)[:, None]
        sizes = np.array([one.values.shape[1] for one in known])
        weights = sizes.sum() / (len(known) * sizes)
        apart = [
            weight * (one.values - one.values.mean(axis=1, keepdims=True))
            for weight, one in zip(weights, known, strict=True)
        ]
        added = [
            mean.mean() + weight * (one.added - one.values.mean())
            for weight, one in zip(weights, known, strict=True)
        ]
        unit = float(max(weight * one.unit for weight, one in zip(weights, known, strict=True)))
        return Influence(mean + np.hstack(apart), np.concatenate(added), unit)

    def _hits(self, run_ids: Sequence[str], name: str) -> Floats | None:
        found: list[NDArray[np.bool_]] = []
        for run_id in run_ids:
            result = self._results.get(run_id)
            correct = None if result is None else result.correct.get(name)
            if correct is None or (found and correct.n != len(found[0])):
                return None
            found.append(correct.hits)
        return np.array(found, dtype=np.float64) if found else None

    def _reference(self, run_id: str, place: str) -> float | None:
        name = _set_of(place).removeprefix("transfer.")
        reading = self._results[run_id].transfer.get(name)
        return 1 / reading.n_classes if reading is not None and reading.n_classes else None


def retention_error(now: Correct, before: Correct) -> float:
    """Standard error of one model's retention from drawing images, in percentage points."""
    a, b = (np.array([one.hits], dtype=np.float64) for one in (now, before))
    return _ratio(a, b, 0.0).crossed().image_se


def _set_of(place: str) -> str:
    """Name of the transfer set, without the weights that it was read with.

    >>> _set_of("extra.interpolation.0.5.transfer.cifar100")
    'transfer.cifar100'
    """
    between = interpolated(place)
    return place if between is None else between.metric


def _ratio(now: Floats, before: Floats, reference: float) -> Influence:
    """100 (now - c) / (before - c), c the reference: 0, or the accuracy of a guess."""
    base = before.mean(axis=1, keepdims=True) - reference
    kept = (now.mean(axis=1, keepdims=True) - reference) / base
    centre = reference * (kept - 1) / base + kept
    values = 100 * ((now - kept * before) / base + centre)
    won_and_lost = np.array([1 / base, -kept / base]).mean(axis=(1, 2)) + centre.mean()
    return Influence(values, 100 * won_and_lost, 100 / float(base.mean()))


def _count(result: Result | None, metric: str) -> int | None:
    if result is None:
        return None
    known = result.correct.get(metric)
    if known is not None:
        return known.n
    between = interpolated(metric)
    name = metric if between is None else between.metric
    if name == ACCURACIES[1]:
        return result.test_n_images
    if not name.startswith("transfer."):
        return None
    reading = result.transfer.get(name.removeprefix("transfer.").rpartition(".")[0])
    return None if reading is None else reading.n_images
