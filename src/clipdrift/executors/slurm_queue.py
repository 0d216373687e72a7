"""What SLURM's own commands say of jobs. Accounting (sacct) is not needed, many sites lack it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clipdrift.errors import ExecutorError, Fault

COMMAND_SECONDS = 60


@dataclass
class Queue:
    """The scheduler as this user sees it.

    Raises:
        ExecutorError: where there is no SLURM on this machine.
    """

    def __post_init__(self) -> None:
        if shutil.which("sbatch") is None:
            raise ExecutorError(
                Fault(
                    "--executor slurm",
                    "SLURM's commands on this machine",
                    "no sbatch",
                    "Run it where jobs are submitted, or use another --executor",
                )
            )

    def jobs(self) -> dict[str, str] | None:
        """This user's jobs by name ("123_4") with their states ("PD", "R"); None without answer."""
        answer = _ask("squeue", "--noheader", "--array", "--user", str(os.getuid()), "-o", "%i %t")
        return None if answer is None else dict(line.split() for line in answer.splitlines())

    def longest_array(self) -> int:
        """Elements that one array may have (1001 where SLURM does not say)."""
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "")
        return int(found[1]) if found else 1001


def outcome(job: str) -> str:
    """How a job ended, as far as SLURM still knows."""
    said = _ask("scontrol", "show", "job", "--oneliner", job) or ""
    found = {key: value for key, _, value in (word.partition("=") for word in said.split())}
    if "JobState" not in found:
        return "left the queue"
    return f"ended as {found['JobState']} (exit code {found.get('ExitCode', '?')})"


def last_words(errors: Path) -> str:
    """The last line that a worker wrote to its error file, ready to be appended."""
    try:
        lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))] or lines
    return f"; last words: {own[-1][:200]}" if own else ""


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
