"""Colours and marker shapes: one look per method in every figure, light and dark.

Figures name colours by token ("@m0", "@ink", "@m0/0.2" for 20 % opacity). The page resolves the
tokens against the reader's theme; `resolve` does the same for a notebook.

The method colours are those of Okabe and Ito (2008), which people with the common forms of colour
blindness tell apart; every method has a marker shape of its own as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Theme = Mapping[str, Any]

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")
LIGHT: Theme = {
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "grid": "#e4e7eb",
    "rule": "#9aa3ad",
    "paper": "#ffffff",
    "m0": "#0072b2",
    "m1": "#d55e00",
    "m2": "#009e73",
    "m3": "#b0568c",
    "m4": "#b87a00",
    "m5": "#2f93cf",
    "m6": "#5b6470",
    "m7": "#8a7a00",
    "lr0": "#7cc7a0",
    "lr1": "#3fb0a8",
    "lr2": "#2a8fb0",
    "lr3": "#2f6aa8",
    "lr4": "#3d448f",
    "lr5": "#3a1d63",
    "diverging": [
        [0.0, "#1f4e9c"],
        [0.25, "#7fa8d6"],
        [0.5, "#f7f7f5"],
        [0.75, "#e59a63"],
        [1.0, "#a63c00"],
    ],
}
DARK: Theme = {
    "ink": "#e8eaed",
    "muted": "#a3acb8",
    "grid": "#2b3138",
    "rule": "#6b7580",
    "paper": "#15181c",
    "m0": "#4aa8e0",
    "m1": "#f08a3c",
    "m2": "#2ec79a",
    "m3": "#d98cbc",
    "m4": "#e6b03a",
    "m5": "#8fd0f5",
    "m6": "#a3acb8",
    "m7": "#e3d64a",
    "lr0": "#4c6a9e",
    "lr1": "#3f8bb5",
    "lr2": "#3fabae",
    "lr3": "#62c691",
    "lr4": "#a8dc74",
    "lr5": "#f2ec7a",
    "diverging": [
        [0.0, "#8fc0f5"],
        [0.25, "#3f78ba"],
        [0.5, "#23282e"],
        [0.75, "#b8622a"],
        [1.0, "#ffb27a"],
    ],
}
N_METHOD_COLOURS = 8
N_RATE_COLOURS = 6
_TOKEN = re.compile(r"@([a-z]+[0-9]?)(?:/([0-9.]+))?")


@dataclass(frozen=True)
class Look:
    """How a method is drawn; `open_symbol` is the hollow marker of cells that do not fit."""

    method: str
    role: str
    colour: str
    symbol: str

    @property
    def open_symbol(self) -> str:
        return f"{self.symbol}-open"


def looks(methods: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """A look per method: matched methods first, each group by name, colours in that order.

    Args:
        methods: (method, role) in any order, repeats allowed.

    >>> looks([("probe", "reference"), ("lora", "matched")])["lora"].colour
    '@m0'
    """
    ordered = sorted(set(methods), key=lambda item: (item[1] != "matched", item[0]))
    names = list(dict.fromkeys(method for method, _ in ordered))
    roles = dict(reversed(ordered))
    return {
        name: Look(
            name,
            roles[name],
            f"@m{i % N_METHOD_COLOURS}",
            SYMBOLS[(i + i // N_METHOD_COLOURS) % len(SYMBOLS)],
        )
        for i, name in enumerate(names)
    }


def rate_colour(rank: int, n_rates: int) -> str:
    """Token of the `rank`-th of `n_rates` learning rates, from weak to strong."""
    if n_rates < 2:
        return f"@lr{N_RATE_COLOURS - 2}"
    return f"@lr{round(rank * (N_RATE_COLOURS - 1) / (n_rates - 1))}"


def resolve(value: Any, theme: Theme = LIGHT) -> Any:
    """Replace every colour token in a figure.

    >>> resolve({"line": {"color": "@m0"}, "fillcolor": "@m0/0.5"})
    {'line': {'color': '#0072b2'}, 'fillcolor': 'rgba(0,114,178,0.5)'}
    """
    if isinstance(value, Mapping):
        return {key: resolve(item, theme) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(item, theme) for item in value]
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    match = _TOKEN.fullmatch(value)
    if match is None or match[1] not in theme:
        return value
    colour = theme[match[1]]
    return colour if match[2] is None else rgba(str(colour), match[2])


def rgba(colour: str, opacity: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
