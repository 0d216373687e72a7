"""A worker process: `python -m clipdrift.worker DIR` reads run ids and measures those runs.

It finds all else in the study folder, so that the same program serves a local process, a job of a
cluster's scheduler, or a shell. Answers are JSON lines, as `executors` describes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from clipdrift.epochs import EpochEvent
from clipdrift.errors import ClipdriftError, Fault, RecordError, StudyFolderError
from clipdrift.materials import Materials, load_materials
from clipdrift.plan import PlannedRun, ensure_baselines, plan_runs, read_baselines
from clipdrift.records import StudyFolder
from clipdrift.records.claims import claim
from clipdrift.run import Run


class Worker:
    """Holds a study's backbone and data, and measures its runs one by one."""

    def __init__(self, folder: StudyFolder, cache_dir: Path, device: str) -> None:
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

    def measure(self, run_id: str, say: Any) -> dict[str, Any]:
        """One run; returns the closing event."""
        if run_id not in self.runs:
            raise RecordError(
                Fault(run_id, "a run of the plan", "other data or weights", "Run the study again")
            )
        planned = self.runs[run_id]
        with claim(self.folder.path / ".locks" / run_id) as mine:
            if not mine:
                return {"event": "busy"}
            # Another process may have finished it since this one was told to.
            record = self.folder.finished(run_id, planned.identity)
            if record is None:
                record = self._run(planned, say).record()
        return {
            "event": "measured",
            "status": record.status,
            "reason": record.reason,
            "seconds": record.timing.get("wall_seconds"),
        }

    def _run(self, planned: PlannedRun, say: Any) -> Run:
        def report(text: str) -> None:
            say({"event": "prepare", "text": text})

        def on_epoch(done: EpochEvent) -> None:
            say({"event": "epoch", "epoch": done.epoch, "epochs": done.epochs})

        if not self.has_baselines:
            ensure_baselines(self.spec, self.materials, self.folder, report)
            self.has_baselines = True
        return Run(
            planned.config,
            self.materials,
            read_baselines(self.folder, self.materials, planned.config.target.name),
            study=self.spec.name,
            identity=planned.identity,
            folder=self.folder,
            device=self.device,
            on_epoch=on_epoch,
        )


def serve(worker: Worker, keys: TextIO, answers: TextIO) -> None:
    """Measure the runs named on `keys`, one per line, until it ends."""

    for key in map(str.strip, keys):

        def say(event: dict[str, Any], key: str = key) -> None:
            answers.write(json.dumps({**event, "key": key}) + "\n")
            answers.flush()

        try:
            closing = worker.measure(key, say)
        except ClipdriftError as error:
            closing = {
                "event": "failed",
                "reason": str(error),
                # A full disk will refuse every other run as well.
                "fatal": isinstance(error, StudyFolderError),
            }
        except Exception as error:  # one run's bug must not take the others with it
            traceback.print_exc()
            closing = {"event": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        say({**closing, "last": True})


def main() -> None:
    """Entry point; answers go to the real standard output, stray prints to the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import torch

    torch.set_num_threads(given.threads)
    strict_float32()
    serve(Worker(StudyFolder(given.folder), given.cache, given.device), sys.stdin, answers)


def strict_float32() -> None:
    """No TF32: it shifts drift readings by as much as fine-tuning does."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


if __name__ == "__main__":
    main()
