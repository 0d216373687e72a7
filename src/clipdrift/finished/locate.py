"""Where finished runs lost what they lost: every edit of each, kept in `located/` of the study.

Records stay as they are. What was read before is kept, so the same call goes on where it was
interrupted.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock

import torch

from clipdrift.errors import ClipdriftError, MethodError, RecordError, SpecError
from clipdrift.finished.evaluate import finished_run
from clipdrift.finished.runs import (
    Done,
    Say,
    is_there,
    materials_of,
    reloaded,
    runs_with_weights,
    study_with_runs,
)
from clipdrift.interventions.asked import Asked, Price, price
from clipdrift.interventions.read import read_edits
from clipdrift.machine.devices import choose_device, cpu_shares
from clipdrift.machine.memory import free_memory_bytes
from clipdrift.machine.provenance import provenance
from clipdrift.materials import Materials
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.claims import claim
from clipdrift.records.located import VERSION, LocatedRun, located_path, read_located
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, content_hash

TELL_SECONDS = 30.0
"""How often runs that take long say how far they are."""
COPIES = 10
"""Times the vision tower's weights that one run takes in memory."""


def locate_runs(
    folder: StudyFolder,
    asked: Asked,
    *,
    workers: int | None = None,
    dry_run: bool = False,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Say = lambda text: None,
) -> Done:
    """Read the edits of every finished run whose edits are not yet read.

    Args:
        workers: runs at once; default: on the CPU what cores and memory have room for, else one.
        dry_run: say what would be read and how long it takes, and read nothing.

    Raises:
        SpecError: if a value asked for makes no sense.
        RecordError: if no finished run has its weights, or data have changed.
        AdapterInactiveError: if a reloaded encoder is not the adapted one.
    """
    if faults := list(asked.faults()):
        raise SpecError(faults)
    device = choose_device(device)
    spec = study_with_runs(folder)
    done = Done()
    records = _whole(folder, done)
    materials = materials_of(spec, folder, cache_dir=cache_dir, device=device, say=say)
    gauges = {
        record.target: Gauge.of_run(RunConfig.model_validate(record.config), materials, folder)
        for record in {record.target: record for record in records}.values()
    }
    waiting = {}
    for record in records:
        identity = _identity(record, asked, materials)
        if is_there(located_path(folder, record.run_id), read_located, identity):
            done.kept += 1
        else:
            waiting[record.run_id] = (record, identity)
    if not waiting:
        return done
    first = gauges[next(iter(waiting.values()))[0].target]
    at_once, threads = _room(first, device, workers, len(waiting))
    say(_told(len(waiting), at_once, price(first, asked)))
    if not dry_run:
        reader = _Reader(folder, materials, gauges, asked, device, done, _Clock(len(waiting), say))
        reader.read(list(waiting.values()), at_once, threads)
    return done


def _room(gauge: Gauge, device: str, workers: int | None, runs: int) -> tuple[int, int]:
    """Runs at once, and threads of each."""
    if device != "cpu":
        return min(workers or 1, runs), 1
    size = 4 * sum(p.numel() for p in gauge.backbone.model.vision_model.parameters())
    fit = max(1, free_memory_bytes(torch.device("cpu")) // (COPIES * size))
    at_once, _ = cpu_shares(workers)
    at_once = min(workers or fit, at_once, runs)
    return at_once, cpu_shares(at_once)[1]


def _whole(folder: StudyFolder, done: Done) -> list[RunRecord]:
    """Runs whose files are those that were recorded; the others are left out.

    Raises:
        RecordError: if there is no such run, with the faults of all.
    """
    found, faults = [], []
    for record in runs_with_weights(folder):
        try:
            finished_run(folder.run_path(record.run_id))
            found.append(record)
        except ClipdriftError as error:
            faults += error.faults
            done.left_out[record.run_id] = str(error.faults[0])
    if not found:
        raise RecordError(faults)
    order = {"matched": 0, "reference": 1}
    return sorted(found, key=lambda r: (r.target, order[r.role], r.method, r.learning_rate, r.seed))


def _identity(record: RunRecord, asked: Asked, materials: Materials) -> str:
    """Of what is read: the run, the data, and what is asked of it."""
    what = [sorted(asked.what), asked.draws, asked.n_images, asked.seed]
    data = materials.content(record.target)
    return content_hash([PROTOCOL_VERSION, "located", VERSION, record.identity, data, what])


def _told(n_runs: int, at_once: int, one: Price) -> str:
    """What is to be done, and about how long it takes at most."""
    return (
        f"{n_runs} runs, {one.images} images and up to {one.passes:,.0f} passes of an image each, "
        f"{at_once} at once: about {_time(n_runs * one.seconds / at_once)}, less for runs of which "
        "less moved"
    )


def _time(seconds: float) -> str:
    """
    >>> _time(40), _time(400), _time(40_000)
    ('1 min', '7 min', '11.1 h')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


class _Clock:
    """Says which run is read and how long the rest will take."""

    def __init__(self, total: int, say: Say) -> None:
        self.total, self.say, self.lock = total, say, Lock()
        self.started = self.told = time.monotonic()
        self.shares: dict[str, float] = {}

    def begin(self, run_id: str) -> None:
        with self.lock:
            self.shares[run_id] = 0.0
            number = f"{len(self.shares)} of {self.total}"
            self.say(f"reading edits of {run_id}, {number}{self._left()}")
            self.told = time.monotonic()

    def tell(self, run_id: str, share: float) -> None:
        """Told which share of a run is done."""
        with self.lock:
            self.shares[run_id] = share
            if time.monotonic() - self.told > TELL_SECONDS:
                self.told = time.monotonic()
                done = sum(self.shares.values())
                self.say(f"{100 * done / self.total:.0f} % of {self.total} runs{self._left()}")

    def _left(self) -> str:
        done = sum(self.shares.values())
        if not done:
            return ""
        left = (time.monotonic() - self.started) * (self.total - done) / done
        return f", about {_time(left)} left"


@dataclass
class _Reader:
    """Edits of runs, read and written; several at once in threads, as torch's work is its own."""

    folder: StudyFolder
    materials: Materials
    gauges: dict[str, Gauge]
    asked: Asked
    device: str
    done: Done
    clock: _Clock
    _ended: Event = field(default_factory=Event)
    _reloading: Lock = field(default_factory=Lock)

    def read(self, waiting: list[tuple[RunRecord, str]], at_once: int, threads: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        pool = ThreadPoolExecutor(at_once)
        try:
            for future in [pool.submit(self._one, *run) for run in waiting]:
                future.result()
        finally:
            self._ended.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    def _one(self, record: RunRecord, identity: str) -> None:
        name = record.run_id
        self.clock.begin(name)
        with claim(self.folder.claims_path / f"located-{name}") as mine:
            if not mine:
                self.done.left_out[name] = "being read by another process"
                return
            try:
                self._edits(record, identity)
                self.done.read += 1
            except MethodError as error:
                self.done.left_out[name] = str(error.faults[0])
            except CancelledError:
                return
        self.clock.tell(name, 1.0)

    def _edits(self, record: RunRecord, identity: str) -> None:
        gauge, name = self.gauges[record.target], record.run_id
        with self._reloading:  # adapters are made with the random numbers that all threads share
            model = reloaded(record, self.folder, self.materials, gauge, self.device)
        found = read_edits(gauge, model, self.asked, tell=partial(self._tell, name))
        run = LocatedRun(
            run_id=name,
            run=record.identity,
            identity=identity,
            what=list(self.asked.what),
            draws=self.asked.draws,
            n_images=self.asked.n_images,
            rows=found.rows,
            provenance=provenance(self.device),
        )
        atomic_write(located_path(self.folder, name), run.to_json())

    def _tell(self, name: str, share: float) -> None:
        if self._ended.is_set():
            raise CancelledError
        self.clock.tell(name, share)
