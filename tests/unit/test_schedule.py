"""The simulated schedule against cases that can be worked out by hand."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schedule() -> ModuleType:
    spec = util.spec_from_file_location("schedule", ROOT / "benchmarks" / "schedule.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["schedule"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_equal_runs_go_in_whole_rounds(schedule: ModuleType) -> None:
    free = schedule.Costs(0, 0, 0, 0, 0)
    found = schedule.simulate([3.0] * 10, 4, free)
    assert found.wall == 9.0  # three rounds, the last of two runs
    assert found.efficiency == 30 / 36
    assert found.tail == 1.5  # two of four workers idle for 3 s


def test_what_comes_before_the_first_run_adds_up(schedule: ModuleType) -> None:
    costs = schedule.Costs(
        worker_start=5, plan_per_run=0.5, baseline=7, scan_per_run=0.25, closing=0
    )
    found = schedule.simulate([1.0] * 8, 8, costs)
    assert (found.scan, found.start, found.baseline) == (2, 9, 7)
    assert found.wall == 2 + 9 + 7 + 1


def test_workers_of_an_array_start_for_each_share(schedule: ModuleType) -> None:
    costs = schedule.Costs(worker_start=10, plan_per_run=0, baseline=0, scan_per_run=0, closing=0)
    assert schedule.simulate([1.0] * 8, 2, costs, share=2, anew=True).wall == 10 + 2 + 10 + 2
    assert schedule.simulate([1.0] * 8, 2, costs, share=2).wall == 10 + 4


def test_the_longest_run_given_out_last_makes_the_tail(schedule: ModuleType) -> None:
    free = schedule.Costs(0, 0, 0, 0, 0)
    assert schedule.simulate([1, 1, 1, 1, 4], 2, free).wall == 6
    assert schedule.simulate([4, 1, 1, 1, 1], 2, free).wall == 4


def test_one_process_that_closes_runs_limits_how_many_workers_help(schedule: ModuleType) -> None:
    costs = schedule.Costs(0, 0, 0, 0, closing=1)
    assert schedule.simulate([2.0] * 100, 50, costs).wall >= 100
