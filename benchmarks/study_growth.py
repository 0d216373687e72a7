"""How the time of a small study grows with its runs and with worker processes.

    python benchmarks/study_growth.py           # about three minutes on two cores

Runs of `mini-clip` as the quickstart makes them on its digits, but of one epoch. Every study has a
new folder and prepared images; its time is that of `run_study` in a process that has imported it:
plan, start workers, measure the baseline, train, read, record, end workers. No report.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from shapes import machine

from clipdrift.records import read_record
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.measure import run_study

STUDIES = Path(__file__).parents[1] / "studies"
COUNTS = (1, 2) if "--tiny" in sys.argv else (1, 2, 4, 8, 16, 32, 48)
BY_ONE_WORKER = COUNTS[-3:-2] if len(COUNTS) > 2 else (2,)


def study_of(runs: int) -> StudySpec:
    """As many seeds of full fine-tuning."""
    spec = load_spec(STUDIES / "quickstart.yaml")
    changes = {
        "targets": [t for t in spec.targets if t.name == "digits"],
        "methods": [m for m in spec.methods if m.name == "full_ft"],
        "learning_rates": spec.learning_rates[:1],
        "seeds": list(range(runs)),
        "schedule": spec.schedule.model_copy(update={"epochs": 1}),
    }
    return spec.model_copy(update=changes)


def measure(runs: int, workers: int, out: Path) -> tuple[float, float, float]:
    """Seconds in all, seconds of worker time inside runs, largest peak memory of a worker in GB."""
    spec, cache = study_of(runs), out.parent / "cache"
    started = time.perf_counter()
    done = run_study(spec, out, workers=workers, device="cpu", cache_dir=cache)
    wall = time.perf_counter() - started
    timings = [read_record(path).timing for path in sorted((out / "runs").glob("*/record.json"))]
    assert done.measured == len(timings) == runs
    inside = sum(timing["wall_seconds"] or 0.0 for timing in timings)
    return wall, inside, max(timing["peak_memory_bytes"] or 0.0 for timing in timings) / 1e9


def main() -> None:
    print(machine())
    print("runs workers  seconds  s/run  in runs, s of worker time  of all  peak GB a worker")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        measure(1, 1, root / "first")  # prepares the images
        for workers, counts in ((2, COUNTS), (1, BY_ONE_WORKER)):
            for runs in counts:
                wall, inside, peak = measure(runs, workers, root / f"{runs}-{workers}")
                busy = inside / (wall * min(workers, runs))
                print(
                    f"{runs:4} {workers:7} {wall:8.1f} {wall / runs:6.2f} {inside:26.1f} "
                    f"{busy:7.0%} {peak:17.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
