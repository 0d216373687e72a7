"""One process that feeds many inputs to one target; its parent watches it.

usage: worker.py TARGET ENGINE INPUTS SEED FOLDER

Before each input, FOLDER/current holds it and FOLDER/state says when it began; findings go to
FOLDER/findings.jsonl. So a crash, a hang or a kill leaves the input that was to blame.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GIGABYTE = 2**30
STATE = struct.Struct("<Qd")
INSTRUMENTED = ["clipdrift", "yaml"]
BATCH = 5_000


class Bench:
    """Feeds inputs, counts them, and notes what must not happen, each place once."""

    def __init__(self, target: Any, judge: Any, folder: Path) -> None:
        self.target, self.judge, self.folder = target, judge, folder
        with (folder / "state").open("r+b") as file:
            self.state = mmap.mmap(file.fileno(), STATE.size)
        self.count = STATE.unpack(self.state[:])[0]
        self.known: set[tuple[str, str]] = set()
        self.idle = _peak_memory()

    def feed(self, data: bytes) -> None:
        (self.folder / "current").write_bytes(data)
        self.state[:] = STATE.pack(self.count, time.monotonic())
        found = self.judge(self.target, data)
        self.count += 1
        self.state[:] = STATE.pack(self.count, 0.0)
        if found is not None:
            self._note(found.kind, found.place, found.text, data)
        grown = _peak_memory() - self.idle
        if grown > GIGABYTE:
            self._note("memory", "peak", f"{grown / GIGABYTE:.2f} GB above the idle process", data)
            Path("/proc/self/clear_refs").write_text("5")

    def _note(self, kind: str, place: str, text: str, data: bytes) -> None:
        if (kind, place) in self.known:
            return
        self.known.add((kind, place))
        shown = base64.b64encode(data[:200_000]).decode()
        line = json.dumps({"kind": kind, "place": place, "text": text, "input": shown})
        with (self.folder / "findings.jsonl").open("a") as file:
            file.write(line + "\n")


def _peak_memory() -> int:
    """Peak resident bytes of this process since it was last reset."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _hypothesis(bench: Bench, inputs: int, seed: int) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded

    goal, round_ = bench.count + inputs, 0
    while bench.count < goal:
        before = bench.count

        @seeded(seed * 1000 + round_)
        @settings(
            max_examples=min(BATCH, goal - bench.count),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(bench.target.inputs())
        def run(data: bytes) -> None:
            bench.feed(data)

        run()
        round_ += 1
        if bench.count == before:  # every input there is was fed
            break


def _atheris(bench: Bench, inputs: int, seed: int, corpus: Path) -> None:
    """What the engine finds is fed as it is, and as the choices that shape an input."""
    import atheris

    goal = bench.count + inputs

    def feed(data: bytes) -> None:
        bench.feed(data)
        if shaped is not None:
            shaped(data)
        if bench.count >= goal:
            os._exit(0)

    shaped = _from_choices(bench) if bench.target.shaped else None
    corpus.mkdir(exist_ok=True)
    for i, data in enumerate(bench.target.seeds()):
        (corpus / f"seed-{i}").write_bytes(data)
    longest = max(len(data) for data in bench.target.seeds())
    options = [f"-seed={seed + 1}", f"-max_len={max(4096, longest + 1024)}"]
    quiet = ["-rss_limit_mb=0", "-timeout=600", "-print_final_stats=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, *quiet, str(corpus)], feed)
    atheris.Fuzz()


def _from_choices(bench: Bench) -> Callable[[bytes], object]:
    """Inputs of the right form, drawn with an engine's bytes in the place of chance."""
    from hypothesis import given, settings

    @settings(deadline=None, database=None)
    @given(bench.target.shaped())
    def run(data: bytes) -> None:
        bench.feed(data)

    found: Callable[[bytes], object] = run.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    return found


def main() -> None:
    name, engine, inputs, seed, folder = sys.argv[1:]
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
            from fuzz.catalogue import TARGETS
            from fuzz.judge import judge
    else:
        from fuzz.catalogue import TARGETS
        from fuzz.judge import judge
    target = TARGETS[name]
    judge(target, target.seeds()[0])  # what is imported late is no input's doing
    bench = Bench(target, judge, Path(folder))
    if engine == "atheris":
        _atheris(bench, int(inputs), int(seed), Path(folder) / "corpus")
    else:
        _hypothesis(bench, int(inputs), int(seed))
    os._exit(0)


if __name__ == "__main__":
    main()
