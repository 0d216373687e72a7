"""How long analysis and report take, and how much memory: 80 and 5,000 runs from a table.

    python benchmarks/analysis_scale.py [number of runs ...]

Each size runs in a process of its own, so that its peak memory is its own.

On 2 cores (AMD EPYC, Zen 4) with nothing else to do: 80 runs take 1.5 s and 3.1 s (analysis,
report) with 319 MB, 5,000 runs 32 s and 15 s with 711 MB.
"""

from __future__ import annotations

import csv
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from clipdrift.analysis.files import write_analysis
from clipdrift.records import StudyFolder
from clipdrift.records.imported import import_csv
from clipdrift.report import write_report

SIZES = (80, 5_000)
TARGETS, METHODS, RATES = ("eurosat", "pets"), ("full_ft", "lora"), (1e-6, 5e-6, 1e-5, 5e-5)
DRIFTS = [f"signal_{i}" for i in range(14)] + ["cka_mean", "weight_drift_rel", "cls_entropy_pct"]
EXTRAS = [f"extra_{i}" for i in range(6)]
KEYS = {"dataset": "target", "method": "method", "rate": "lr", "seed": "seed", "model": "backbone"}


def columns() -> dict[str, str]:
    """Column of the table -> field; 54 of them metrics, and the extras beside them."""
    fields = dict(KEYS)
    fields |= {name: name for name in ("val_accuracy", "test_accuracy", "epoch1.val_accuracy")}
    for transfer, part in product(("cifar100", "cifar10"), ("accuracy", "retention_pct")):
        fields |= {
            f"{p}{transfer}_{part}": f"{p}transfer.{transfer}.{part}" for p in ("", "epoch1.")
        }
    for name in DRIFTS:
        fields |= {f"{p}{name}": f"{p}drift.{name}" for p in ("", "epoch1.")}
    return fields


def write_table(folder: Path, n_runs: int) -> None:
    """A crossed study with a dose effect and noise; beyond 80 runs more targets, methods, seeds."""
    rng = np.random.default_rng(0)
    scale = max(1.0, n_runs / 80)
    targets = [*TARGETS, *(f"target_{i}" for i in range(3 if scale > 10 else 0))]
    methods = [*METHODS, *(f"method_{i}" for i in range(2 if scale > 10 else 0))]
    n_seeds = math.ceil(n_runs / (len(targets) * len(methods) * len(RATES)))
    grid = list(product(range(n_seeds), targets, methods, RATES))[:n_runs]
    fields = columns()
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*fields, *EXTRAS])
        for seed, target, method, rate in grid:
            keys = {"dataset": target, "method": method, "rate": rate, "seed": seed, "model": "m"}
            dose = math.log10(rate) + 6 - 0.5 * methods.index(method)
            row = [keys.get(name, _metric(field, dose, rng)) for name, field in fields.items()]
            writer.writerow([*row, *rng.normal(size=len(EXTRAS))])
    lines = [f"  {name}: {field}" for name, field in fields.items()]
    (folder / "map.yaml").write_text("\n".join(["columns:", *lines, "units: {transfer: fraction}"]))


def _metric(field: str, dose: float, rng: np.random.Generator) -> float:
    noise = float(rng.normal())
    if field.endswith("accuracy"):
        return min(1.0, max(0.0, 0.9 + 0.02 * dose + 0.005 * noise))
    if field.endswith("retention_pct"):
        return 90 - 20 * dose + 2 * noise
    return 10 ** (dose - 2 + 0.1 * noise)


def measure(n_runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder, n_runs)
        start = time.perf_counter()
        import_csv(folder / "runs.csv", folder / "map.yaml", folder / "study")
        imported = time.perf_counter()
        result = write_analysis(StudyFolder(folder / "study"))
        analyzed = time.perf_counter()
        page = write_report(StudyFolder(folder / "study"))
        done = time.perf_counter()
        sizes = [path.stat().st_size / 1e6 for path in (folder / "study" / "analysis.json", page)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    n_rows = sum(len(rows) for rows in result.values() if isinstance(rows, list))
    print(
        f"{n_runs:6d} runs: import {imported - start:6.2f} s, "
        f"analyze {analyzed - imported:6.2f} s, report {done - analyzed:6.2f} s; {n_rows} rows, "
        f"analysis.json {sizes[0]:.1f} MB, report.html {sizes[1]:.1f} MB, "
        f"peak memory {peak:.0f} MB",
        flush=True,
    )


def main() -> None:
    if "--one" in sys.argv:
        measure(int(sys.argv[-1]))
        return
    for n_runs in [int(text) for text in sys.argv[1:]] or SIZES:
        subprocess.run([sys.executable, __file__, "--one", str(n_runs)], check=True)


if __name__ == "__main__":
    main()
