"""How keys are shared out over jobs and arrays; submission itself is tested on a SLURM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipdrift.errors import ExecutorError
from clipdrift.executors import Program, slurm_script
from clipdrift.executors.slurm_script import Element, submit

Arrays = list[tuple[int, int]]


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """What would be submitted: jobs of each array, and how many of them at once."""
    seen: Arrays = []

    def sbatch(folder: Path, command: str, parameters: dict[str, Any], elements: int) -> str:
        seen.append((elements, parameters["array_parallelism"]))
        return str(len(seen))

    monkeypatch.setattr(slurm_script, "_sbatch", sbatch)
    return seen


def hand_over(folder: Path, n: int, **options: Any) -> list[Element]:
    settings = {"runs_per_job": 1, "at_once": None, "longest_array": 1001, **options}
    return submit(
        Program(("worker",), folder), [f"k{i}" for i in range(n)],
        device="cpu", cpus=1, gpus=0, minutes=1, options={}, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (80, {}, [(80, 1001)]),
        (80, {"at_once": 8, "runs_per_job": 3}, [(27, 8)]),
        (2500, {}, [(1001, 1001), (1001, 1001), (498, 1001)]),
        (2500, {"at_once": 64}, [(1001, 21), (1001, 21), (498, 21)]),
        (2500, {"at_once": 2}, [(1001, 1), (249, 1)]),
    ],
)
def test_arrays_keep_to_the_longest_one_and_to_the_jobs_at_once(
    tmp_path: Path, arrays: Arrays, n: int, options: dict[str, Any], expected: Arrays
) -> None:
    elements = hand_over(tmp_path, n, **options)
    assert arrays == expected
    assert [key for element in elements for key in element.keys] == [f"k{i}" for i in range(n)]
    assert len({element.job for element in elements}) == sum(jobs for jobs, _ in expected)
    for element in elements[:3]:
        number = element.job.split("_")[1]
        lists = [p.read_text().split() for p in tmp_path.glob(f"slurm/keys-*/{number}.txt")]
        assert element.keys in lists


def test_a_path_that_slurm_would_rewrite_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    with pytest.raises(ExecutorError, match="expected a path without %, got one that SLURM"):
        hand_over(tmp_path / "100%A", 2)
    assert arrays == []
