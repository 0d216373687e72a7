"""A worker process: `python -m clipdrift.study.worker DIR` reads run ids and measures those runs.

It finds all else in the study folder, so that the same program serves a local process, a job of a
cluster's scheduler, or a shell. Answers are JSON lines, as `executors` describes.

SIGTERM, SIGINT and SIGHUP end it after the current training step, with the state of its run saved,
and so does the end of whoever reads its answers. A run that is out of memory ends it as well: the
next attempt gets a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from clipdrift.errors import ClipdriftError, Fault, RecordError, StudyFolderError
from clipdrift.machine.devices import strict_float32
from clipdrift.machine.memory import out_of_memory
from clipdrift.machine.signals import StopRequest
from clipdrift.materials import Materials, load_materials
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.screening import Predictor, worth_screening
from clipdrift.records import StudyFolder
from clipdrift.records.claims import claim
from clipdrift.run.epochs import EpochEvent
from clipdrift.run.measure import Run
from clipdrift.run.progress import ProgressFile
from clipdrift.run.state import CHECKPOINT_SECONDS
from clipdrift.study.plan import PlannedRun, plan_runs
from clipdrift.study.tasks import task_of
from clipdrift.training.loop import Stopped

Say = Callable[[dict[str, Any]], None]


ALIVE_SECONDS = 5.0
"""How often a worker in training says that it makes progress."""


class Worker:
    """Holds a study's backbone and data, and measures its runs one by one."""

    def __init__(
        self,
        folder: StudyFolder,
        cache_dir: Path,
        device: str,
        stop: StopRequest,
        checkpoint_seconds: float,
    ) -> None:
        spec = folder.read_spec()
        if spec is None:
            raise RecordError(
                Fault(str(folder.spec_path), "a study", "nothing there", "Run the study first")
            )
        self.folder, self.device, self.spec = folder, device, spec
        self.materials: Materials = load_materials(spec, cache_dir=cache_dir, device=device)
        self.runs: dict[str, PlannedRun] = {
            run.run_id: run for run in plan_runs(spec, self.materials)
        }
        self.has_baselines = False
        self.stop, self.checkpoint_seconds = stop, checkpoint_seconds

    def measure(self, key: str, say: Say) -> dict[str, Any]:
        """One run, to its end or until an epoch (`Task.key`); returns the closing event."""
        run_id, until = task_of(key)
        if run_id not in self.runs:
            raise RecordError(
                Fault(
                    run_id,
                    "a run of the plan",
                    "other data, weights or plugins",
                    "Run the study again",
                )
            )
        planned = self.runs[run_id]
        with claim(self.folder.claim_path(run_id)) as mine:
            if not mine:
                return {"event": "busy"}
            found = self.folder.settled(run_id, planned.identity, until)
            if found is not None:  # another process finished it since this one was told to
                return {"event": "found", "status": found.status}
            record = self._run(planned, until, say).record()
        return {
            "event": "measured",
            "status": record.status,
            "reason": record.reason,
            "seconds": record.timing.get("wall_seconds"),
        }

    def _run(self, planned: PlannedRun, until: int | None, say: Say) -> Run:
        def report(text: str) -> None:
            say({"event": "prepare", "text": text})

        progress = ProgressFile(self.folder.run_path(planned.run_id))

        def on_epoch(done: EpochEvent) -> None:
            progress(done)
            say({"event": "epoch", "epoch": done.epoch, "epochs": done.epochs})

        if not self.has_baselines:
            ensure_baselines(self.spec, self.materials, self.folder, report)
            self.has_baselines = True
        config, backbone = planned.config, self.materials.backbone
        screened = worth_screening(backbone, config.precision)
        predict = Predictor(config.evaluation.batch_size, screened)
        gauge = Gauge.of_run(config, self.materials, self.folder, predict=predict)
        return Run(
            config,
            self.materials,
            gauge,
            study=self.spec.name,
            identity=planned.identity,
            folder=self.folder,
            device=self.device,
            on_epoch=on_epoch,
            stop=_AfterStep(self.stop, say, self.folder),
            until=until,
            checkpoint_seconds=self.checkpoint_seconds,
        )


class _AfterStep:
    """What happens after a training step: a sign of life now and then; whether to stop.

    Raises:
        StudyFolderError: if the study folder is gone: nothing of the run could be kept.
    """

    def __init__(self, stop: StopRequest, say: Say, folder: StudyFolder) -> None:
        self.stop, self.say, self.folder = stop, say, folder
        self.said = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.said >= ALIVE_SECONDS:
            self.said = time.monotonic()
            self.folder.require_there()
            self.say({"event": "alive"})
        return self.stop()


def serve(worker: Worker, keys: TextIO, answers: TextIO, stop: StopRequest) -> None:
    """Measure the runs named on `keys`, one per line, until it ends.

    Raises:
        SystemExit: when asked to stop, or out of memory; the run in hand has no closing event.
    """

    def tell(event: dict[str, Any]) -> None:
        try:
            answers.write(json.dumps(event) + "\n")
            answers.flush()
        except OSError:  # nobody reads any more: the study's process was killed
            stop.number = stop.number or signal.SIGTERM

    tell({"event": "started"})
    for key in map(str.strip, keys):
        stop.at_rest = False

        def say(event: dict[str, Any], key: str = key) -> None:
            tell({**event, "key": key})

        closing = _closing(worker, key, say)
        tell({**closing, "key": key, "last": True})
        stop.at_rest = True
        if stop():
            raise SystemExit(stop.exit_code)


def _closing(worker: Worker, key: str, say: Say) -> dict[str, Any]:
    try:
        return worker.measure(key, say)
    except Stopped as stopped:
        say({"event": "stopped", "reason": str(stopped)})
        raise SystemExit(worker.stop.exit_code) from None
    except ClipdriftError as error:
        # A full disk will refuse every other run as well.
        fatal = isinstance(error, StudyFolderError)
        return {"event": "failed", "reason": str(error), "fatal": fatal}
    except (Exception, SystemExit) as error:  # one run's bug must not take the others with it
        traceback.print_exc()
        if out_of_memory(error):
            raise SystemExit(f"out of memory: {' '.join(str(error).split())[:150]}") from None
        return {"event": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    """Entry point; answers go to the real standard output, stray prints to the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint-seconds", type=float, default=CHECKPOINT_SECONDS)
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stop = StopRequest()
    stop.listen()

    import torch

    torch.set_num_threads(given.threads)
    strict_float32()
    folder = StudyFolder(given.folder)
    try:
        worker = Worker(folder, given.cache, given.device, stop, given.checkpoint_seconds)
    except ClipdriftError as error:
        raise SystemExit(" ".join(str(error).split())) from None
    serve(worker, sys.stdin, answers, stop)


if __name__ == "__main__":
    main()
