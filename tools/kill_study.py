"""Kill a small study with SIGKILL at random moments and hold what it leaves to an undisturbed one.

    python tools/kill_study.py --kills 100
    python tools/kill_study.py --kills 25 --seed 3 --folder DIR   # pieces that add up

Each round starts the study and kills it: at a moment drawn evenly over the time that is left of it,
or, as these take milliseconds, at one at which a state is being saved or a run recorded. Half of
the former and all of the latter take the workers along, as a power cut would; the rest leave them
without their parent. Then every record on disk must be valid, none lost, and each the one that the
undisturbed study wrote. A study that gets to its end before it is killed is compared as a whole,
files, tables and report included, and the next one starts in an empty folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from forked import command, start, workers_of
from kill_phases import RECORD, Kill, Watch

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

AIMS = ("any", "any", "any", "saving", "recording")
RECORDING_SECONDS = 0.05
"""About how long a run takes from its first file to its record."""
ANALYSING = 0.5
"""About the share of the time of a study in which it has no runs to do."""
AT_MOST = 2
"""Kills of one study while it is analysed; then it is left to get to its end."""


@dataclass
class Killing:
    """A study, the cache it may use, and what its records must be."""

    base: Path
    cache: Path
    study: dict[str, Any]
    tell: Callable[[str], None]
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    resumed_inside: set[str] = field(default_factory=set)
    ended: int = 0
    recorded: set[str] = field(default_factory=set)
    kills_after_runs: int = 0

    @property
    def out(self) -> Path:
        return self.base / f"out-{self.ended}"

    def start(self, out: Path) -> Any:
        options = ("--workers", "2", "--cpus-per-run", "1", "--device", "cpu")
        return self._run("run", "--out", str(out), "--cache", str(self.cache), *options)

    def _run(self, verb: str, *options: str) -> Any:
        spec = self.base / "study.yaml"
        spec.write_text(yaml.safe_dump(self.study))
        saves = ("--checkpoint-seconds", "0")  # after every epoch
        return start(command, verb, str(spec), *options, log=self.base / "log", worker=saves)

    def undisturbed(self) -> None:
        """Know how long a study takes with images prepared, and what it leaves."""
        times = self.base / "seconds.json"
        if not times.exists():
            process = self._run("check", "--cache", str(self.cache))  # prepares the images
            process.join()
            times.write_text(json.dumps(self._finish(self.base / "whole")))
        self.seconds = json.loads(times.read_text())
        self.expected = self.records(self.base / "whole")

    def records(self, out: Path) -> dict[str, Any]:
        """Run id -> all of its record but times. Fails if a record is damaged."""
        from clipdrift.records import read_record

        found = {}
        for path in out.glob(f"runs/*/{RECORD}"):
            record = read_record(path)
            if record.timing.get("interruptions"):
                self.resumed_inside.add(record.checksum)
            body = record.model_dump(mode="json", exclude={"timing", "checksum"})
            for epoch in body["history"]:
                epoch.pop("train_seconds")
            found[record.run_id] = body
        return found

    def kill_once(self, aim: str, moment: float, *, workers_too: bool) -> None:
        """Start, wait, kill, check; `moment` is a fraction of the time that is left.

        A command that gets to its end before is checked as a whole and counts as no kill.
        """
        done = len(self.recorded) == len(self.expected)
        if done and self.kills_after_runs == AT_MOST:
            self.end()
            return
        watch = Watch.over(self.out, self.base / "log")
        process = self.start(self.out)
        if aim == "any" or done:
            process.join(moment * self.seconds * (ANALYSING if done else 1))
        elif _sees(process, watch, aim) and aim == "recording":
            time.sleep(moment * RECORDING_SECONDS)
        killed = workers_of(self.out) if workers_too else []
        for pid in [process.pid, *killed] if process.is_alive() else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            self._end()
            return
        assert process.exitcode == -signal.SIGKILL, self._last_words()
        self.kills_after_runs += done
        self.kills.append(watch.killed(workers_too=workers_too))
        self.tell(f"{len(self.kills):3} {self.kills[-1]}")
        self.check()

    def end(self) -> None:
        """Let the study get to its end, and compare."""
        self._finish(self.out)
        self._end()

    def check(self) -> None:
        """Every record there is is whole, is the undisturbed one, and none was lost."""
        found = self.records(self.out)
        for run_id, body in found.items():
            other = [name for name, value in body.items() if value != self.expected[run_id][name]]
            assert not other, f"{run_id}: {other} are not those of the undisturbed study"
        assert self.recorded <= found.keys(), "a finished run was lost"
        self.recorded = set(found)

    def _end(self) -> None:
        from clipdrift.records import StudyFolder
        from clipdrift.report import audit_report

        self.check()
        whole = self.base / "whole"
        assert files(self.out) == files(whole), files(self.out) ^ files(whole)
        for table in (whole / "tables").glob("*.csv"):
            if table.name != "runs.csv":  # it tells times
                other = self.out / "tables" / table.name
                assert other.read_bytes() == table.read_bytes(), f"{table.name} differs"
        assert audit_report(StudyFolder(self.out)) == []
        shutil.rmtree(self.out)
        self.recorded, self.ended, self.kills_after_runs = set(), self.ended + 1, 0

    def _finish(self, out: Path) -> float:
        began = time.monotonic()
        process = self.start(out)
        process.join()
        assert process.exitcode == 0, self._last_words()
        return time.monotonic() - began

    def _last_words(self) -> str:
        return (self.base / "log").read_text()[-2000:]


def _sees(process: Any, watch: Watch, phase: str) -> bool:
    """Wait until a study is at something that takes milliseconds; False if it never is."""
    while process.is_alive():
        if watch.phase() == phase:
            return True
        time.sleep(0.0005)
    return False


def files(out: Path) -> set[str]:
    """Names of what a study leaves, but for logs, locks and half-written files."""
    names = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return {name for name in names if not name.startswith((".", "logs/")) and "/." not in name}


def kill(
    base: Path,
    kills: int,
    seed: int,
    *,
    cache: Path | None = None,
    study: dict[str, Any] = STUDY,
    tell: Callable[[str], None] = print,
) -> Killing:
    """Kill that many times, then let the last study get to its end.

    Raises:
        AssertionError: if a record is torn, lost or another one than the undisturbed study's, or
            if a study that ended has other files, tables or a report that is not its records'.
    """
    rng, killing = random.Random(seed), Killing(base, cache or base / "cache", study, tell)
    killing.undisturbed()
    shutil.rmtree(killing.out, ignore_errors=True)  # of a piece that failed
    while len(killing.kills) < kills:
        aim, moment = rng.choice(AIMS), rng.random()
        killing.kill_once(aim, moment, workers_too=aim != "any" or rng.random() < 0.5)
    killing.end()
    return killing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps the undisturbed study for more pieces")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        base = given.folder or Path(name)
        base.mkdir(parents=True, exist_ok=True)
        killing = kill(base, given.kills, given.seed)
    phases = Counter(kill.phase for kill in killing.kills)
    print(
        f"{given.kills} kills (seed {given.seed}) of a study of {len(killing.expected)} runs that "
        f"takes {killing.seconds:.1f} s, in {time.monotonic() - began:.0f} s"
    )
    print(", ".join(f"{n} {phase}" for phase, n in phases.most_common()))
    print(f"with all workers: {sum(kill.workers_too for kill in killing.kills)}")
    print(
        f"{killing.ended} studies got to their end, {len(killing.resumed_inside)} records are of "
        "runs that went on inside; nothing differed from the undisturbed study"
    )


if __name__ == "__main__":
    main()
