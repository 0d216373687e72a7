"""How often the intervals that the tool prints hold the truth, and how often its verdicts err.

    python benchmarks/coverage.py [--studies 40] [--only NAME ...] [--write docs/coverage.json]

Studies are made up (`simulated`), so that the truth is known, and put through the package's own
functions. Each number is the mean over studies of the share of rows of a study whose interval holds
the truth, or whose verdict is wrong, with the Monte Carlo error of that mean. Rows without an
interval are left out and counted in brackets.

An interval that draws seeds is held against the truth over all seeds there are on the images at
hand, one that draws seeds and images against that over all images as well. Where it says nothing
else it draws seeds. `--only` asks one question of more studies.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
from simulated.of_images import ASKED, count
from simulated.of_runs import COUNTS, count_guesses
from simulated.shares import Table

SEEDS, IMAGES = (2, 3, 5, 10), (50, 300, 2_000)
GUESSES = "guesses"
MORE = 5
"""As many studies of runs without images as of photographs for each of them: they cost less."""


def measured(
    only: list[str], studies: int, seeds: list[int], images: list[int], jobs: int = 1
) -> tuple[Table, float]:
    """The table and the seconds of CPU; the same whatever the number of jobs."""
    asked = {name for name in (*ASKED, *COUNTS, GUESSES) if not only or name in only}
    tasks = [(asked & set(ASKED), studies, n_seeds, n) for n in images for n_seeds in seeds]
    tasks += [({name}, MORE * studies, n, 0) for name in COUNTS if name in asked for n in seeds]
    tasks += [({GUESSES}, MORE * studies, 0, n) for n in images if GUESSES in asked]
    table, spent = Table(), 0.0
    with ProcessPoolExecutor(jobs) as pool:
        for found, seconds in pool.map(_counted, *zip(*tasks, strict=True)):
            table.merge(found)
            spent += seconds
    return table, spent


def _counted(asked: set[str], studies: int, seeds: int, images: int) -> tuple[Table, float]:
    """What one cell of the table gives to each line."""
    rng, table, start = np.random.default_rng([seeds, images]), Table(), time.process_time()
    if asked & set(ASKED):
        own = {name: one for name, one in ASKED.items() if name in asked}
        count(table, rng, own, studies=studies, seeds=seeds, images=images)
    for name in asked & set(COUNTS):
        COUNTS[name](table, rng, studies, seeds)
    if GUESSES in asked:
        count_guesses(table, rng, studies, images)
    return table, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40)
    names = [*ASKED, *COUNTS, GUESSES]
    parser.add_argument("--only", nargs="*", default=[], choices=names)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--images", type=int, nargs="*", default=IMAGES)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--write", type=Path, help="JSON that tools/write_reference.py reads")
    asked = parser.parse_args()
    start = time.perf_counter()
    table, cpu = measured(asked.only, asked.studies, asked.seeds, asked.images, asked.jobs)
    print(table.markdown())
    wall = time.perf_counter() - start
    print(f"{asked.studies} studies a cell; {cpu:.0f} s of CPU, {wall:.0f} s")
    if asked.write:
        _write(asked.write, asked.only, asked.studies, round(cpu), table)


def _write(path: Path, only: list[str], studies: int, cpu_seconds: int, table: Table) -> None:
    """Put a table beside those of other questions, in place of an earlier one of the same."""
    told = {
        "only": sorted(only),
        "studies": studies,
        "studies_of_runs": MORE * studies,
        "cpu_seconds": cpu_seconds,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": date.today().isoformat(),
        "table": table.markdown().splitlines(),
    }
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [one for one in before if one["only"] != told["only"]]
    text = json.dumps([*kept, told], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
