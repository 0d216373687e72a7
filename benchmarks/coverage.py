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
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
from simulated.of_images import ASKED, count
from simulated.of_runs import COUNTS, count_guesses
from simulated.shares import Table

SEEDS, IMAGES = (2, 3, 5, 10), (50, 300, 2_000)
MORE = 5
"""As many studies of runs without images as of photographs for each of them: they cost less."""


def measured(only: list[str], studies: int, seeds: list[int], images: list[int]) -> Table:
    rng, table = np.random.default_rng(0), Table()
    asked = {name: one for name, one in ASKED.items() if not only or name in only}
    for n_images in images:
        for n_seeds in seeds:
            count(table, rng, asked, studies=studies, seeds=n_seeds, images=n_images)
    for name, counted in COUNTS.items():
        for n_seeds in seeds if not only or name in only else []:
            counted(table, rng, MORE * studies, n_seeds)
    for n_images in images if not only or "guesses" in only else []:
        count_guesses(table, rng, MORE * studies, n_images)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40)
    names = [*ASKED, *COUNTS, "guesses"]
    parser.add_argument("--only", nargs="*", default=[], choices=names)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--images", type=int, nargs="*", default=IMAGES)
    parser.add_argument("--write", type=Path, help="JSON that tools/write_reference.py reads")
    asked = parser.parse_args()
    start, spent = time.perf_counter(), time.process_time()
    table = measured(asked.only, asked.studies, asked.seeds, asked.images)
    print(table.markdown())
    cpu, wall = time.process_time() - spent, time.perf_counter() - start
    print(f"{asked.studies} studies a cell; {cpu:.0f} s of CPU, {wall:.0f} s")
    if asked.write:
        told = {
            "studies": asked.studies,
            "studies_of_runs": MORE * asked.studies,
            "cpu_seconds": round(cpu),
            "machine": f"one core, {platform.machine()}",
            "date": date.today().isoformat(),
            "table": table.markdown().splitlines(),
        }
        asked.write.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
