"""A CSV table under its map: every cell checked, all faults told at once."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from pathlib import Path
from typing import Literal, NamedTuple

from clipdrift.errors import Fault, RecordError, did_you_mean
from clipdrift.paths import read_file
from clipdrift.records.import_map import FRACTION, KEYS, PERCENT, STATE, ImportMap, implied
from clipdrift.records.ranges import LARGEST, LONGEST_TEXT, RATE, SEED, range_of, too_long

STATES: dict[str, Literal["finished", "diverged", "failed"]] = {
    **dict.fromkeys(("finished", "completed", "done", "ok", "success"), "finished"),
    "diverged": "diverged",
    **dict.fromkeys(("failed", "crashed", "error", "canceled", "cancelled"), "failed"),
}
FLAGS = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0", ""), False),
}
EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none"})
LONGEST_LIST = 20
MAX_BYTES = 200_000_000
"""Of a table: about ten times as much in memory once it is rows."""
# A retention of 1.5 % in every run is not a study; of 1.5 as a fraction it is above any seen.
LARGEST_FRACTION = 1.5


class Cell(NamedTuple):
    """A number of the table in the record's unit; None with the reason where it is undefined."""

    value: float | None
    reason: str | None = None


class Row(NamedTuple):
    """A run as the table gives it: where it stands, its keys as text, its numbers."""

    place: str
    keys: dict[str, str]
    cells: dict[str, Cell]


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a CSV file, cells stripped.

    Raises:
        RecordError: if it cannot be read as such.
    """
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""))
        header, *lines = [[cell.strip() for cell in line] for line in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        # An empty file has no header to unpack, a ValueError.
        got = "an empty file" if type(error) is ValueError else str(error)
        if isinstance(error, OSError):
            got = str(error.strerror)
        step = "Check the path, and save the table as CSV in UTF-8"
        raise RecordError(Fault(str(path), "a CSV table", got, step)) from None
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        step = "Save the table with commas between the columns"
        raise RecordError(Fault(str(path), "columns separated by commas", repr(header[0]), step))
    if too_long([header, lines]):
        expected = f"cells of at most {LONGEST_TEXT:,} characters"
        raise RecordError(Fault(str(path), expected, "a longer one", "Shorten it"))
    if not any(any(line) for line in lines):
        raise RecordError(Fault(str(path), "one row per run", "no rows", "Check the file"))
    return header, lines


class Table:
    """The table under its map; collects the faults of all cells before it gives up."""

    def __init__(
        self,
        path: Path,
        header: list[str],
        lines: list[tuple[str, list[str]]],
        mapping: ImportMap,
    ) -> None:
        self.path, self.header, self.mapping = path, header, mapping
        self.columns = dict(mapping.columns)
        self.lines = lines
        self.faults: list[Fault] = []
        self.bad: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)

    def rows(self) -> tuple[list[Row], list[str]]:
        """All rows, and the columns kept as extra signals: numbers that differ between rows.

        Raises:
            RecordError: with every fault.
        """
        self._check_shape()
        if self.faults:
            raise RecordError(self.faults)
        self._add_implied()
        columns = {name: i for i, name in enumerate(self.header)}
        fields = {field: columns[name] for name, field in self.columns.items()}
        texts = {field: [line[i] for _, line in self.lines] for field, i in fields.items()}
        for field, value in self.mapping.constants.items():
            texts[field] = [value] * len(self.lines)
        extras = [n for n in self.header if n not in self.columns and self._is_signal(n)]
        numbers = {
            field: self._numbers(field, texts[field]) for field in texts if field not in KEYS
        }
        for name in extras:
            found = self._numbers(f"extra.{name}", [line[columns[name]] for _, line in self.lines])
            numbers.setdefault(f"extra.{name}", found)
        keys = {field: self._keys(field, texts[field]) for field in texts if field in KEYS}
        self._raise_faults()
        rows = [
            Row(
                place,
                {field: values[i] for field, values in keys.items()},
                {field: values[i] for field, values in numbers.items()},
            )
            for i, (place, _) in enumerate(self.lines)
        ]
        return rows, extras

    def _check_shape(self) -> None:
        for name in self.mapping.columns:
            if name not in self.header:
                step = did_you_mean(name.strip(), self.header, "Correct the map")
                known = f"one of the columns {', '.join(self.header)}"
                self.faults.append(Fault(f"{self.path} columns", known, repr(name), step))
        for name in sorted({n for n in self.header if self.header.count(n) > 1}):
            step = "Rename one of the columns"
            self.faults.append(Fault(str(self.path), "distinct columns", f"{name!r} twice", step))
        width = len(self.header)
        for place, line in self.lines:
            if len(line) != width:
                step = "Mend the row; a comma inside a cell needs quotes"
                where = f"{self.path} {place}"
                self.faults.append(Fault(where, f"{width} cells", str(len(line)), step))

    def _add_implied(self) -> None:
        for name, field in implied(self.header, self.mapping).items():
            if field in STATE or self._is_signal(name):
                self.columns[name] = field

    def numeric(self, name: str) -> bool:
        """Whether a column has numbers, and nothing else but empty cells."""
        values = self._values(name)
        return values is not None and any(value is not None for value in values)

    def _is_signal(self, name: str) -> bool:
        """A column of numbers; what is the same in all rows tells nothing of any."""
        values = set(self._values(name) or [None])
        return values != {None} and (len(values) > 1 or len(self.lines) == 1)

    def _values(self, name: str) -> list[float | None] | None:
        i = self.header.index(name)
        parsed = [_parse(line[i]) for _, line in self.lines]
        return None if None in parsed else [cell.value for cell in parsed if cell]

    def _keys(self, field: str, texts: list[str]) -> list[str]:
        rule = {
            "lr": RATE.words,
            "seed": SEED.words,
            "role": "matched or reference",
            "status": ", ".join(STATES),
            "diverged": "true or false",
        }
        for (place, _), text in zip(self.lines, texts, strict=True):
            if not _valid_key(field, text):
                expected = rule.get(field, "a name")
                self.bad[field, expected, "Correct the cells"].append((place, text))
        return texts

    def _numbers(self, field: str, texts: list[str]) -> list[Cell]:
        """A column in the record's unit."""
        accuracy, retention = field.endswith("accuracy"), field.endswith("retention_pct")
        unit = self.mapping.stated_unit(field)
        factor = 1.0
        if accuracy:
            factor = 0.01 if unit == PERCENT else 1.0
        elif retention:
            factor = 100.0 if unit == FRACTION else 1.0
        cells = []
        for (place, _), text in zip(self.lines, texts, strict=True):
            cell = _parse(text)
            if cell is None:
                self.bad[field, "a number", "Correct the cells"].append((place, text))
                cell = Cell(None)
            elif cell.value is not None:
                value = cell.value * factor if factor != 0.01 else cell.value / 100
                cell, allowed = Cell(value), range_of(field)
                if not allowed.holds(value):
                    expected, step = allowed.words, "Correct the cells"
                    if accuracy:
                        other = FRACTION if unit == PERCENT else PERCENT
                        top = 1 if unit != PERCENT else 100
                        expected = f"accuracies as {unit or FRACTION}, 0 to {top}"
                        step = f"Write '{field}: {other}' under units, or correct the cells"
                    self.bad[field, expected, step].append((place, text))
            cells.append(cell)
        self._check_unit(field, unit, [cell.value for cell in cells if cell.value is not None])
        return cells

    def _check_unit(self, field: str, unit: str | None, values: list[float]) -> None:
        """Numbers that can only be in the other unit."""
        largest = max(map(abs, values), default=0.0)
        where = f"{self.path} {field}"
        if field.endswith("retention_pct") and unit is None and 0 < largest <= LARGEST_FRACTION:
            step = f"Write '{field}: {FRACTION}' (or {PERCENT}) under units"
            got = f"nothing above {largest:g}, as of a fraction"
            self.faults.append(Fault(where, "percent (100 = all kept)", got, step))
        if field in ("val_accuracy", "test_accuracy") and unit == PERCENT and 0 < largest <= 0.01:
            step = f"Write '{field}: {FRACTION}' under units"
            got = f"nothing above {100 * largest:g} %"
            self.faults.append(Fault(where, "accuracies in percent", got, step))

    def _raise_faults(self) -> None:
        for (field, expected, step), cells in self.bad.items():
            shown = [f"{text!r} in {place}" for place, text in cells[:LONGEST_LIST]]
            if len(cells) > LONGEST_LIST:
                shown.append(f"and {len(cells) - LONGEST_LIST} more, to {cells[-1][0]}")
            where = f"{self.path} {self._column_of(field)}"
            self.faults.append(Fault(where, expected, ", ".join(shown), step))
        if self.faults:
            raise RecordError(self.faults)

    def _column_of(self, field: str) -> str:
        """The user's name for a field."""
        names = [name for name, mapped in self.columns.items() if mapped == field]
        return f"column {names[0]!r}" if names else field


def _parse(text: str) -> Cell | None:
    """A cell as a number; None if it is text. Undefined numbers carry the reason."""
    if text.lower() in EMPTY:
        return Cell(None, "NaN in the imported table" if text else "empty in the imported table")
    try:
        value = float(text)
    except ValueError:
        return None
    if "_" in text:  # Python reads 1_000; a table does not mean that
        return None
    if not math.isfinite(value):
        return Cell(None, "infinite in the imported table")
    if abs(value) > LARGEST:
        return Cell(None, f"beyond {LARGEST:g} in the imported table")
    return Cell(value)


def _valid_key(field: str, text: str) -> bool:
    if field == "role":
        return text in ("matched", "reference")
    if field in STATE:
        return text.lower() in (STATES if field == "status" else FLAGS)
    if field not in ("lr", "seed"):
        return text != ""
    cell = _parse(text)
    if cell is None or cell.value is None:
        return False
    return (RATE if field == "lr" else SEED).holds(cell.value)
