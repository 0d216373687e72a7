"""What a row of `analysis.json` is: typed fields, each with a description and a print format.

A list of the analysis is one `Row` class: its docstring describes the list, its fields are in the
order of JSON, CSV and of the page's columns. Schema, CSV, `docs/analysis.md` and what a table of
the page looks like are read from it. A field without a heading is in no table of the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from inspect import cleandoc
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

Text = Literal[
    "name",
    "any",
    "remark",
    "words",
    "metric",
    "images",
    "level",
    "pair",
    "scope",
    "moment",
    "view",
    "within",
]
Number = Literal["rate", "rates", "count", "p", "share", "one", "two", "significant", "held"]
InUnit = Literal["value", "size", "difference"]
"""In the unit of the row's metric: as the metric is printed, without a sign, with one."""
Form = Text | Number | InUnit
TEXTS, IN_UNIT = get_args(Text), get_args(InUnit)
UNDEFINED = "–"


@dataclass(frozen=True)
class Said:
    """About a field of a row.

    form: how it is printed. head: heading of its column, or that of an interval whose other end is
    the field `upto`. words: its description; that of the class's docstring, where it has one there.
    key: names the row. sure: says how sure another number is, and stands in no table in which no
    row knows it.
    """

    form: Form = "significant"
    head: str = ""
    words: str = ""
    upto: str = ""
    key: bool = False
    sure: bool = False

    @property
    def told(self) -> str:
        """The description with its unit, where that is the metric's."""
        unit = "in the metric's unit" if self.form in IN_UNIT else ""
        return "; ".join(filter(None, [self.words, unit]))


def key(head: str, form: Form = "name", words: str = "") -> Said:
    """A field that names its row."""
    return Said(form, head, words, key=True)


def sure(head: str, form: Form = "significant", upto: str = "", words: str = "") -> Said:
    """A field that says how sure another one is."""
    return Said(form, head, words, upto, sure=True)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a list of `analysis.json`; undefined is None."""

    table: ClassVar[str]

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """A row of JSON.

        Raises:
            TypeError: if it has other fields.
        """
        return cls(**row)


_SAID: dict[type[Row], dict[str, tuple[Said, Any]]] = {}


def said(row: type[Row]) -> dict[str, tuple[Said, Any]]:
    """What is said of each field of a row, and its type, in order."""
    if row not in _SAID:
        hints = get_type_hints(row, include_extras=True)
        described = {k: v for kind in reversed(row.__mro__) for k, v in _words(kind).items()}
        found = {field.name: _said(hints[field.name]) for field in fields(row)}
        for name, words in described.items():
            about, kind = found[name]
            found[name] = (replace(about, words=words), kind)
        _SAID[row] = found
    return _SAID[row]


def _said(hint: Any) -> tuple[Said, Any]:
    if get_origin(hint) is not Annotated:
        return Said(), hint
    kind, *about = get_args(hint)
    return about[-1], kind


def _words(row: type) -> dict[str, str]:
    """Descriptions of fields in a docstring: `name: what it is`, further lines indented."""
    text = re.sub(r"\n {4,}", " ", cleandoc(row.__doc__ or "")) if issubclass(row, Row) else ""
    return dict(re.findall(r"^(\w+): (.+)$", text, re.MULTILINE))


JSON_TYPES = {str: "string", float: "number", int: "integer", bool: "boolean"}


def list_schema(row: type[Row]) -> dict[str, Any]:
    """JSON Schema of a list of rows."""
    item = row_schema(row)
    return {"type": "array", "description": item.pop("description"), "items": item}


def row_schema(row: type[Row]) -> dict[str, Any]:
    """JSON Schema of one row."""
    columns = {
        name: _json_type(kind) | ({"description": about.told} if about.told else {})
        for name, (about, kind) in said(row).items()
    }
    return {"description": _about(row)} | object_schema(columns)


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _about(row: type[Row]) -> str:
    """What a list is, from the docstring of its rows."""
    text = cleandoc(row.__doc__ or "")
    return re.split(r"\n(?=\w+: )", text)[0].strip()


def _json_type(kind: Any) -> dict[str, Any]:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return {"enum": list(inner)}
    if get_origin(kind) is list:
        return {"type": "array", "items": _json_type(inner[0])}
    if get_origin(kind) in (Union, UnionType):  # with None
        first = _json_type(inner[0])
        if "enum" in first:
            return {"enum": [*first["enum"], None]}
        return first | {"type": [first["type"], "null"]}
    return {"type": JSON_TYPES[kind]}


def rate_text(rate: float | None) -> str:
    """A learning rate in full, so that two different rates never read alike.

    >>> rate_text(1e-05), rate_text(1.5e-05), rate_text(0.001)
    ('1e-5', '1.5e-5', '1e-3')
    """
    if rate is None:
        return UNDEFINED
    _, digits, exponent = Decimal(repr(rate)).normalize().as_tuple()
    power = int(exponent) + len(digits) - 1
    if power >= -2:
        return f"{rate:g}" if float(f"{rate:g}") == rate else repr(rate)
    text = "".join(map(str, digits))
    return f"{text[0]}.{text[1:]}e{power}" if len(text) > 1 else f"{text}e{power}"


Metric = Annotated[str, key("Metric", "metric", "a field of a record")]
Method = Annotated[str, key("Method")]
MethodA = Annotated[str, key("Difference", "pair", "which method is subtracted from which")]
LearningRate = Annotated[float, Said("rate", words="learning rate")]
Over = Annotated[float | None, key("LR", "scope", "learning rate; null over rates: see scope")]
Outcome = Annotated[
    str, key("Outcome", "metric", "final retention on a transfer dataset, or what is gone")
]
Count = Annotated[int, Said("count", "Runs", "runs with a value")]
Seeds = Annotated[int, Said("count", words="seeds: the sample")]
Drawn = Annotated[
    Literal["seeds and images", "seeds"] | None, Said(words="what the interval is over")
]
FIT = (
    "fits: mean test accuracy at least underfit_fraction of the best cell of the target; below it "
    "damaged, if a lower rate of the method or an earlier epoch of the runs was better by more "
    "than that, else underfits"
)
Fits = Annotated[Literal["fits", "underfits", "damaged"] | None, Said(words=FIT)]
RunIds = Annotated[list[str], Said(words="runs the numbers come from")]
Reason = Annotated[str | None, Said(words="why something is null")]


@dataclass(frozen=True, kw_only=True)
class OfBackbone(Row):
    backbone: Annotated[str, key("Backbone")]


@dataclass(frozen=True, kw_only=True)
class OfTarget(OfBackbone):
    target: Annotated[str, key("Target")]


@dataclass(frozen=True, kw_only=True)
class OfCell(OfTarget):
    """
    role: matched, or a reference at rates of its own
    """

    role: str
    method: str
    learning_rate: LearningRate


@dataclass(frozen=True, kw_only=True)
class OfTransfer(OfCell):
    """
    transfer: the transfer dataset
    """

    method: Method
    learning_rate: Annotated[float, key("LR", "rate")]
    transfer: Annotated[str, key("Set")]


@dataclass(frozen=True, kw_only=True)
class OfPair(OfTarget):
    """
    scope: per_lr, at one learning rate; grid_mean, the mean over the grid of rates; both_fit, over
        the rates at which both methods fit; all_pairs, every rate and seed as a replicate
    """

    metric: Metric
    method_a: MethodA
    method_b: str
    scope: Literal["per_lr", "grid_mean", "both_fit", "all_pairs"]
