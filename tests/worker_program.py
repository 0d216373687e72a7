"""A small program in place of a worker, for tests of executors: keys in, JSON lines out.

Keys that begin with `die` end it each time, with `once` the first time; `hang` waits for ever,
`long` does so the first time only.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from clipdrift.executors import Program

SOURCE = """
import json, os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    key = line.strip()
    first = not (here / key).exists()
    def say(**event):
        print(json.dumps({"key": key, **event}), flush=True)
    with open(here / "log", "a") as log:
        log.write(f"{key} {os.getpid()}\\n")
    (here / key).touch()
    say(event="epoch", epoch=1)
    if key.startswith("die") or key.startswith("once") and first:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if key.startswith("hang") or key.startswith("long") and first:
        time.sleep(600)
    seen = {"threads": os.environ["OMP_NUM_THREADS"], "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
    say(event="measured", last=True, given=sys.argv[2:], **seen)
"""


def program(folder: Path) -> Program:
    return Program((sys.executable, "-c", SOURCE, str(folder)), folder / "logs")


STUBBORN = """
import json, signal, sys, time
def slow(*_):
    time.sleep(float(sys.argv[1]))
    open(sys.argv[2], "w").write("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, slow)
for line in sys.stdin:
    print(json.dumps({"event": "epoch", "key": line.strip()}), flush=True)
    time.sleep(600)
"""


def stubborn(folder: Path, needs: float, file: Path) -> Program:
    """A worker that is told to stop takes so many seconds, then writes a file and ends."""
    command = (sys.executable, "-c", STUBBORN, str(needs), str(file))
    return Program(command, folder / "logs")


def handed_out(folder: Path) -> Counter[str]:
    """Key -> how often a worker was given it."""
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


def process_of(folder: Path, key: str) -> int:
    """The process that was given a key last."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return int([pid for name, pid in lines if name == key][-1])
