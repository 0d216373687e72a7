"""The words of an error: four parts a fault, one line each, all of them."""

from __future__ import annotations

import inspect
import re

import pytest

from clipdrift import errors
from clipdrift.errors import (
    AdapterInactiveError,
    ClipdriftError,
    Fault,
    SpecError,
    brief,
    did_you_mean,
    told,
)

FIRST = Fault("seeds", "distinct values", "[7, 7]", "Remove the second 7")
SECOND = Fault("s.yaml:3 sedes", "a known key", "'sedes'", "Did you mean 'seeds'?")


@pytest.mark.parametrize(
    ("step", "end"),
    [("Remove it", "Remove it."), ("Remove it.", "Remove it."), ("Mean 'a'?", "Mean 'a'?")],
)
def test_a_fault_reads_as_two_sentences(step: str, end: str) -> None:
    assert (
        str(Fault("a.b", "more than 0", "-1", step)) == f"a.b: expected more than 0, got -1. {end}"
    )


def test_one_fault_needs_no_list() -> None:
    error = SpecError(FIRST)
    assert error.faults == [FIRST]
    assert str(error) == "seeds: expected distinct values, got [7, 7]. Remove the second 7."


def test_several_faults_are_all_said_in_order() -> None:
    error = SpecError(fault for fault in (SECOND, FIRST))
    assert error.faults == [SECOND, FIRST]
    assert str(error).split("\n") == [
        "s.yaml:3 sedes: expected a known key, got 'sedes'. Did you mean 'seeds'?",
        "seeds: expected distinct values, got [7, 7]. Remove the second 7.",
    ]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = set(re.findall(r"\w+Error", errors.__doc__ or ""))
    defined = {
        name
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, ClipdriftError)
    }
    assert drawn == defined
    assert issubclass(AdapterInactiveError, ClipdriftError)


def test_equal_faults_are_told_three_times_and_counted() -> None:
    alike = [Fault("photos", "links that stay inside", f"{i}.png", "Copy it") for i in range(9999)]
    lines = str(SpecError([FIRST, *alike, SECOND])).split("\n")
    assert lines == [
        str(FIRST),
        "photos: expected links that stay inside, got 0.png. Copy it.",
        "photos: expected links that stay inside, got 1.png. Copy it.",
        ("photos: expected links that stay inside, got 2.png (and 9,996 more: photos). Copy it."),
        str(SECOND),
    ]
    assert len(SpecError(alike).faults) == 9999


def test_the_count_of_equal_faults_is_not_cut_off() -> None:
    long = [Fault(f"row {i}", "a short cell", "x" * 10_000, "Cut it") for i in range(30)]
    last = told(long)[-1]
    assert "(and 27 more: row 3, row 4, " in last
    assert last.endswith("row 22, ...). Cut it.")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cat", "'cat'"),
        ([1, 2.5, None], "[1, 2.5, None]"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        ([[[[[[1]]]]]], "[[[[...]]]]"),
        ({"a": 16**40_000}, "{'a': a number of 160,001 bits}"),
    ],
)
def test_a_value_is_shown_in_few_words(value: object, text: str) -> None:
    assert brief(value) == text


def test_nested_lists_are_not_unfolded_to_be_shown() -> None:
    bomb: list[object] = ["ha"]
    for _ in range(60):
        bomb = [bomb] * 10
    assert len(brief(bomb)) < 5000
    assert len(brief("x" * 10**8)) < 250


def test_similar_names_are_looked_for_among_names_of_a_length_people_type() -> None:
    assert did_you_mean("sedes", ["seeds", "splits"], "No") == "Did you mean 'seeds'?"
    assert did_you_mean("s" * 10**6, ["seeds", "s" * 10**6], "No") == "No"
