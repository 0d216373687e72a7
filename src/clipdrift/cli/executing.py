"""Options that say where runs are measured, and the executor that they make."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipdrift.errors import ExecutorError, Fault

if TYPE_CHECKING:
    from clipdrift.executors import Executor


class Kind(StrEnum):
    local = "local"
    ray = "ray"
    slurm = "slurm"


ExecutorKind = Annotated[
    Kind,
    typer.Option(
        "--executor",
        help="local: processes of this machine; ray: a running Ray cluster or one started here; "
        "slurm: an array of jobs",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="at once; default: local: one per GPU, else what cores have room for; ray: what has "
        "room; slurm: all",
    ),
]
LocalDevice = Annotated[
    str | None,
    typer.Option("--device", help="local: auto (default), cpu, cuda (every GPU), cuda:1, ..."),
]
RunTimeout = Annotated[
    float | None,
    typer.Option(
        "--run-timeout",
        min=1,
        help="local, ray: seconds without progress after which a run's worker is killed and the "
        "run tried again; longer than any reading between epochs. Default: none",
    ),
]
Cpus = Annotated[
    int | None,
    typer.Option(
        "--cpus-per-run",
        min=1,
        help="cores and threads; default: local: $OMP_NUM_THREADS, else its share of the cores; "
        "ray, slurm: 1",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-run", min=0, help="ray, slurm: default 0; on ray 0.5 lets two runs share one"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="ray: of the cluster; default $RAY_ADDRESS, or one on this machine"),
]
TimeLimit = Annotated[
    int | None,
    typer.Option(
        "--time-limit",
        min=1,
        help="slurm: minutes of a job; default 240. A run goes on in the next job",
    ),
]
RunsPerJob = Annotated[
    int | None, typer.Option("--runs-per-job", min=1, help="slurm: one after another; default 1")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="NAME=VALUE",
        help="slurm: partition=gpu, account=lab, mem=16G, qos=..., constraint=...; repeat it",
    ),
]

_OPTIONS = {
    Kind.local: ("--workers", "--device", "--run-timeout", "--cpus-per-run"),
    Kind.ray: ("--workers", "--run-timeout", "--cpus-per-run", "--gpus-per-run", "--address"),
    Kind.slurm: (
        *("--workers", "--cpus-per-run", "--gpus-per-run"),
        *("--time-limit", "--runs-per-job", "--slurm"),
    ),
}
_ARGUMENTS = {
    "--workers": "workers",
    "--device": "device",
    "--run-timeout": "run_timeout",
    "--cpus-per-run": "cpus",
    "--gpus-per-run": "gpus",
    "--address": "address",
    "--time-limit": "minutes",
    "--runs-per-job": "runs_per_job",
    "--slurm": "options",
}


def make_executor(kind: Kind, given: dict[str, Any]) -> Executor:
    """The executor of a kind.

    Args:
        given: option -> value as typed; None for one that was left out.

    Raises:
        ExecutorError: for options that the kind does not have, or that it cannot fulfil.
    """
    typed = {name: value for name, value in given.items() if value is not None}
    faults = [
        Fault(name, f"an option of --executor {kind}: {', '.join(_OPTIONS[kind])}",
              "one of another executor", "Leave it out")
        for name in typed
        if name not in _OPTIONS[kind]
    ]  # fmt: skip
    if kind is Kind.slurm:
        faults += _whole_gpus(typed)
        typed["--slurm"], wrong = _pairs(typed.get("--slurm", []))
        faults += wrong
    if faults:
        raise ExecutorError(faults)
    arguments = {_ARGUMENTS[name]: value for name, value in typed.items()}
    if kind is Kind.local:
        from clipdrift.executors.local import LocalExecutor

        return LocalExecutor(**arguments)
    if kind is Kind.ray:
        from clipdrift.executors.ray import RayExecutor

        return RayExecutor(**arguments)
    from clipdrift.executors.slurm import SlurmExecutor

    return SlurmExecutor(**arguments)


def _whole_gpus(typed: dict[str, Any]) -> list[Fault]:
    gpus = typed.get("--gpus-per-run", 0)
    if gpus not in (0, 1):
        return [
            Fault("--gpus-per-run", "0 or 1 on SLURM", f"{gpus:g}", "A run computes on one GPU")
        ]
    typed["--gpus-per-run"] = int(gpus)
    return []


def _pairs(given: Sequence[str]) -> tuple[dict[str, str], list[Fault]]:
    pairs = [text.partition("=") for text in given]
    faults = [
        Fault("--slurm", "NAME=VALUE", "".join(pair), "Write e.g. --slurm partition=gpu")
        for pair in pairs
        if not (pair[0].isidentifier() and pair[2])
    ]
    return {name: value for name, _, value in pairs}, faults
