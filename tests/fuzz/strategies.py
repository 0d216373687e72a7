"""Inputs that are nearly right: good files with some bytes, keys or values replaced."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

ODD_TEXTS = (
    *("", " ", "\0", "..", "../../up", "/etc/passwd", "~", "-", ".", "a/b", "CON", "x" * 300),
    *("<script>alert(1)</script>", "=1+1", "@SUM(A1)", "\\input{x}", "{}", "{0}", "%s", "a\nb"),
    *("\x1b[31mred", "\ud800", "\u202e", "é", "NaN", "inf", "1e400", "1_000", "null", "true"),
)
ODD_NUMBERS = (0, -1, 1, 2, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e-320, 1e308)
ODD_NUMBERS_OF_FLOAT = (float("nan"), float("inf"), -0.0)
ODD: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}),
    *ODD_TEXTS,
    *ODD_NUMBERS,
    *ODD_NUMBERS_OF_FLOAT,
)
TOKENS = (
    *(b"\0", b"\xff", b"\n", b"\r\n", b",", b'"', b"'", b"{", b"}", b"[", b"]", b":", b"- "),
    *(
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!python/object/apply:os.system",
        b"9" * 40,
        b"[" * 3000,
        b"-1",
        b"1e999",
    ),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[2J", b"../", b"null", b"\t", b"%", b"=cmd|' /C'!A0"),
)


UNFOLDING = tuple(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))
"""Nine lines that unfold to 400 million words, where `a0` is one."""
YAML_SHAPES = tuple(
    "\n".join(lines).encode() + b"\n"
    for lines in (
        ("a0: &a0 x", *UNFOLDING),
        ("a0: &a0 x", *UNFOLDING, "? *a9", ": x"),
        ("a0: &a0 x", *UNFOLDING, "? {k: *a9}", ": x"),
        ("a0: &a0 {k: v}", *(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}" for n in range(9))),
        ("? [a, b]", ": x", "? {a: b}", ": y", "? - a", ": z"),
        (f"seed: {':'.join(['59'] * 3000)}", f"lr: {'9' * 5000}"),
        tuple(f"unknown_{n}: {n}" for n in range(300)),
    )
)
"""Ends of files whose keys and maps are small to write and large to read."""


@st.composite
def damaged(draw: DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed after a few cuts, insertions and overwritten bytes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, min(64, len(data) - start)))
        piece = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
        data[start : start + length] = piece
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@st.composite
def edited(draw: DrawFn, trees: Sequence[Any], *, values: Sequence[Any] = ODD) -> Any:
    """A JSON-like tree with one to three of its parts replaced, removed, doubled or renamed."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        _edit(draw, parent, key, values)
    return tree


def _edit(draw: DrawFn, parent: Any, key: Any, values: Sequence[Any]) -> None:
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "nest")))
    if how == "replace":
        odd = draw(st.sampled_from(values) | st.text(max_size=8) | st.integers())
        parent[key] = copy.deepcopy(odd)  # the next edit may change it
    elif how == "remove":
        del parent[key]
    elif how == "nest":
        parent[key] = [parent[key]]
    elif isinstance(parent, dict):
        parent[draw(st.sampled_from(ODD_TEXTS) | st.text(max_size=8))] = parent.pop(key)
    else:
        parent.append(parent[key])


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def as_json(tree: Any) -> bytes:
    """JSON as Python's own reader takes it: NaN included, lone surrogates escaped."""
    return json.dumps(tree).encode()


def edited_json(trees: Callable[[], Sequence[Any]]) -> Callable[[], SearchStrategy[bytes]]:
    """JSON files near those of the trees."""
    return lambda: edited(trees()).map(as_json)


__all__ = ["ODD", "ODD_TEXTS", "YAML_SHAPES", "as_json", "damaged", "edited", "edited_json"]
