"""Fuzz every reader of files from outside, each in a process of its own that is watched.

    python tools/run_fuzz.py                          # 2,000 inputs for each target and engine
    python tools/run_fuzz.py --inputs 20000 --target "study file" --engine atheris
    python tools/run_fuzz.py --out fuzz/ --markdown   # keep corpora and findings; print a table

Engines: hypothesis (inputs of the right form) and atheris (coverage-guided; the extra `fuzz`). What
counts as a finding is in tests/fuzz/judge.py; an input that takes more than 5 s of computing, that
needs more than 1 GB, or that ends its process is one too. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
ENGINES = ("hypothesis", "atheris")
STATE = struct.Struct("<Qd")
MAX_SECONDS = 5.0
"""Of computing, for one input; of the clock, which other work lengthens, 12 times as many."""
MAX_RESIDENT = 3 * 2**30
"""The worker itself tells inputs above 1 GB; the watchdog ends one that goes on growing."""
ADDRESS_SPACE = 16 * 2**30
MAX_RESTARTS = 25


@dataclass
class Tally:
    """What one target saw from one engine."""

    target: str
    engine: str
    inputs: int
    seconds: float
    corpus: int
    findings: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--inputs",
        type=int,
        default=2000,
        help="for each target and engine; slow readers get a stated share",
    )
    parser.add_argument("--target", action="append", help="name of a target; default: all")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: both")
    parser.add_argument("--jobs", type=int, default=1, help="workers at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fuzz")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    asked = parser.parse_args()
    work = [
        (name, engine, max(1, round(share * asked.inputs)))
        for name, share, guided in targets(asked.target)
        for engine in engines(asked.engine)
        if guided or engine != "atheris"
    ]
    with ThreadPoolExecutor(asked.jobs) as pool:
        tallies = list(
            pool.map(lambda part: run(*part, asked.seed, asked.out / part[1] / slug(part[0])), work)
        )
    print(table(tallies, markdown=asked.markdown))
    with (asked.out / "tallies.jsonl").open("a") as file:
        file.writelines(json.dumps(asdict(tally)) + "\n" for tally in tallies)
    sys.exit(any(tally.findings for tally in tallies))


def engines(asked: list[str] | None) -> list[str]:
    chosen = asked or list(ENGINES)
    if "atheris" in chosen and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (pip install '.[fuzz]'): hypothesis alone", file=sys.stderr)
        chosen = [engine for engine in chosen if engine != "atheris"]
    return chosen


def targets(asked: list[str] | None) -> list[tuple[str, float, bool]]:
    """Names of targets, their share of the inputs asked for, whether coverage can guide them."""
    from fuzz.catalogue import TARGETS

    if unknown := set(asked or ()) - set(TARGETS):
        sys.exit(f"--target: expected one of {', '.join(TARGETS)}, got {', '.join(unknown)}.")
    found = [TARGETS[name] for name in asked or TARGETS]
    return [(target.name, target.share, target.coverage_guided) for target in found]


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def run(name: str, engine: str, inputs: int, seed: int, folder: Path) -> Tally:
    """Feed one target until `inputs` were seen; a worker that ends early is started again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(STATE.pack(0, 0.0))
    started, done = time.monotonic(), 0
    for attempt in range(MAX_RESTARTS):
        words = [name, engine, str(inputs - done), str(seed + 100 * attempt), str(folder)]
        ending = watch(words, folder)
        before, done = done, count(folder)
        if ending is None:
            break
        done += 1  # the input that ended the worker was fed, but not counted
        (folder / "state").write_bytes(STATE.pack(done, 0.0))
        note(folder, *ending)
        if done >= inputs or done == before:
            break
    tally = Tally(
        name,
        engine,
        done,
        time.monotonic() - started,
        len(list((folder / "corpus").glob("*"))),
        len(findings(folder)),
    )
    print(f"{name} ({engine}): {tally.inputs} inputs, {tally.findings} findings", file=sys.stderr)
    return tally


def watch(words: list[str], folder: Path) -> tuple[str, str] | None:
    """Run one worker; None if it ended well, else the kind of finding and what was seen."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    log = (folder / "log").open("ab")
    worker = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "fuzz" / "worker.py"), *words],
        env=environment,
        cwd=folder,
        stdout=log,
        stderr=log,
        preexec_fn=limit,
    )
    seen, computed = 0.0, 0.0
    try:
        while worker.poll() is None:
            time.sleep(0.05)
            _, began = STATE.unpack((folder / "state").read_bytes())
            if began != seen:
                seen, computed = began, cpu_seconds(worker.pid)
            waited, busy = time.monotonic() - began, cpu_seconds(worker.pid) - computed
            if began and (busy > MAX_SECONDS or waited > 12 * MAX_SECONDS):
                return "hang", f"not done after {busy:.0f} s of computing, {waited:.0f} in all"
            if resident(worker.pid) > MAX_RESIDENT:
                return "memory", "more than 3 GB"
    finally:
        worker.kill()
        worker.wait()
        log.close()
    if worker.returncode == 0:
        return None
    return "crash", f"the process ended with {worker.returncode}"


def limit() -> None:
    """Last line of defence, in the worker before it starts: no larger than this, no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    """What a process has computed; 0 of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count(folder: Path) -> int:
    return int(STATE.unpack((folder / "state").read_bytes())[0])


def note(folder: Path, kind: str, text: str) -> None:
    """Keep the input that ended a worker beside what the workers noted themselves."""
    number = len(list(folder.glob("input-*")))
    kept = folder / f"input-{number}"
    if (folder / "current").exists():
        shutil.copy(folder / "current", kept)
    line = json.dumps({"kind": kind, "place": str(kept), "text": text})
    with (folder / "findings.jsonl").open("a") as file:
        file.write(line + "\n")


def findings(folder: Path) -> set[tuple[str, str]]:
    """Findings told apart by kind and place."""
    path = folder / "findings.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {(found["kind"], found["place"]) for found in map(json.loads, lines)}


def table(tallies: list[Tally], *, markdown: bool) -> str:
    total = sum(tally.inputs for tally in tallies)
    heads = ["target", "engine", "inputs", "seconds", "corpus", "findings"]
    rows = [
        [
            t.target,
            t.engine,
            f"{t.inputs:,}",
            f"{t.seconds:.0f}",
            str(t.corpus or ""),
            str(t.findings),
        ]
        for t in tallies
    ]
    seconds = f"{sum(t.seconds for t in tallies):.0f}"
    rows.append(["all", "", f"{total:,}", seconds, "", str(sum(t.findings for t in tallies))])
    if markdown:
        lines = [heads, ["---"] * len(heads), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heads, *rows]
    )


if __name__ == "__main__":
    main()
