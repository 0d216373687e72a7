"""How long analysis and report take, and how much memory: 80 and 5,000 runs from a table.

    python benchmarks/analysis_scale.py [number of runs ...]
    python benchmarks/analysis_scale.py in-full   # 24 runs, 30 sets of 1,000 images

Each size runs in a process of its own, so that its peak memory is its own.

On 2 cores (AMD EPYC, Zen 4) with nothing else to do: 80 runs take 1.5 s and 3.1 s (analysis,
report) with 319 MB, 5,000 runs 32 s and 15 s with 711 MB.
"""

from __future__ import annotations

import csv
import hashlib
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from clipdrift.analysis.files import write_analysis
from clipdrift.reading.in_full import NAMES
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.correct import Correct
from clipdrift.records.imported import import_runs
from clipdrift.records.lost_images import TABLE
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading
from clipdrift.report import write_report
from clipdrift.spec import content_hash

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


def write_in_full(folder: Path, n_sets: int = 30, n_images: int = 1000) -> StudyFolder:
    """24 made-up runs whose sets, of 20 classes, were read in full: image by image."""
    study, rng = StudyFolder(folder / "study"), np.random.default_rng(0)
    study.create()
    names = [f"set{i}" for i in range(n_sets)]
    label = np.repeat(np.arange(20), n_images // 20)
    was = {name: _taken(rng, label, 0.7) for name in names}
    lie = {f"baseline_{one}": 0.1 for one in NAMES}
    for seed, target, method, rate in product(range(3), TARGETS, METHODS, RATES[:2]):
        keys = {"target": target, "method": method, "learning_rate": rate, "seed": seed}
        identity = content_hash([*map(str, keys.values())])
        record = RunRecord(run_id=f"{target}-{method}-{rate:g}-{seed}", identity=identity,
                           status="finished", study="many sets", backbone="m", selected_epoch=1,
                           result=_drifting(rng), **keys)  # fmt: skip
        parts = []
        for name in names:
            now = np.where(rng.random(n_images) < 0.2, _taken(rng, label, 0.3), was[name])
            right, before = now == label, was[name] == label
            a, b = float(right.mean()), float(before.mean())
            read = {one: float(rng.random()) for one in NAMES} | lie
            read |= {"lost_pp": 100 * (b - a), "gone_pp": 50 * (b - a)}
            read |= {"misaligned_pp": 50 * (b - a)}
            record.result.transfer[name] = TransferReading(
                accuracy=a, baseline_accuracy=b, retention_pct=100 * a / b, n_images=n_images,
                chance_corrected_retention_pct=100 * (a - 0.05) / (b - 0.05), n_classes=20,
                delta_accuracy_pp=100 * (a - b), in_full=read)  # fmt: skip
            bits = {"accuracy": right, "baseline_accuracy": before}
            record.result.correct |= {
                f"transfer.{name}.{k}": Correct.of(v) for k, v in bits.items()
            }
            margins = np.where(right, 0.1, -0.1) + 0.05 * rng.random(n_images)
            parts.append(pd.DataFrame({
                "set": name, "image": np.arange(n_images), "label": [f"class {c}" for c in label],
                "predicted": [f"class {c}" for c in now], "margin": margins.astype(np.float32),
                "baseline_predicted": [f"class {c}" for c in was[name]], "similarity": 0.5,
                "baseline_margin": np.float32(0.1), "nearest_target": "road"}))  # fmt: skip
        path = study.run_path(record.run_id) / TABLE
        path.parent.mkdir(parents=True)
        pd.concat(parts).to_parquet(path, compression="zstd")
        record.files = {TABLE: hashlib.sha256(path.read_bytes()).hexdigest()}
        atomic_write(study.record_path(record.run_id), record.to_json())
    return study


def _drifting(rng: np.random.Generator) -> Result:
    drift = {name: float(rng.normal()) for name in DRIFTS}
    return Result(val_accuracy=0.9 + 0.05 * rng.random(), test_accuracy=0.9, test_loss=0.3,
                  test_n_images=1000, drift=drift)  # fmt: skip


def _taken(rng: np.random.Generator, label: np.ndarray, right: float) -> np.ndarray:
    return np.where(rng.random(len(label)) < right, label, rng.integers(0, 20, len(label)))


def measure_in_full() -> None:
    """Seconds of CPU too: one thread does it, and other work on the machine counts for little."""
    with tempfile.TemporaryDirectory() as name:
        study = write_in_full(Path(name))
        for work, path in (
            (write_analysis, study.analysis_path),
            (write_report, study.report_path),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            work(study)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = path.stat().st_size / 1e6
            told = f"{work.__name__}: {wall:.1f} s, {cpu:.1f} s of CPU"
            print(f"{told}; {path.name} {size:.1f} MB", flush=True)


def measure(n_runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder, n_runs)
        start = time.perf_counter()
        import_runs(folder / "runs.csv", folder / "map.yaml", folder / "study")
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
    if "in-full" in sys.argv:
        measure_in_full()
        return
    if "--one" in sys.argv:
        measure(int(sys.argv[-1]))
        return
    for n_runs in [int(text) for text in sys.argv[1:]] or SIZES:
        subprocess.run([sys.executable, __file__, "--one", str(n_runs)], check=True)


if __name__ == "__main__":
    main()
