"""A whole study: plan it, and measure what is missing.

Running it again resumes: runs with a valid record under the same identity are kept, everything
else is measured. A changed study, backbone or dataset has other identities and reuses nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from clipdrift.data.cache import default_cache_dir
from clipdrift.errors import Fault, SpecError
from clipdrift.executors import Executor, Program
from clipdrift.executors.local import LocalExecutor
from clipdrift.machine.devices import choose_device, supports_bfloat16
from clipdrift.materials import load_materials, without_missing
from clipdrift.records import StudyFolder
from clipdrift.records.imported import refuse_imported
from clipdrift.records.plan_claim import plan_in_use
from clipdrift.run.files import clear_state
from clipdrift.spec import AnyStudy, StudySpec, as_spec
from clipdrift.study.missing_runs import MissingRuns, OnEvent
from clipdrift.study.plan import PlannedRun, plan_runs, require_fit, settle_precision
from clipdrift.study.tasks import Task
from clipdrift.study.trackers import Tracking

Batches = Callable[[StudyFolder, list[PlannedRun]], Iterable[list[Task]]]
"""The planned runs -> what is to be measured, batch by batch; the next is asked for when one is."""


def whole(folder: StudyFolder, planned: list[PlannedRun]) -> Iterator[list[Task]]:
    """Every run to its end, in one batch."""
    yield [Task(run) for run in planned]


@dataclass(frozen=True)
class Outcome:
    """What a call of `run_study` did, in numbers of runs.

    plan: run id -> identity of all of them.
    kept: those whose records were there, or were made by another process under way.
    """

    folder: StudyFolder
    plan: dict[str, str]
    total: int
    kept: int
    measured: int
    diverged: int
    stopped: int
    failed: dict[str, str]


def run_study(
    study: AnyStudy,
    out: Path | str,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    batches: Batches = whole,
    track: str | None = None,
    on_event: OnEvent = lambda event: None,
) -> Outcome:
    """Measure every run of a study that is not yet done.

    Args:
        study: a study, or its file.
        out: study folder, made if it is not there.
        executor: where runs are measured; default: `LocalExecutor(workers, device)`.
        workers: processes at once; default: as `LocalExecutor` has it.
        device: "auto" (the GPUs if there are any), "cpu", "cuda" (every GPU), "cuda:1", ...
        cache_dir: of prepared images; default `$CLIPDRIFT_CACHE` or `~/.cache/clipdrift`.
        batches: what is measured; default all runs to their end. A run that was paused after an
            epoch is no finished one, and goes on from there when it is asked for again.
        track: "tensorboard", "wandb", "mlflow" or "trackio": each run is logged there as it ends.
        on_event: told of `prepare` (text), `plan` (total, kept, epochs; before each batch),
            `epoch`, `measured`, `found`, `retry`, `failed` and `lost`, with `key` the run id.
            `found`: done by another process, which has been waited for if need be.

    Returns:
        The outcome; failed runs are recorded as failed and are tried again next time.

    Raises:
        ClipdriftError: if backbone, data, folder or executor cannot be used. Nothing
            finished is lost.
    """
    spec = as_spec(study)
    folder = StudyFolder(Path(out).absolute())
    refuse_imported(folder)
    tracking = Tracking(track, folder, on_event)
    executor = executor or LocalExecutor(workers, device)
    cache = (cache_dir or default_cache_dir()).absolute()
    with ExitStack() as until_done:
        with folder.made():
            spec = without_missing(spec, lambda text: on_event({"event": "prepare", "text": text}))
            spec = _settled(spec, folder, _device_of(executor))
            planned = _prepare(spec, cache, on_event)
            plan = {run.run_id: run.identity for run in planned}
            until_done.enter_context(
                plan_in_use(
                    folder,
                    lambda: folder.has_plan(spec, plan),
                    lambda: folder.write_plan(spec, plan),
                )
            )
        folder.clear_half_written()
        program = worker_program(folder, cache)
        if isinstance(executor, LocalExecutor):
            executor = until_done.enter_context(executor.kept(program))
        missing = MissingRuns(folder, spec, executor, program, tracking)
        until_done.callback(tracking.close)
        kept = 0
        for batch in batches(folder, planned):
            pending = _pending(folder, batch)
            kept += len(batch) - len(pending)
            steps = {task.run.run_id: task.epochs + 1 for task in pending}
            on_event({"event": "plan", "total": len(batch), "kept": kept, "epochs": steps})
            missing.measure(pending)
    return Outcome(
        folder=folder,
        plan=plan,
        total=len(planned),
        kept=kept + missing.counts["found"],
        measured=missing.counts["finished"],
        diverged=missing.counts["diverged"],
        stopped=missing.counts["stopped"],
        failed=missing.failed,
    )


def worker_program(folder: StudyFolder, cache: Path) -> Program:
    """What an executor starts for the runs of a study; both paths are absolute."""
    return Program(
        (sys.executable, "-m", "clipdrift.study.worker", str(folder.path), "--cache", str(cache)),
        folder.path / "logs",
    )


def _device_of(executor: Executor) -> str:
    """What trains: a device of this machine, or what an executor's own machines have."""
    device = executor.device
    own = device == "auto" or isinstance(executor, LocalExecutor)
    return choose_device(device) if own else device


def _settled(spec: StudySpec, folder: StudyFolder, device: str) -> StudySpec:
    """The study with its precision settled by the hardware that will train."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        spec = settle_precision(spec, folder, "auto")
        if spec.precision == "auto":
            raise SpecError(
                Fault(
                    "precision",
                    "float32 or bfloat16 where the GPUs are on other machines",
                    "auto",
                    "Write `precision: bfloat16` into the study if the GPUs multiply it themselves",
                )
            )
        return spec
    return settle_precision(spec, folder, "bfloat16" if supports_bfloat16(device) else "float32")


def _prepare(spec: StudySpec, cache: Path, on_event: OnEvent) -> list[PlannedRun]:
    """Prepare the images and plan; what is read of the backbone is left to workers."""
    materials = load_materials(
        spec,
        cache_dir=cache,
        report=lambda text: on_event({"event": "prepare", "text": text}),
    )
    require_fit(spec, materials.backbone)
    return plan_runs(spec, materials)


def _pending(folder: StudyFolder, batch: list[Task]) -> list[Task]:
    """Those without a record; what others were to go on from is cleared, if a kill left it."""
    pending = []
    for task in batch:
        run = task.run
        record = folder.settled(run.run_id, run.identity, task.until)
        if record is None:
            pending.append(task)
        elif record.status != "stopped":
            clear_state(folder.run_path(run.run_id))
    return pending
