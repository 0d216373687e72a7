"""From options of the command line to an executor."""

from __future__ import annotations

from typing import Any

import pytest

from clipdrift.cli.executing import Kind, make_executor
from clipdrift.errors import ExecutorError
from clipdrift.executors.local import LocalExecutor
from clipdrift.executors.ray import RayExecutor
from clipdrift.executors.slurm import SlurmExecutor


@pytest.mark.parametrize(
    ("kind", "given", "expected", "device"),
    [
        (Kind.local, {"--workers": None, "--address": None}, LocalExecutor(), "auto"),
        (Kind.local, {"--workers": 3, "--device": "cpu"}, LocalExecutor(3, "cpu"), "cpu"),
        (Kind.ray, {"--gpus-per-run": 0.5}, RayExecutor(gpus=0.5), "cuda"),
        (Kind.ray, {"--address": "a:1", "--cpus-per-run": 2}, RayExecutor("a:1", cpus=2), "cpu"),
        (Kind.slurm, {"--gpus-per-run": 1.0}, SlurmExecutor(gpus=1), "cuda"),
        (
            Kind.slurm,
            {"--slurm": ["partition=gpu", "mem=16G"], "--time-limit": 5, "--runs-per-job": 4},
            SlurmExecutor(minutes=5, runs_per_job=4, options={"partition": "gpu", "mem": "16G"}),
            "cpu",
        ),
    ],
)
def test_options_make_the_executor(
    kind: Kind, given: dict[str, Any], expected: object, device: str
) -> None:
    made = make_executor(kind, given)
    assert made == expected
    assert made.device == device


def test_all_faults_of_the_options_at_once() -> None:
    given = {"--device": "cpu", "--gpus-per-run": 0.5, "--slurm": ["gpu", "a-b=1", "x=1"]}
    with pytest.raises(ExecutorError) as refused:
        make_executor(Kind.slurm, given)
    assert [str(fault) for fault in refused.value.faults] == [
        (
            "--device: expected an option of --executor slurm: --workers, --cpus-per-run, "
            "--gpus-per-run, --time-limit, --runs-per-job, --slurm, got one of another executor. "
            "Leave it out."
        ),
        "--gpus-per-run: expected 0 or 1 on SLURM, got 0.5. A run computes on one GPU.",
        "--slurm: expected NAME=VALUE, got gpu. Write e.g. --slurm partition=gpu.",
        "--slurm: expected NAME=VALUE, got a-b=1. Write e.g. --slurm partition=gpu.",
    ]


@pytest.mark.parametrize("kind", [Kind.local, Kind.ray])
def test_options_of_slurm_are_refused_elsewhere(kind: Kind) -> None:
    with pytest.raises(ExecutorError, match=f"--time-limit: expected an option of .* {kind}: "):
        make_executor(kind, {"--time-limit": 5})
