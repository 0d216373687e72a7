"""How much a race may spend: hours, a share of the grid, or whole runs."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from clipdrift.errors import Fault, SpecError

_FORMS = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|%|runs?)", re.IGNORECASE)


class Limit(NamedTuple):
    """A limit; of hours those of the clock, with as many workers as there are."""

    value: float
    unit: Literal["h", "%", "runs"]

    @property
    def words(self) -> str:
        return f"{self.value:g}{' runs' if self.unit == 'runs' else self.unit}"

    def left(self, n_runs: int, spent: float, seconds: float, workers: int) -> float:
        """What is left, in whole runs; without end where no run tells how long one takes.

        Args:
            n_runs: of the grid. spent: whole runs' worth of training. seconds: that it took, of all
                workers together.
        """
        if self.unit == "h":
            if not spent or not seconds:
                return float("inf")
            return (3600 * self.value * workers - seconds) * spent / seconds
        return (self.value if self.unit == "runs" else self.value / 100 * n_runs) - spent


def limit(text: str, where: str = "--race") -> Limit:
    """Read a limit.

    >>> limit("40%"), limit("90 min").value, limit("60 runs").words
    (Limit(value=40.0, unit='%'), 1.5, '60 runs')

    Raises:
        SpecError: if it is none.
    """
    found = _FORMS.fullmatch(text.strip())
    value, unit = (float(found[1]), found[2].lower()) if found else (0.0, "")
    if not value or (unit == "%" and value > 100):
        expected = "a time (2h, 90min), a share of the grid (40%) or a number of runs (60 runs)"
        raise SpecError(Fault(where, expected, repr(text), f"Write for example {where} 40%"))
    if unit == "min":
        return Limit(value / 60, "h")
    return Limit(value, "%" if unit == "%" else "h" if unit == "h" else "runs")
