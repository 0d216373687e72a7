"""The sets of a target: drawn, or what the data divides itself, copies of a picture kept together.

With `splits: {group_by: duplicates}` the first image of each picture stands in the draw for all of
them, and the others follow it into its set, whatever their labels. Without copies the sets are
those of `splits.carve`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.fingerprints import place_of, same_pictures
from clipdrift.data.parts import ImagePart
from clipdrift.data.prepared import PreparedPart
from clipdrift.data.sources import carved_test
from clipdrift.data.splits import Positions, Splits, carve, splits_of
from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import TargetSpec


def carve_target(
    target: TargetSpec,
    parts: Mapping[str, PreparedPart] | Mapping[str, ImagePart],
    splits: SplitSpec,
    probe: ProbeSpec,
) -> Splits:
    """The four sets of a target, by `splits.carve` or, of prepared parts, as `group_by` says.

    A "val" part is the validation set, whole; else that is carved from the training part.

    Raises:
        DataError: every class with too few images.
    """
    where, train, own = f"target {target.name}", parts["train"], parts.get("val")
    if own is not None:
        splits = splits.model_copy(update={"val_fraction": 0.0})
    if splits.group_by == "duplicates":
        prepared = {name: part for name, part in parts.items() if isinstance(part, PreparedPart)}
        return _carve_together(target, prepared, splits, probe, where)
    drawn = carve(
        train.labels,
        parts["test"].labels,
        splits,
        probe,
        len(train.strata),
        where=where,
        class_names=train.strata,
    )
    return drawn if own is None else _validated_on(drawn, np.arange(len(own)))


def _validated_on(drawn: Splits, val: Positions) -> Splits:
    sets = {"train": drawn.train, "val": val, "probe": drawn.probe, "test": drawn.test}
    return splits_of(sets, drawn.probe_part)


def _carve_together(
    target: TargetSpec,
    parts: Mapping[str, PreparedPart],
    splits: SplitSpec,
    probe: ProbeSpec,
    where: str,
) -> Splits:
    """Over pictures. Copies of a "test" part leave the others, and copies of "val" leave "train".

    Where there is no test part, its set is carved from the pictures of "train", and all positions
    are in that.
    """
    train, own = parts["train"], [parts["val"]] if "val" in parts else []
    validated: Positions | None = None
    if "test" in parts:
        test = parts["test"]
        test_pictures, pictures, *held = _pictures(test, train, *own)
        tested = np.arange(len(test))
        trained = np.flatnonzero(~np.isin(pictures, np.concatenate([test_pictures, *held])))
        if held:
            validated = np.flatnonzero(~np.isin(held[0], test_pictures))
    else:
        test = train
        (pictures,) = _pictures(train)
        test_pictures, firsts = pictures, np.unique(pictures)
        chosen = firsts[carved_test(train.labels[firsts], train.strata, target)]
        tested = np.flatnonzero(np.isin(pictures, chosen))
        trained = np.setdiff1d(np.arange(len(train)), tested)
    training, testing = _Drawn(pictures, trained), _Drawn(test_pictures, tested)
    drawn = carve(
        train.labels[training.firsts],
        test.labels[testing.firsts],
        splits,
        probe,
        len(train.strata),
        where=where,
        class_names=train.strata,
    )
    probed = training if drawn.probe_part == "train" else testing
    sets = {
        "train": training.whole(drawn.train),
        "val": training.whole(drawn.val) if validated is None else validated,
        "probe": probed.whole(drawn.probe),
        "test": testing.whole(drawn.test),
    }
    return splits_of(sets, drawn.probe_part)


def _pictures(*parts: PreparedPart) -> list[NDArray[np.int64]]:
    """For each part [N]: numbers that are equal where images are the same picture."""
    starts = np.cumsum([0, *map(len, parts)])

    def pixels(place: int) -> NDArray[np.uint8]:
        number, position = place_of(starts, place)
        found: NDArray[np.uint8] = parts[number].pixels[position]
        return found

    numbers = same_pictures(np.concatenate([part.prints for part in parts]), pixels)
    return np.split(numbers, starts[1:-1])


class _Drawn:
    """Images of a pool, of which the first of each picture is drawn."""

    def __init__(self, pictures: NDArray[np.int64], pool: Positions) -> None:
        """pictures: [N] of the whole part. pool: sorted positions in it."""
        self._pictures, self._pool = pictures, pool
        self.firsts = pool[np.sort(np.unique(pictures[pool], return_index=True)[1])]

    def whole(self, drawn: Positions) -> Positions:
        """Positions among the first images -> all images of the same pictures, in the part."""
        same = np.isin(self._pictures[self._pool], self._pictures[self.firsts[drawn]])
        return self._pool[same]
