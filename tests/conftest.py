"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from loopback_only import forbid_other_machines
from synthetic_records import synthetic_records

from clipdrift.records import RunRecord

# Read when the hub's library is first imported: no test asks the internet, not even by mistake.
os.environ["HF_HUB_OFFLINE"] = "1"
forbid_other_machines()


@pytest.fixture
def make_records() -> Callable[..., list[RunRecord]]:
    """Builder of made-up records in memory; see `synthetic_records` for its arguments."""
    return synthetic_records


__all__ = ["make_records"]
