"""Shares of studies in which something held, with their Monte Carlo error, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Found = Iterable[tuple[str, bool | None]]
"""Study, and what came out of a row of it: None where the row prints nothing."""


def plain(rows: Iterable[object]) -> list[dict[str, Any]]:
    """Rows of the analysis as what they are in JSON."""
    return [vars(row) for row in rows]


class Line(NamedTuple):
    """What is counted, what the interval says that it draws, and the number of images."""

    what: str
    over: str
    images: int | None


class Share(NamedTuple):
    """Of rows that came out a way: mean over studies, its error, and rows that print nothing.

    Where all studies agree, or one alone prints, the error is what Agresti & Coull's added studies
    give, and not 0.
    """

    mean: float
    error: float
    missing: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "none printed"
        missing = f" ({100 * self.missing:.0f})" if self.missing >= 0.005 else ""
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f}{missing}"


class Table:
    """Lines of what was counted, a column for each number of seeds."""

    def __init__(self) -> None:
        self.found: dict[Line, dict[int, list[tuple[str, bool | None]]]] = {}

    def add(self, line: Line, seeds: int, found: Found) -> None:
        """Count rows; lines of which no row came are not in the table."""
        rows = list(found)
        if rows:
            self.found.setdefault(line, {}).setdefault(seeds, []).extend(rows)

    def merge(self, other: Table) -> None:
        for line, by_seeds in other.found.items():
            for seeds, rows in by_seeds.items():
                self.add(line, seeds, rows)

    def shares(self) -> Iterable[tuple[Line, dict[int, Share]]]:
        """Lines that ask the same, side by side, by rising number of images."""
        order = {what: i for i, what in enumerate(dict.fromkeys(line.what for line in self.found))}
        for line in sorted(
            self.found, key=lambda one: (order[one.what], one.over, one.images or 0)
        ):
            yield line, {seeds: _share(rows) for seeds, rows in sorted(self.found[line].items())}

    def markdown(self) -> str:
        """One row a line."""
        columns = sorted({seeds for by_seeds in self.found.values() for seeds in by_seeds})
        lines = [["what", "over", "images", *(f"{n} seeds" if n else "no seeds" for n in columns)]]
        lines.append(["---"] * len(lines[0]))
        for line, by_seeds in self.shares():
            cells = [str(by_seeds[n]) if n in by_seeds else "" for n in columns]
            images = f"{line.images:,}" if line.images else ""
            lines.append([line.what, line.over, images, *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(found: list[tuple[str, bool | None]]) -> Share:
    table = pd.DataFrame(found, columns=["study", "out"])
    printed = table.dropna().astype({"out": float}).groupby("study")["out"].mean()
    n = len(printed)
    if not n:
        return Share(np.nan, np.nan, 1.0)
    mean = float(printed.mean())
    p = (n * mean + 2) / (n + 4)
    least = np.sqrt(p * (1 - p) / (n + 4)) if n == 1 or mean in (0.0, 1.0) else 0.0
    error = float(printed.std() / np.sqrt(n)) if n > 1 else 0.0
    return Share(mean, max(error, least), float(table["out"].isna().mean()))


def inside(low: float | None, high: float | None, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where one of the two is not there."""
    if low is None or high is None or np.isnan(truth):
        return None
    return bool(low <= truth <= high)


def told_wrongly(low: float | None, high: float | None, truth: float) -> bool | None:
    """Whether an interval leaves out 0 on a side where the truth is not."""
    if low is None or high is None or np.isnan(truth):
        return None
    near = 1e-12
    return bool((low > 0 and truth <= near) or (high < 0 and truth >= -near))


def by_drawn(rows: Iterable[dict[str, Any]], default: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by what their interval says that it draws; rows without one stand with the others."""
    rows = list(rows)
    said = {row.get("interval_over") for row in rows} - {None}
    whole = said.pop() if len(said) == 1 else default
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(row.get("interval_over") or whole, []).append(row)
    return out


__all__ = ["Found", "Line", "Share", "Table", "by_drawn", "inside", "told_wrongly"]
