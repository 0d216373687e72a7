"""A short run of every fuzz target with fixed seeds; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.catalogue import TARGETS
from fuzz.judge import judge
from hypothesis import HealthCheck, given, seed, settings

NAMES = sorted(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    """Engines start from the seeds: if all were refused, only the first check would be tested."""
    target = TARGETS[name]
    target.feed(target.seeds()[0], tmp_path)
    assert [judge(target, data) for data in target.seeds()] == [None] * len(target.seeds())


@pytest.mark.parametrize("name", NAMES)
def test_nearly_good_files_are_read_or_refused_in_plain_words(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.feed(target.seeds()[0], tmp_path)  # what is made once, before it is watched

    @seed(1)
    @settings(
        max_examples=target.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs())
    def run(data: bytes) -> None:
        assert judge(target, data) is None

    run()
