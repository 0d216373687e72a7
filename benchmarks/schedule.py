"""How long a study takes on many workers: a discrete-event simulation with measured costs.

    python benchmarks/schedule.py                            (measures a small study first)
    python benchmarks/schedule.py --study runs/quickstart    (takes the runs of a finished study)

Durations of runs are drawn from the records of a finished study, `--run-scale` times as long. What
surrounds a run is measured here, on this machine's disk; `--disk-scale` stretches what touches the
study folder, for a slower file system. Not in it: how long a scheduler leaves a job waiting.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRID = [(80, 8), (2000, 8), (2000, 64), (2000, 512), (10_000, 64), (10_000, 512)]
SCANNED = 300


@dataclass(frozen=True)
class Costs:
    """Seconds that each thing around the runs takes."""

    worker_start: float
    plan_per_run: float
    baseline: float
    scan_per_run: float
    closing: float


@dataclass(frozen=True)
class Schedule:
    """Wall seconds of a study, how much of workers x wall was runs, and where the rest went."""

    wall: float
    efficiency: float
    scan: float
    start: float
    baseline: float
    tail: float


def simulate(
    durations: Sequence[float], n_workers: int, costs: Costs, *, share: int = 1, anew: bool = False
) -> Schedule:
    """Play a study through.

    One process looks for records that are finished; then workers start together, and the first of
    them measures the baselines while the others wait. A worker that is free takes the next share
    of runs. The closing of each run passes through the one process that hands runs out.

    Args:
        durations: of the runs, in the order in which they are handed out.
        share: runs that are handed out together, as one job.
        anew: whether each share has a worker of its own, which starts for it.

    Returns:
        scan, start and baseline are seconds before the first run; tail is how long a worker is idle
        at the end, in the mean over workers.
    """
    n = len(durations)
    scan, start = n * costs.scan_per_run, costs.worker_start + n * costs.plan_per_run
    first = scan + start + costs.baseline
    free = [first] * n_workers
    dispatcher = first
    for position in range(0, n, share):
        mine = durations[position : position + share]
        now = heapq.heappop(free)
        if anew and position >= n_workers * share:
            now += start
        done = now + sum(mine)
        # Closings are served in the order of handing out, a good stand-in for that of arrival.
        dispatcher = max(dispatcher + costs.closing * len(mine), now)
        heapq.heappush(free, max(done, dispatcher))
    wall = max(free)
    return Schedule(
        wall=wall,
        efficiency=sum(durations) / (n_workers * wall),
        scan=scan,
        start=start,
        baseline=costs.baseline,
        tail=wall - statistics.fmean(free),
    )


def measure_costs(study: Path) -> tuple[Costs, dict[str, float]]:
    """Time everything around the runs of a finished study; also what the costs consist of."""
    from clipdrift.data.cache import default_cache_dir
    from clipdrift.materials import load_materials
    from clipdrift.reading.baseline_files import ensure_baselines
    from clipdrift.records import StudyFolder, atomic_write
    from clipdrift.records.claims import claim
    from clipdrift.spec import expand

    folder = StudyFolder(study)
    spec, planned = folder.read_spec(), folder.planned()
    assert spec is not None
    assert planned is not None
    run_id = next(name for name in planned if folder.record_path(name).exists())
    text = folder.record_path(run_id).read_text()
    materials = load_materials(spec, cache_dir=default_cache_dir())
    content = materials.content(spec.targets[0].name)
    per_seed = len(planned) // len(spec.seeds)
    large = spec.model_copy(update={"seeds": list(range(1, 2 + 2000 // per_seed))})

    def plan() -> None:
        for config in expand(large, precision="float32"):
            config.run_id(config.identity(content))

    def worker() -> None:
        command = [sys.executable, "-m", "clipdrift.study.worker", str(study)]
        options = ["--cache", str(default_cache_dir())]
        subprocess.run([*command, *options], stdin=subprocess.DEVNULL, check=True)

    with tempfile.TemporaryDirectory(dir=study.parent) as scratch:
        place = StudyFolder(Path(scratch))
        place.create()
        for number in range(SCANNED):
            atomic_write(place.record_path(f"r{number}"), text)

        def hold() -> None:
            with claim(Path(scratch) / "lock"):
                pass

        def scan() -> None:
            for number in range(SCANNED):
                assert place.finished(f"r{number}", planned[run_id])

        def baselines() -> None:
            for old in Path(scratch).glob("baselines/*"):
                old.unlink()
            ensure_baselines(spec, materials, place, lambda text: None)

        parts = {
            "start of a worker (imports, backbone, images)": _seconds(worker, 5),
            "expanding and hashing, per planned run": _seconds(plan, 3)
            / (per_seed * len(large.seeds)),
            "baselines of the study": _seconds(baselines, 3),
            "reading and verifying a record": _seconds(scan, 3) / SCANNED,
            "claiming a run": _seconds(hold, 200),
            "writing a record": _seconds(lambda: atomic_write(place.path / "r", text), 50),
            "plan.json of 10,000 runs": _seconds(
                lambda: place.write_plan(spec, {f"{run_id}{i}": "0" * 64 for i in range(10_000)}), 3
            ),
        }
        parts["handing out and closing a run"] = _seconds_per_key(Path(scratch))
    start, per_run, baseline, scanned, *_ = parts.values()
    costs = Costs(start, per_run, baseline, scanned, parts["handing out and closing a run"])
    return costs, parts


def _seconds(work: Callable[[], object], times: int) -> float:
    """Median of several goes after one that warms up."""
    work()
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _seconds_per_key(scratch: Path) -> float:
    """Of the local executor, with workers that answer at once."""
    from clipdrift.executors import Program
    from clipdrift.executors.local import LocalExecutor

    answer = (
        'import sys\nfor line in sys.stdin:\n print(\'{"event": "measured", "last": true, '
        '"key": "%s"}\' % line.strip(), flush=True)'
    )
    program = Program((sys.executable, "-c", answer), scratch / "logs")

    def run(n: int) -> float:
        started = time.perf_counter()
        assert (
            sum(1 for _ in LocalExecutor(2, "cpu").run(program, [f"k{i}" for i in range(n)])) == n
        )
        return time.perf_counter() - started

    return max(0.0, (run(4000) - run(1000)) / 3000)


def durations_of(study: Path) -> list[float]:
    """Wall seconds of a study's finished runs."""
    bodies = [json.loads(path.read_bytes()) for path in sorted(study.glob("runs/*/record.json"))]
    return [b["timing"]["wall_seconds"] for b in bodies if b["status"] == "finished"]


def _print_schedules(runs: list[float], costs: Costs, scale: float) -> None:
    print(
        f"\nruns of {scale:g} x the measured durations: "
        f"mean {scale * statistics.fmean(runs):.1f} s, longest {scale * max(runs):.1f} s\n"
        f"{'runs':>6} {'workers':>7} {'as':>6} {'share':>5} {'wall':>10} {'ideal':>10} "
        f"{'efficiency':>10}   seconds: scan, start, baselines, tail"
    )
    for n, workers in GRID:
        drawn = [scale * d for d in random.Random(0).choices(runs, k=n)]
        ideal = max(sum(drawn) / workers, max(drawn))
        for kind, share in (("pool", 1), ("array", 1), ("array", 4)):
            # Jobs of an array end on their own: nothing passes through the process that waits.
            own = replace(costs, closing=0.0) if kind == "array" else costs
            s = simulate(drawn, workers, own, share=share, anew=kind == "array")
            rest = ", ".join(f"{x:.1f}" for x in (s.scan, s.start, s.baseline, s.tail))
            print(
                f"{n:6,} {workers:7,} {kind:>6} {share:5} {s.wall:9,.0f}s {ideal:9,.0f}s "
                f"{s.efficiency:10.1%}   {rest}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, help="folder of a finished study")
    parser.add_argument("--run-scale", type=float, nargs="+", default=[1, 60])
    parser.add_argument("--disk-scale", type=float, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = given.study or Path(scratch) / "study"
        if given.study is None:
            from clipdrift.spec import load_spec
            from clipdrift.study.measure import run_study

            run_study(load_spec(ROOT / "studies" / "first-look.yaml"), study)
        costs, parts = measure_costs(study)
        for name, seconds in parts.items():
            print(f"{name:48} {1e3 * seconds:10,.2f} ms")
        costs = replace(costs, scan_per_run=costs.scan_per_run * given.disk_scale)
        for scale in given.run_scale:
            _print_schedules(durations_of(study), costs, scale)


if __name__ == "__main__":
    main()
