"""Kill a small study with SIGKILL at random moments and hold what it leaves to an undisturbed one.

    python tools/kill_study.py --kills 100

Each round starts the study, kills it at a moment drawn evenly over the time that is left of it, and
checks that every record on disk is valid and is the one that the undisturbed study wrote. Half of
the kills take the workers along, as a power cut would; half leave them without their parent. A
study that gets to its end before it is killed is compared as a whole, its analysis included, and
the next one starts in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STUDY: dict[str, Any] = {
    "name": "killed",
    "targets": [{"name": "land-cover", "builtin": "land-cover"}],
    "transfers": [{"name": "digits", "builtin": "digits", "n_images": 60}],
    "methods": ["full_ft", {"name": "lora", "kind": "lora", "dropout": 0.2}],
    "learning_rates": [1e-3, 3e-3],
    "seeds": [7],
    "schedule": {"epochs": 3, "batch_size": 20},
    "splits": {"train_per_class": 6, "val_per_class": 4, "test_per_class": 4},
    "probe": {"per_class": 2},
    "evaluation": {"epoch_transfer_images": 20},
    "precision": "float32",
}

CHILD = """
import sys
from pathlib import Path
from rich.console import Console
from clipdrift.cli.reading import close_study
from clipdrift.executors import Program
from clipdrift.executors.local import LocalExecutor
from clipdrift.spec import load_spec
from clipdrift.study import run_study

class SavesEveryEpoch(LocalExecutor):
    def run(self, program, keys):
        command = (*program.command, "--checkpoint-seconds", "0")
        return super().run(Program(command, program.log_folder), keys)

spec, out, cache = sys.argv[1:]
outcome = run_study(
    load_spec(Path(spec)), out, executor=SavesEveryEpoch(2, "cpu"), cache_dir=Path(cache)
)
assert not outcome.failed, outcome.failed
if outcome.busy:
    sys.exit(75)  # BUSY
close_study(outcome.folder, Console())
"""

BUSY = 75
"""Exit code of a study whose last runs are with orphaned workers of one that was killed."""


@dataclass
class Killing:
    """A study, the cache it may use, and what its records must be."""

    base: Path
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_without_runs: float = 0.0
    moments: Counter[str] = field(default_factory=Counter)
    resumed_inside: set[str] = field(default_factory=set)
    ended: int = 0
    recorded: set[str] = field(default_factory=set)

    @property
    def out(self) -> Path:
        return self.base / f"out-{self.ended}"

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        spec = self.base / "study.yaml"
        spec.write_text(yaml.safe_dump(STUDY))
        command = [sys.executable, "-c", CHILD, str(spec), str(out), str(self.base / "cache")]
        with (self.base / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def undisturbed(self) -> None:
        """Know how long a study takes with images prepared, how long without runs to do."""
        times = []
        for name in ("first", "whole", "whole"):
            started = time.monotonic()
            self._finish(self.base / name)
            times.append(time.monotonic() - started)
        _, self.seconds, self.seconds_without_runs = times
        self.expected = self.records(self.base / "whole")

    def records(self, out: Path) -> dict[str, Any]:
        """Run id -> all of its record but times. Fails if a record is damaged."""
        from clipdrift.records import read_record

        found = {}
        for path in out.glob("runs/*/record.json"):
            record = read_record(path)
            if record.timing.get("interruptions"):
                self.resumed_inside.add(record.checksum)
            body = record.model_dump(mode="json", exclude={"timing", "checksum"})
            for epoch in body["history"]:
                epoch.pop("train_seconds")
            found[record.run_id] = body
        return found

    def seconds_left(self) -> float:
        """About how long the study in hand still takes."""
        done = len(self.recorded) == len(self.expected)
        return self.seconds_without_runs if done else self.seconds

    def kill_once(self, moment: float, *, workers_too: bool) -> bool:
        """Start, wait, kill, check. False if the command got to its end before."""
        process = self.start(self.out)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if workers_too:
                for worker in workers_of(self.out):
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
            self.moments[self._moment()] += 1
            self.check(whole=False)
            return True
        assert process.returncode in (0, BUSY), self._last_words()
        self.check(whole=process.returncode == 0)
        self.ended += process.returncode == 0
        return False

    def check(self, *, whole: bool) -> None:
        found = self.records(self.out)
        for run_id, body in found.items():
            assert body == self.expected[run_id], f"{run_id}: another record than undisturbed"
        assert self.recorded <= found.keys(), "a finished run was lost"
        self.recorded = set() if whole else set(found)
        if whole:
            assert found.keys() == self.expected.keys()
            self._check_analysis()

    def end(self) -> None:
        """Let the study get to its end, and compare."""
        self._finish(self.out)
        self.check(whole=True)
        self.ended += 1

    def _check_analysis(self) -> None:
        tables = sorted((self.base / "whole" / "tables").glob("*.csv"))
        assert tables
        for table in tables:
            if table.name != "runs.csv":  # it tells times
                other = self.out / "tables" / table.name
                assert other.read_bytes() == table.read_bytes(), f"{table.name} differs"

    def _moment(self) -> str:
        if not (self.out / "plan.json").exists():
            return "before the plan"
        records = len(list(self.out.glob("runs/*/record.json")))
        if records < len(self.expected):
            return "measuring"
        return "analysing" if not (self.out / "report.html").exists() else "at the end"

    def _finish(self, out: Path) -> None:
        for _ in range(20):
            code = self.start(out).wait()
            if code == 0:
                return
            assert code == BUSY, self._last_words()
            time.sleep(1)  # an orphaned worker is still at a run
        raise AssertionError("the study does not end")

    def _last_words(self) -> str:
        return (self.base / "log").read_text()[-2000:]


def workers_of(out: Path) -> list[int]:
    """Process ids of the workers of a study folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"clipdrift.worker" in words and str(out).encode() in words:
            found.append(int(path.parent.name))
    return found


def kill(base: Path, kills: int, seed: int) -> Killing:
    """Kill that many times, then let the last study get to its end.

    Raises:
        AssertionError: if a record is torn, lost or another one than the undisturbed study's.
    """
    rng, killing = random.Random(seed), Killing(base)
    killing.undisturbed()
    while killing.moments.total() < kills:
        killing.kill_once(rng.random() * killing.seconds_left(), workers_too=rng.random() < 0.5)
    killing.end()
    return killing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        killing = kill(Path(name), given.kills, given.seed)
    runs = len(killing.expected)
    print(f"{given.kills} kills of a study of {runs} runs that takes {killing.seconds:.1f} s")
    print(f"moments: {dict(killing.moments)}")
    print(
        f"{killing.ended} studies got to their end; every record at every check was as undisturbed"
    )
    print(f"{len(killing.resumed_inside)} records of runs that went on inside")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
