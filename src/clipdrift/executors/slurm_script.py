"""Submission of a job array through submitit, and what is kept to find it again.

submitit writes the script, checks its parameters and calls sbatch. Its own way of handing over
work is a pickle per job; here a job is a command line instead, and run ids are lines of text.
"""

from __future__ import annotations

import json
import math
import shlex
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.errors import ExecutorError, Fault
from clipdrift.executors import STOPPED, Event, Program
from clipdrift.records.writing import atomic_write, ours, writing_to

STOP_SECONDS = 90
"""A job is told this long before its time limit, so that its worker can save what it has."""

RESTARTS = 20
"""A job puts itself back into the queue at most this often; then its run counts as lost."""

BACK_INTO_THE_QUEUE = f"""\
code=$?
if [ $code -eq {STOPPED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit $code"""


@dataclass
class Element:
    """One element of an array: a worker with a share of the keys, and how far it is read."""

    job: str
    keys: list[str]
    output: Path
    errors: Path
    position: int = 0
    spoke: bool = False
    absent: int = 0

    def read(self) -> Iterator[Event]:
        """Events that the worker has written since the last call; settled keys are dropped."""
        try:
            with self.output.open("rb") as file:
                file.seek(self.position)
                lines = file.readlines()
        except OSError:
            return
        for line in lines:
            if not line.endswith(b"\n"):
                break  # still being written
            self.position += len(line)
            event = _event(line)
            if event.get("key") in self.keys:
                self.spoke = True
                if event.get("last"):
                    self.keys.remove(event["key"])
                yield event


def submit(
    program: Program,
    keys: Sequence[str],
    *,
    device: str,
    cpus: int,
    gpus: int,
    minutes: int,
    runs_per_job: int,
    at_once: int | None,
    longest_array: int,
    options: Mapping[str, str],
) -> list[Element]:
    """Hand keys to SLURM, as few arrays as its longest one allows.

    Raises:
        ExecutorError: if submitit is not installed, a parameter is unknown or sbatch refuses.
    """
    folder = _folder(program)
    # Each array lets at least one job run: no more arrays than jobs may run at once.
    share = max(runs_per_job, math.ceil(len(keys) / (longest_array * (at_once or len(keys)))))
    shares = [list(keys[i : i + share]) for i in range(0, len(keys), share)]
    arrays = [shares[i : i + longest_array] for i in range(0, len(shares), longest_array)]
    parameters: dict[str, Any] = {
        "job_name": "clipdrift",
        "time": minutes,
        "cpus_per_task": cpus,
        **({"gpus_per_node": gpus} if gpus else {}),
        "array_parallelism": at_once // len(arrays) if at_once else longest_array,
        "setup": [f"export {k}={shlex.quote(v)}" for k, v in program.environment(cpus).items()],
        "teardown": [BACK_INTO_THE_QUEUE],
        "srun_args": ["--open-mode=append", f"--cpus-per-task={cpus}"],
        "additional_parameters": {"signal": f"TERM@{STOP_SECONDS}", "requeue": True},
        **options,
    }
    command = program.on(device, cpus)
    return [e for some in arrays for e in _submit_array(folder, command, some, parameters)]


def _submit_array(
    folder: Path, command: Sequence[str], shares: list[list[str]], parameters: dict[str, Any]
) -> list[Element]:
    with writing_to(folder):
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        lists = Path(tempfile.mkdtemp(prefix="keys-", dir=folder))
        for number, share in enumerate(shares):
            (lists / f"{number}.txt").write_text("".join(f"{key}\n" for key in share))
    mine = f'{shlex.quote(str(lists))}/"$SLURM_ARRAY_TASK_ID".txt'
    job = _sbatch(folder, f"{shlex.join(command)} < {mine}", parameters, len(shares))
    atomic_write(folder / f"{job}.json", json.dumps({"shares": shares}))
    return [_element(folder, f"{job}_{number}", share) for number, share in enumerate(shares)]


def earlier_elements(program: Program, jobs: Container[str], wanted: set[str]) -> list[Element]:
    """Elements of earlier calls that still wait or run, with those of their keys that are wanted.

    They are read from where their output is now: what was said before is in the records.
    """
    folder, found = _folder(program), []
    for path in ours(folder, "*.json"):
        try:
            shares = [list(share) for share in json.loads(path.read_bytes())["shares"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: its runs are submitted again, and claimed by one worker each
        for number, share in enumerate(shares):
            keys = [key for key in share if key in wanted]
            name = f"{path.stem}_{number}"
            if keys and name in jobs:
                element = _element(folder, name, keys)
                if element.output.exists():
                    element.position = element.output.stat().st_size
                found.append(element)
                wanted = wanted - set(keys)
    return found


def _folder(program: Program) -> Path:
    folder = program.log_folder / "slurm"
    if "%" in str(folder):
        raise ExecutorError(
            Fault(
                str(folder), "a path without %", "one that SLURM would rewrite", "Use another --out"
            )
        )
    return folder


def _element(folder: Path, job: str, keys: list[str]) -> Element:
    return Element(job, keys, folder / f"{job}_0_log.out", folder / f"{job}_0_log.err")


def _sbatch(folder: Path, command: str, parameters: dict[str, Any], elements: int) -> str:
    try:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError:
        raise ExecutorError(
            Fault(
                "--executor slurm",
                "the package submitit",
                "not installed",
                "Install it: pip install 'clipdrift[slurm]'",
            )
        ) from None
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**parameters)
        executor.parameters["map_count"] = elements
        return str(executor._submit_command(command).job_id)
    except ValueError as error:  # submitit's own check; all valid names follow in its words
        raise _refused(str(error)[:200], "Mend --slurm") from None
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise _refused(str(error)[-400:], "Mend the options") from None


def _refused(words: str, next_step: str) -> ExecutorError:
    got = " ".join(words.split())
    return ExecutorError(Fault("--executor slurm", "a submission that SLURM takes", got, next_step))


def _event(line: bytes) -> Event:
    """An event, or {} for a line that is none: SLURM writes into the same file."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
