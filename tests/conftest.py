"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from synthetic_records import synthetic_records

from clipdrift.records import RunRecord


@pytest.fixture
def make_records() -> Callable[..., list[RunRecord]]:
    """Builder of made-up records in memory; see `synthetic_records` for its arguments."""
    return synthetic_records


__all__ = ["make_records"]
