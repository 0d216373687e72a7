"""Where finished runs lost what they lost: every edit of each, kept in `located/` of the study.

Records stay as they are. What was read before is kept, so the same call goes on where it was
interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from clipdrift.interventions.cost import about_blocks, seconds_per_block
from clipdrift.interventions.read import Asked, read_edits
from clipdrift.machine.devices import choose_device
from clipdrift.machine.provenance import provenance
from clipdrift.materials import Materials
from clipdrift.probes.attention_maps import tower_blocks
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.claims import claim
from clipdrift.records.located import LocatedRun, located_path, read_located
from clipdrift.spec import PROTOCOL_VERSION, RunConfig, content_hash

TELL_SECONDS = 30.0
"""How often a run that takes long says how far it is."""


def locate_runs(
    folder: StudyFolder,
    asked: Asked,
    *,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Say = lambda text: None,
) -> Done:
    """Read the edits of every finished run whose edits are not yet read.

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
    gauges: dict[str, Gauge] = {}
    waiting = []
    for record in records:
        if record.target not in gauges:
            config = RunConfig.model_validate(record.config)
            gauges[record.target] = Gauge.of_run(config, materials, folder)
        identity = _identity(record, asked, materials)
        if is_there(located_path(folder, record.run_id), read_located, identity):
            done.kept += 1
        else:
            waiting.append((record, identity))
    if waiting:
        say(_cost(len(waiting), gauges[waiting[0][0].target], asked))
    clock = _Clock(len(waiting), say)
    for record, identity in waiting:
        clock.begin(record.run_id)
        reader = _Run(folder, materials, gauges[record.target], asked, device)
        with claim(folder.claims_path / f"located-{record.run_id}") as mine:
            if not mine:
                done.left_out[record.run_id] = "being read by another process"
                continue
            try:
                reader.read(record, identity, clock.tell)
                done.read += 1
            except MethodError as error:
                done.left_out[record.run_id] = str(error.faults[0])
    return done


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
    what = [list(asked.what), asked.draws, asked.n_images, asked.seed]
    data = materials.content(record.target)
    return content_hash([PROTOCOL_VERSION, "located", record.identity, data, what])


def _cost(n_runs: int, gauge: Gauge, asked: Asked) -> str:
    """What is to be done, and about how long it takes at most."""
    n_blocks = len(tower_blocks(gauge.backbone.model.vision_model))
    sets = [*(one.images for one in gauge.transfers.values()), gauge.target.test]
    n_images = sum(min(asked.n_images, len(images)) for images in sets)
    weights, attention = ("weights" in asked.what), ("attention" in asked.what)
    blocks = about_blocks(n_blocks, draws=asked.draws, weights=weights, attention=attention)
    seconds = n_runs * n_images * blocks * seconds_per_block(gauge)
    passes = blocks / n_blocks
    return (
        f"{n_runs} runs, {n_images} images each, up to {passes:.0f} passes of each: about "
        f"{_time(seconds)}, less for runs of which less moved"
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
        self.total, self.say = total, say
        self.number, self.started, self.told = 0, time.monotonic(), time.monotonic()

    def begin(self, run_id: str) -> None:
        self.number += 1
        self.say(f"reading edits of {run_id}, {self.number} of {self.total}{self._left(0.0)}")
        self.told = time.monotonic()

    def tell(self, share: float) -> None:
        """Told which share of the run is done."""
        if time.monotonic() - self.told > TELL_SECONDS:
            self.told = time.monotonic()
            self.say(f"{100 * share:.0f} % of run {self.number} of {self.total}{self._left(share)}")

    def _left(self, share: float) -> str:
        done = self.number - 1 + share
        if not done:
            return ""
        left = (time.monotonic() - self.started) * (self.total - done) / done
        return f", about {_time(left)} left"


@dataclass
class _Run:
    """One run's edits, read and written."""

    folder: StudyFolder
    materials: Materials
    gauge: Gauge
    asked: Asked
    device: str

    def read(self, record: RunRecord, identity: str, tell: Callable[[float], None]) -> None:
        model = reloaded(record, self.folder, self.materials, self.gauge, self.device)
        found = read_edits(self.gauge, model, self.asked, where=record.run_id, tell=tell)
        run = LocatedRun(
            run_id=record.run_id,
            run=record.identity,
            identity=identity,
            draws=self.asked.draws,
            n_images=self.asked.n_images,
            rows=found.rows,
            provenance=provenance(self.device),
        )
        atomic_write(located_path(self.folder, record.run_id), run.to_json())
