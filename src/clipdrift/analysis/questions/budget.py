"""What a user needs of an adapted model, as floors on accuracy and retention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clipdrift.errors import Fault, SpecError


@dataclass(frozen=True)
class Budget:
    """Floors that an adapted model must reach, all of those that are given.

    min_accuracy: target accuracy, a fraction.
    within_pp: target accuracy at most so many percentage points below the best one there is.
    min_retention_pct: retention in percent, on every transfer dataset asked for.

    A floor on accuracy leaves retention to decide between those that reach it; without one,
    accuracy decides.
    """

    min_accuracy: float | None = None
    within_pp: float | None = None
    min_retention_pct: float | None = None

    @property
    def decides(self) -> str:
        """What is to be highest among those that reach the floors."""
        wanted = self.min_accuracy is not None or self.within_pp is not None
        return "retention" if wanted else "accuracy"

    @property
    def words(self) -> str:
        """The budget in words.

        >>> Budget(min_accuracy=0.95, min_retention_pct=98).words
        'accuracy of at least 95 %, retention of at least 98 %; most retention'
        """
        floors = []
        if self.min_accuracy is not None:
            floors.append(f"accuracy of at least {100 * self.min_accuracy:g} %")
        if self.within_pp is not None:
            floors.append(f"accuracy within {self.within_pp:g} pp of the best")
        if self.min_retention_pct is not None:
            floors.append(f"retention of at least {self.min_retention_pct:g} %")
        return f"{', '.join(floors)}; most {self.decides}"


DEFAULT = Budget(within_pp=1.0)
REPORTED = (DEFAULT, Budget(min_retention_pct=95.0))
"""The two questions of a report: the most retention at full accuracy, and the other way round."""


def budget(
    *,
    min_accuracy: float | None = None,
    within_pp: float | None = None,
    min_retention: float | None = None,
    max_retention_loss: float | None = None,
    retention_option: str = "--min-retention",
) -> Budget:
    """A budget as a user states it; `DEFAULT` where nothing is.

    Args:
        min_accuracy: percent, above 1 and at most 100.
        within_pp: percentage points, from 0 to below 100.
        min_retention: percent, above 0; more than 100 asks for more than the untouched model has.
        retention_option: what the command calls `min_retention`.
        max_retention_loss: percentage points of retention: 2 asks for a retention of 98 %.

    Raises:
        SpecError: if a floor makes no sense, all of them at once.

    >>> budget(max_retention_loss=2.0)
    Budget(min_accuracy=None, within_pp=None, min_retention_pct=98.0)
    """
    given = (min_accuracy, within_pp, min_retention, max_retention_loss)
    faults = list(_faults(*given, retention_option))
    if faults:
        raise SpecError(faults)
    kept = [min_retention] if min_retention is not None else []
    if max_retention_loss is not None:
        kept.append(100.0 - max_retention_loss)
    accuracy = None if min_accuracy is None else min_accuracy / 100
    asked = Budget(accuracy, within_pp, max(kept, default=None))
    return DEFAULT if asked == Budget() else asked


def _faults(
    accuracy: float | None,
    within: float | None,
    retention: float | None,
    loss: float | None,
    retention_option: str,
) -> Iterator[Fault]:
    if accuracy is not None and not 1 < accuracy <= 100:
        step = f"Write {100 * accuracy:g}" if 0 < accuracy <= 1 else "Give percent such as 95"
        yield Fault("--min-accuracy", "percent above 1 and up to 100", f"{accuracy:g}", step)
    if within is not None and not 0 <= within < 100:
        rule = "percentage points from 0 to below 100"
        yield Fault("--within", rule, f"{within:g}", "Give points such as 1")
    if retention is not None and not (0 < retention <= 1000):
        rule = "percent of the untouched accuracy, above 0"
        yield Fault(retention_option, rule, f"{retention:g}", "Give percent such as 95")
    elif retention is not None and retention <= 1:
        rule = "percent of the untouched accuracy, above 1"
        yield Fault(retention_option, rule, f"{retention:g}", f"Write {100 * retention:g}")
    if loss is not None and not 0 <= loss < 100:
        rule = "percentage points of retention from 0 to below 100"
        yield Fault("--max-retention-loss", rule, f"{loss:g}", "Give points such as 2")
