"""A run that was interrupted goes on to the very record it would have made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import measured, tiny

from clipdrift.materials import Materials, load_materials
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.run.measure import Run
from clipdrift.run.progress import STATE_FILE
from clipdrift.study.plan import plan_runs
from clipdrift.training.loop import Stopped

SPEC = tiny()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def materials(cache_dir: Path) -> Materials:
    return load_materials(SPEC, cache_dir=cache_dir)


@dataclass
class StopAfter:
    """Asks to stop at its n-th question."""

    questions: int
    asked: int = field(default=0)

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self.questions


def never() -> bool:
    return False


@dataclass
class Desk:
    """Starts the tiny study's run in a folder, as often as asked."""

    folder: StudyFolder
    materials: Materials

    @property
    def path(self) -> Path:
        return next(self.folder.runs_path.iterdir())

    def run(
        self, stop: Callable[[], bool] = never, *, every: float = 1e9, spec: Any = SPEC
    ) -> tuple[RunRecord, list[int]]:
        """The record, and the epochs that were read on the way."""
        planned, read = plan_runs(spec, self.materials)[0], []
        ensure_baselines(spec, self.materials, self.folder, lambda text: None)
        record = Run(
            planned.config,
            self.materials,
            Gauge.of_run(planned.config, self.materials, self.folder),
            study=spec.name,
            identity=planned.identity,
            folder=self.folder,
            device="cpu",
            on_epoch=lambda event: read.append(event.epoch),
            stop=stop,
            checkpoint_seconds=every,
        ).record()
        return record, read


@pytest.fixture
def desk(materials: Materials, tmp_path: Path) -> Desk:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    return Desk(folder, materials)


@pytest.fixture(scope="module")
def whole(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    folder = StudyFolder(tmp_path_factory.mktemp("whole"))
    folder.create()
    record, read = Desk(folder, materials).run()
    assert read == [0, 1, 2, 3]
    return record


# A question after each of three steps, then one after the reading of the epoch.
@pytest.mark.parametrize(
    ("questions", "left"),
    [(1, [1, 2, 3]), (3, [1, 2, 3]), (4, [2, 3]), (10, [3]), (12, [])],
    ids=["after a step", "before a reading", "after it", "in epoch 3", "at the end"],
)
def test_a_stopped_run_goes_on_to_the_same_record(
    questions: int, left: list[int], desk: Desk, whole: RunRecord
) -> None:
    with pytest.raises(Stopped):
        desk.run(StopAfter(questions))
    assert sorted(p.name for p in desk.path.iterdir()) == [STATE_FILE]
    torch.rand(questions)
    record, read = desk.run()
    assert read == left
    assert measured(record) == measured(whole)
    assert record.timing["interruptions"] == 1
    assert STATE_FILE not in {p.name for p in desk.path.iterdir()}
    assert STATE_FILE not in record.files


PROBE = {"name": "probe", "kind": "linear_probe", "role": "reference", "learning_rates": [1e-2]}


def test_a_head_is_probed_before_the_first_epoch_is_read(desk: Desk) -> None:
    """Stopped in the probe it starts anew; stopped later it does not probe again."""
    lp_ft = {"name": "lp_ft", "kind": "lp_ft", "probe_epochs": 2, "probe_lr": 1e-2}
    spec = tiny(methods=[lp_ft], schedule={"epochs": 2, "batch_size": 20})
    with pytest.raises(Stopped):
        desk.run(StopAfter(4), spec=spec)  # in the second epoch of the probe
    assert not list(desk.folder.runs_path.iterdir())
    with pytest.raises(Stopped):
        desk.run(StopAfter(6 + 2), spec=spec)
    record, read = desk.run(spec=spec)
    assert read == [1, 2]
    shutil.rmtree(desk.path)
    whole, read = desk.run(spec=spec)
    assert read == [0, 1, 2]
    assert measured(record) == measured(whole)
    assert record.history[0].drift["embedding_drift"] == 0.0
    probed = record.history[0].val_accuracy
    probe, _ = desk.run(spec=tiny(methods=[PROBE], schedule=spec.schedule.model_dump()))
    assert probed == probe.history[-1].val_accuracy > probe.history[0].val_accuracy


def test_a_run_may_be_stopped_at_every_step(desk: Desk, whole: RunRecord) -> None:
    for _ in range(9 + 3):
        with pytest.raises(Stopped):
            desk.run(StopAfter(1))
    record, read = desk.run()
    assert read == []
    assert measured(record) == measured(whole)
    assert record.timing["interruptions"] == 12


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it, nothing is saved on the way."""


def kill_after(questions: int) -> Callable[[], bool]:
    asked = StopAfter(questions)

    def stop() -> bool:
        if asked():
            raise Killed
        return False

    return stop


@pytest.mark.parametrize(("questions", "left"), [(3, [0, 1, 2, 3]), (9, [3])])
def test_a_killed_run_goes_on_from_its_last_epoch(
    questions: int, left: list[int], desk: Desk, whole: RunRecord
) -> None:
    with pytest.raises(Killed):
        desk.run(kill_after(questions), every=0)
    record, read = desk.run()
    assert read == left
    assert measured(record) == measured(whole)


def test_short_epochs_save_no_state(desk: Desk) -> None:
    with pytest.raises(Killed):
        desk.run(kill_after(12), every=30)
    assert not list(desk.folder.runs_path.iterdir())


@pytest.mark.parametrize("harm", ["torn", "other identity"])
def test_a_state_that_is_not_this_runs_is_not_used(harm: str, desk: Desk, whole: RunRecord) -> None:
    stopped = tiny(learning_rates=[2e-3]) if harm == "other identity" else SPEC
    with pytest.raises(Stopped):
        desk.run(StopAfter(7), spec=stopped)
    path = desk.path / STATE_FILE
    content = path.read_bytes()
    if harm == "torn":
        content = content[: len(content) // 2]
    else:  # as if two rates had got one folder
        path = desk.folder.run_path(whole.run_id) / STATE_FILE
        path.parent.mkdir()
    path.write_bytes(content)
    record, read = desk.run()
    assert read == [0, 1, 2, 3]
    assert measured(record) == measured(whole)


def test_what_a_killed_process_half_wrote_is_cleared(desk: Desk, whole: RunRecord) -> None:
    path = desk.folder.run_path(whole.run_id)
    path.mkdir()
    (path / "adapter").mkdir()
    for name in (".record.json.x1y2.tmp", ".tmpx1y2z3", "adapter/.tmpx1y2z3"):
        (path / name).write_text("{")
    (path / ".a-folder.tmp").mkdir()  # nobody's half-written file
    desk.run()
    assert [left.name for left in path.rglob(".*")] == [".a-folder.tmp"]


def test_a_batch_that_memory_did_not_hold_is_told_in_the_record(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = AdaptedModel.forward

    def small(model: AdaptedModel, pixels: torch.Tensor) -> torch.Tensor:
        if model.training and len(pixels) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, pixels)

    monkeypatch.setattr(AdaptedModel, "forward", small)
    with pytest.raises(Stopped):
        desk.run(StopAfter(4))
    monkeypatch.undo()  # memory is there again, but some steps went without
    record, _ = desk.run()
    assert record.warnings[-1] == (
        "memory did not hold a batch of 20 images: it was taken 10 at a time, equal but for "
        "rounding and dropout's draws"
    )
