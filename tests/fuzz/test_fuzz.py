"""A short run of every fuzz target with fixed seeds; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.catalogue import TARGETS
from fuzz.judge import judge
from hypothesis import HealthCheck, given, seed, settings

NAMES = sorted(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read_and_nearly_good_ones_or_refused_in_plain_words(
    name: str, tmp_path: Path
) -> None:
    """Engines start from the good ones: were these refused, only the first check was tested."""
    target = TARGETS[name]
    good = target.seeds()
    target.feed(good[0], tmp_path)  # what is made once, before it is watched
    assert [judge(target, data) for data in good] == [None] * len(good)

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
