"""A whole study: plan it, measure what is missing, say where it stands.

Running it again resumes: runs with a valid record under the same identity are kept, everything
else is measured. A changed study, backbone or dataset has other identities and reuses nothing.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipdrift.data.cache import default_cache_dir
from clipdrift.errors import Fault, RecordError, StudyFolderError
from clipdrift.executors.local import Event, LocalWorkers
from clipdrift.materials import load_materials
from clipdrift.plan import PlannedRun, ensure_baselines, plan_runs, settle_precision
from clipdrift.provenance import provenance, supports_bfloat16
from clipdrift.records import RunRecord, StudyFolder, atomic_write, read_record
from clipdrift.spec import StudySpec
from clipdrift.worker import strict_float32

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """What a call of `run_study` did, in numbers of runs."""

    folder: StudyFolder
    total: int
    kept: int
    measured: int
    diverged: int
    failed: dict[str, str]
    busy: int


def run_study(
    spec: StudySpec,
    out: Path | str,
    *,
    workers: int | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    on_event: OnEvent = lambda event: None,
) -> Outcome:
    """Measure every run of a study that is not yet done.

    Args:
        out: study folder, made if it is not there.
        workers: processes at once; default: one per core on a CPU, one on a GPU.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        cache_dir: of prepared images; default `$CLIPDRIFT_CACHE` or `~/.cache/clipdrift`.
        on_event: told of `prepare` (text), `plan` (total, kept, epochs), `epoch`, `measured`,
            `retry`, `busy`, `failed` and `lost`, with `key` the run id.

    Returns:
        The outcome; failed runs are recorded as failed and are tried again next time.

    Raises:
        ClipdriftError: if backbone, data or folder cannot be used. Nothing finished is lost.
    """
    folder = StudyFolder(Path(out))
    folder.create()
    device = choose_device(device)
    n_workers = workers or (1 if device.startswith("cuda") else available_cores())
    threads = max(1, available_cores() // n_workers)
    cache = cache_dir or default_cache_dir()
    spec = settle_precision(spec, folder, "bfloat16" if supports_bfloat16(device) else "float32")
    planned = _prepare(spec, folder, cache, device, threads, on_event)
    pending = [run for run in planned if folder.finished(run.run_id, run.identity) is None]
    kept = len(planned) - len(pending)
    steps = {run.run_id: run.config.schedule.epochs + 1 for run in pending}
    on_event({"event": "plan", "total": len(planned), "kept": kept, "epochs": steps})
    pool = LocalWorkers(
        [
            *(sys.executable, "-m", "clipdrift.worker", str(folder.path)),
            *("--cache", str(cache), "--device", device, "--threads", str(threads)),
        ],
        n_workers,
        {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
        folder.path / "logs",
    )
    return _measure(folder, planned, pending, pool, device, spec, on_event)


def _prepare(
    spec: StudySpec, folder: StudyFolder, cache: Path, device: str, threads: int, on_event: OnEvent
) -> list[PlannedRun]:
    import torch

    def report(text: str) -> None:
        on_event({"event": "prepare", "text": text})

    # The baseline is read as the workers read: same threads, same precision of products.
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    strict_float32()
    try:
        materials = load_materials(spec, cache_dir=cache, device=device, report=report)
        planned = plan_runs(spec, materials)
        folder.write_plan(spec, {run.run_id: run.identity for run in planned})
        ensure_baselines(spec, materials, folder, report)
    finally:
        torch.set_num_threads(before)
    return planned


def _measure(
    folder: StudyFolder,
    planned: list[PlannedRun],
    pending: list[PlannedRun],
    pool: LocalWorkers,
    device: str,
    spec: StudySpec,
    on_event: OnEvent,
) -> Outcome:
    by_id = {run.run_id: run for run in pending}
    failed: dict[str, str] = {}
    counts: Counter[str] = Counter()
    events = pool.run(list(by_id))
    try:
        for event in events:
            on_event(event)
            if not event.get("last"):
                continue
            counts[event.get("status") or event["event"]] += 1
            if event["event"] in {"failed", "lost"}:
                failed[event["key"]] = event["reason"]
                if event.get("fatal"):
                    raise StudyFolderError(
                        Fault(
                            str(folder.path),
                            "a folder that can be written",
                            event["reason"],
                            "Free space or choose another --out; finished runs are safe",
                        )
                    )
                _record_failure(folder, by_id[event["key"]], spec, event["reason"], device)
    finally:
        events.close()  # type: ignore[attr-defined]
    return Outcome(
        folder=folder,
        total=len(planned),
        kept=len(planned) - len(pending),
        measured=counts["finished"],
        diverged=counts["diverged"],
        failed=failed,
        busy=counts["busy"],
    )


def _record_failure(
    folder: StudyFolder, run: PlannedRun, spec: StudySpec, reason: str, device: str
) -> None:
    """Leave word of a run that could not be measured; the next call tries it again."""
    record = RunRecord.of_run(
        run.config,
        run.identity,
        study=spec.name,
        backbone=run.config.backbone.id,
        status="failed",
    )
    record.reason, record.provenance = reason, provenance(device)
    atomic_write(folder.record_path(run.run_id), record.to_json())


def study_status(path: Path | str) -> dict[str, str]:
    """Run id -> "finished", "diverged", "failed" or "to do", for every planned run.

    Raises:
        StudyFolderError: if there is no study in the folder.
    """
    folder = StudyFolder(Path(path))
    planned = folder.planned()
    if planned is None:
        raise StudyFolderError(
            Fault(str(path), "a study folder with a plan", "none", "Run a study with --out there")
        )
    states: dict[str, str] = {}
    for run_id, identity in planned.items():
        try:
            record = read_record(folder.record_path(run_id))
            states[run_id] = record.status if record.identity == identity else "to do"
        except RecordError:
            states[run_id] = "to do"
    return states


def choose_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, else "cpu"."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def available_cores() -> int:
    """Cores this process may use, which a container or scheduler may have cut down."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
