"""What a run costs beyond its steps and readings: load, prove, keep, save, hash, record.

    python benchmarks/overhead.py               # about two minutes on two cores

One run of `mini-clip` as the quickstart makes it, and one of a ViT-B/32 with random weights, two
steps and few images. Readings are timed where they are called; what is left of the run is overhead.
"""

from __future__ import annotations

import functools
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

from preset_cost import on_noise, short

from clipdrift.machine.devices import available_cores
from clipdrift.materials import load_materials
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.records import StudyFolder
from clipdrift.run.measure import Run
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.plan import plan_runs

STUDIES = Path(__file__).parents[1] / "studies"
READINGS = ("reading.gauge.read_drift", "reading.target.classify",
            "reading.screening.Predictor.classes")  # fmt: skip
OVERHEADS = ("run.measure.build", "reading.gauge.assert_adapted", "run.measure.file_hashes",
             "run.measure.save_attention_pictures",
             "run.measure.write_probe_table", "run.measure.provenance",
             "methods.adapted.AdaptedModel.save",
             "methods.adapted.AdaptedModel.snapshot")  # fmt: skip


@contextmanager
def timed(names: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """Seconds spent in each of these functions of clipdrift's while this is open."""
    spent: dict[str, float] = defaultdict(float)

    def wrapped(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                spent[name] += time.perf_counter() - started

        return call

    with ExitStack() as stack:
        for name in names:
            target = f"clipdrift.{name}"
            stack.enter_context(patch(target, wrapped(name, resolve_name(target))))
        yield spent


def measure(title: str, spec: StudySpec, folder: Path) -> None:
    study = StudyFolder(folder)
    study.create()
    started = time.perf_counter()
    materials = load_materials(spec, cache_dir=folder)
    loaded = time.perf_counter() - started
    ensure_baselines(spec, materials, study, lambda text: None)
    planned = plan_runs(spec, materials)[0]
    with timed(READINGS + OVERHEADS) as spent:
        started = time.perf_counter()
        gauge = Gauge.of_run(planned.config, materials, study)
        record = Run(
            planned.config, materials, gauge, study=spec.name, identity=planned.identity,
            folder=study, device="cpu", on_epoch=lambda event: None,
        ).record()  # fmt: skip
        wall = time.perf_counter() - started
    training = float(record.timing["train_seconds"] or 0)
    readings = sum(spent[name] for name in READINGS)
    over = wall - training - readings
    rows = [("backbone and images, once a process", loaded), ("run", wall), ("training", training)]
    rows += [("readings", readings), (f"overhead, {over / wall:.1%} of the run", over)]
    rows += [(f"of it `{name}`", spent[name]) for name in OVERHEADS]
    print(f"\n## {title}\n\n| | s |\n|---|---|")
    print("\n".join(f"| {what} | {seconds:.2f} |" for what, seconds in rows), flush=True)


def main() -> None:
    print(f"{platform.machine()}, {available_cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as name:
        quickstart = load_spec(STUDIES / "quickstart.yaml")
        targets = [t for t in quickstart.targets if t.name == "digits"]
        small = quickstart.model_copy(update={"targets": targets, "precision": "float32"})
        measure("A quickstart run (mini-clip, full fine-tuning)", small, Path(name) / "small")
        if "--quick" in sys.argv:
            return
    with on_noise("leakage-free-66") as (spec, folder):
        measure("ViT-B/32, full fine-tuning, two steps", short(spec), folder / "study")


if __name__ == "__main__":
    main()
