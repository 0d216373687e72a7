"""The words of an error: four parts a fault, one line each, all of them."""

from __future__ import annotations

import inspect
import re

import pytest

from clipdrift import errors
from clipdrift.errors import AdapterInactiveError, ClipdriftError, Fault, SpecError

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
