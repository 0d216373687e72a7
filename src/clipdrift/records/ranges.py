"""Which values a number of a run can have, by its name: for records and for imported tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from clipdrift.records.transfer import RECALLS

_READING = re.compile(r"(result|history\[\d+\]|epoch1|timing)\.")
LARGEST = 1e100
"""Nothing measured is larger, and the square of a larger number is no number any more."""


LONGEST_TEXT = 10_000
"""Characters."""


class Range(NamedTuple):
    """Lowest and highest value, in words that follow "expected"; `whole`: no fractions."""

    words: str
    low: float
    high: float
    whole: bool = False

    def holds(self, value: float) -> bool:
        """
        >>> RATE.holds(0.0), SEED.holds(7), SEED.holds(7.5), FRACTION.holds(float("nan"))
        (False, True, False, False)
        """
        return self.low <= value <= self.high and (not self.whole or float(value).is_integer())


FINITE = Range("a number", -LARGEST, LARGEST)
ABOVE = Range("a number from 0", 0.0, LARGEST)
FRACTION = Range("a fraction, 0 to 1", 0.0, 1.0)
COUNT = Range("a whole number from 1", 1, 2**53, whole=True)
ORDINAL = Range("a whole number from 0", 0, 2**53, whole=True)
RATE = Range("a number above 0, at most 1000", math.ulp(0.0), 1000.0)
SEED = Range("a whole number from 0", 0, 2**64, whole=True)

RANGES = {
    "learning_rate": RATE,
    "seed": SEED,
    **dict.fromkeys(("chance", "test_chance", "level", "val_score", "test_score"), FRACTION),
    **dict.fromkeys(
        (*RECALLS, "mean_recall", "baseline_mean_recall", "map", "baseline_map"), FRACTION
    ),
    **dict.fromkeys(("i2t_median_rank", "t2i_median_rank"), Range("a rank from 1", 1.0, LARGEST)),
    **dict.fromkeys(("retention_pct", "train_loss", "test_loss", "limit_pct"), ABOVE),
    "delta_accuracy_pp": Range("a difference in percentage points, -100 to 100", -100.0, 100.0),
    **dict.fromkeys(("n_images", "n_captions", "n_classes", "test_n_images"), COUNT),
    **dict.fromkeys(("epoch", "step", "selected_epoch", "read_after_epoch"), ORDINAL),
    **dict.fromkeys(("parameters_trained", "parameters_total"), ORDINAL),
    **dict.fromkeys(("train_seconds", "wall_seconds", "peak_memory_bytes"), ABOVE),
}
"""By the last part of a dotted name; what ends in "accuracy" is a fraction."""

SIGNALS = {"drift", "levels", "drift_per_block", "levels_per_block", "penalties"}
"""Whatever their names say: anyone may add one."""

PLAIN = {"config", "correct", "provenance", "fingerprints", "files"}
"""What holds other numbers than readings, and is held otherwise."""


def range_of(name: str) -> Range:
    """
    By the name of a field, in a record or in the map of an import.

    >>> range_of("result.transfer.pets.accuracy") is FRACTION, range_of("drift.level") is FINITE
    (True, True)
    """
    plain = _READING.sub("", name)
    group, _, rest = plain.partition(".")
    last = plain.rpartition(".")[2]
    if group in SIGNALS:
        return FINITE
    if last.endswith("accuracy"):
        return FRACTION
    of_a_column = group == "extra" and "." not in rest
    return FINITE if of_a_column else RANGES.get(last, FINITE)


def beyond(body: Mapping[str, Any]) -> Iterator[tuple[str, Range, float]]:
    """Dotted name, range and value of every number of a record that no run can have.

    Args:
        body: a record as JSON.
    """
    for name, value in _numbers({key: part for key, part in body.items() if key not in PLAIN}, ""):
        allowed = range_of(name)
        if not allowed.holds(value):
            yield name, allowed, value


def too_long(tree: Any) -> bool:
    """Whether a name or a text in it is longer than any run has; one of a megabyte is laid out, and
    matched with others, without an end."""
    if isinstance(tree, dict):
        return any(map(too_long, tree)) or any(
            too_long(part) for name, part in tree.items() if name != "correct"
        )
    if isinstance(tree, list):
        return any(map(too_long, tree))
    return isinstance(tree, str) and len(tree) > LONGEST_TEXT


def _numbers(tree: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for key, part in tree.items():
            if key not in PLAIN:
                yield from _numbers(part, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list):
        for position, part in enumerate(tree):
            yield from _numbers(part, f"{name}[{position}]")
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield name, tree
