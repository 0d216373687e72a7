"""A report page read back: every text with its place, and the data its script draws from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from clipdrift.report.packed import unpacked

BLOCKS = ("h1", "h2", "h3", "h4", "p", "li", "td", "th", "figcaption", "summary", "pre", "title")
VOID = ("meta", "link", "input", "br", "img", "hr")
ATTRIBUTES = (
    *("data-stat", "data-metric", "data-runs", "data-sort", "data-method"),
    *("title", "aria-label", "alt", "content"),
)
PAGE_DATA = "page-data"
NUMBER_HERE = "#"
"""Stands in a sentence where a number with an origin of its own is printed."""


@dataclass
class Item:
    """One text of the page.

    place: which text it is by its structure, the same in two pages of the same study.
    label: the same for people, with the names of row and column.
    given: the attributes that say what it was computed from, and what is said of it.
    inside: whether it, or an element around it, names the runs behind it.
    """

    place: str
    label: str
    given: Mapping[str, str]
    inside: bool = False
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.parts).replace("\u2060", "")).strip()


@dataclass(frozen=True)
class Page:
    """items: place -> text; data: what the page's script reads, None if it is damaged."""

    items: Mapping[str, Item]
    data: Any

    @property
    def run_ids(self) -> list[str]:
        """Ids of the page's list of runs, to which `data-runs` refers."""
        try:
            return [str(run[0]) for run in self.data["runs"]]
        except (TypeError, KeyError, IndexError):
            return []


def read_page(text: str) -> Page:
    """Texts and data of a page that `render` made, packed or not."""
    reader = _Reader()
    reader.feed(unpacked(text))
    reader.close()
    try:
        data = json.loads("".join(reader.script))
    except (ValueError, RecursionError):
        data = None
    return Page({item.place: item for item in reader.items}, data)


class _Reader(HTMLParser):
    """Collects texts; a number inside a sentence is an item of its own."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.items: list[Item] = []
        self.script: list[str] = []
        self._open: list[tuple[str, Item | None, bool]] = []
        self._in_data = False
        self._section = "head"
        self._table = _TableAt()
        self._counts: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "section":
            self._section = given.get("id", "section")
        elif tag == "script":
            self._in_data = given.get("id") == PAGE_DATA
        elif tag == "table":
            self._table = _TableAt(given.get("data-table", ""))
        runs = "data-runs" in given or bool(self._open and self._open[-1][2])
        said = {name: given[name] for name in ATTRIBUTES if name in given}
        holds_text = tag in BLOCKS or "data-stat" in said
        item = self._item(tag, given, said, runs) if holds_text or said else None
        if item is not None:
            self.items.append(item)
        if tag not in VOID:
            self._open.append((tag, item if holds_text else None, runs))

    def _item(
        self, tag: str, given: Mapping[str, str], said: Mapping[str, str], runs: bool
    ) -> Item:
        if self._table.name and tag in ("td", "th"):
            item = Item(self._table.next_place(), "", said, runs)
            self._table.row.append((tag, item))
            return item
        if "data-stat" in said:
            self._add(NUMBER_HERE)
        kind = "number" if "data-stat" in said else tag
        where = f"table {self._table.name}" if self._table.name else self._section
        name = f"{where}, {kind}"
        self._counts[name] += 1
        place = f"figure {given['id']}" if "id" in given else f"{name} {self._counts[name]}"
        return Item(place, place, said, runs)

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._table.name:
            self._table.end_row()
        elif tag == "table":
            self._table = _TableAt()
        elif tag == "script":
            self._in_data = False
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.script.append(data)
        elif not (self._open and self._open[-1][0] in ("script", "style")):
            self._add(data)

    def _add(self, text: str) -> None:
        """To the innermost item, so that a number in a sentence is reported once."""
        for _, item, _ in reversed(self._open):
            if item is not None:
                item.parts.append(text)
                return


class _TableAt:
    """Where the reader is in a table; names cells by the texts that head them."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.row: list[tuple[str, Item]] = []
        self._number = 0
        self._heads: list[str] = []

    def next_place(self) -> str:
        return f"table {self.name}, row {self._number}, column {len(self.row) + 1}"

    def end_row(self) -> None:
        if self._number == 0:
            self._heads = [item.text for _, item in self.row]
        keys = " ".join(item.text for tag, item in self.row if tag == "th")
        row = f"row {self._number} ({keys})" if self._number else "heading"
        for i, (_, item) in enumerate(self.row):
            head = self._heads[i] if i < len(self._heads) else ""
            if self._heads.count(head) != 1:  # none, or one of several that are called the same
                head = f"{head} column {i + 1}".strip()
            item.label = f"table {self.name}, {row}, {head}"
        self._number += 1
        self.row = []
