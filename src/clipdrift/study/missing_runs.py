"""The runs that a study lacks: offered to workers, or waited for while others are at them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from clipdrift.errors import Fault, StudyFolderError
from clipdrift.executors import Event, Executor, Program
from clipdrift.machine.provenance import provenance
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.claims import held
from clipdrift.spec import StudySpec
from clipdrift.study.plan import PlannedRun
from clipdrift.study.tasks import Task

OnEvent = Callable[[Event], None]

LOOK_SECONDS = 1.0
"""How often it is asked whether runs that other processes are at are done."""

REMIND_SECONDS = 60.0
"""How often it is said what is waited for: only a person can know that it will not come."""


@dataclass
class MissingRuns:
    """The runs that are to do, until each is done, by whomever, or given up."""

    folder: StudyFolder
    spec: StudySpec
    executor: Executor
    program: Program
    on_event: OnEvent
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def measure(self, pending: list[Task]) -> None:
        """All of them.

        Raises:
            ClipdriftError: if the executor or the folder cannot be used.
        """
        while pending:
            pending = self._wait(self._offer(pending))

    def _offer(self, pending: list[Task]) -> list[Task]:
        """Offer each run to the workers; returns those that another process is at."""
        by_key, busy = {task.key: task for task in pending}, []
        events = self.executor.run(self.program, list(by_key))
        try:
            for said in events:
                task = by_key.get(said.get("key", ""))
                event = said if task is None else {**said, "key": task.run.run_id}
                if task is not None and event["event"] == "busy":
                    busy.append(task)
                    continue
                self.folder.require_there()
                self.on_event(event)
                if task is not None and event.get("last"):
                    self._close(task.run, event)
        finally:
            events.close()  # type: ignore[attr-defined]
        return busy

    def _wait(self, busy: list[Task]) -> list[Task]:
        """Until each run is done by who is at it, or nobody is at it any more; returns the latter.

        Who is at it may be another command, or a worker whose own command was killed.
        """
        if busy:
            text = f"{len(busy)} runs are being measured by another process; waiting for them"
            self.on_event({"event": "prepare", "text": text})
        since, free = time.time(), []
        remind = since + REMIND_SECONDS
        while busy:
            self.folder.require_there()
            still = [task for task in busy if held(self.folder.claim_path(task.run.run_id))]
            for task in (task for task in busy if task not in still):
                run = task.run
                record = self.folder.settled(run.run_id, run.identity, task.until)
                if record is None:
                    free.append(task)
                else:
                    event = {"event": "found", "key": run.run_id, "status": record.status}
                    self.on_event({**event, "last": True})
                    self.counts["found"] += 1
            busy = still
            if busy and time.time() >= remind:
                remind += REMIND_SECONDS
                self.on_event({"event": "prepare", "text": _reminder(busy, since)})
            if busy:
                time.sleep(LOOK_SECONDS)
        return free

    def _close(self, run: PlannedRun, event: Event) -> None:
        """Count a run that is settled, and leave word of one that could not be measured."""
        kind = event["event"]
        self.counts[event["status"] if kind == "measured" else kind] += 1
        if kind not in {"failed", "lost"}:
            return
        self.failed[run.run_id] = event["reason"]
        if event.get("fatal"):
            raise StudyFolderError(
                Fault(
                    str(self.folder.path),
                    "a folder that can be written",
                    event["reason"],
                    "Free space or choose another --out; finished runs are safe",
                )
            )
        self._record_failure(run, event["reason"])

    def _record_failure(self, run: PlannedRun, reason: str) -> None:
        """Leave word of a run that could not be measured; the next call tries it again."""
        if self.folder.finished(run.run_id, run.identity) is not None:
            return  # by another process, in the meantime
        record = RunRecord.of_run(
            run.config,
            run.identity,
            study=self.spec.name,
            backbone=run.config.backbone.id,
            status="failed",
        )
        record.reason, record.provenance = reason, provenance("cpu")
        atomic_write(self.folder.record_path(run.run_id), record.to_json())


def _reminder(busy: list[Task], since: float) -> str:
    names = ", ".join(task.run.run_id for task in busy[:3]) + (", ..." if len(busy) > 3 else "")
    minutes = round((time.time() - since) / 60)
    return (
        f"waiting for {len(busy)} runs of another process since "
        f"{time.strftime('%H:%M', time.localtime(since))} ({minutes} min): {names}"
    )
