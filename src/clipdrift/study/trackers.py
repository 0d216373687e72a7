"""Runs in an experiment tracker: each run of a study as a run there, once it has ended.

Everything comes from the record, so any executor will do, and an interrupted run is not logged
twice. The trackers are accelerate's, which comes with peft.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipdrift.errors import Fault, SpecError
from clipdrift.records import RunRecord, StudyFolder, read_record

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

KINDS = ("tensorboard", "wandb", "mlflow", "trackio")
KEYS = ("backbone", "target", "method", "role", "learning_rate", "seed", "status", "run_id")


def scalars(record: RunRecord) -> list[tuple[int, dict[str, float]]]:
    """Epoch -> its numbers, as `clipdrift/<dotted name>`; the final ones as `clipdrift/final/...`.

    What is undefined is left out. The result is logged at the last epoch that was read, whichever
    of them was selected: trackers take steps in order.
    """
    steps = []
    for entry in record.history:
        found = {**entry.numbers(), "train_loss": entry.train_loss}
        steps.append((entry.epoch, _defined("clipdrift/", found)))
    if record.status == "finished":
        last = steps[-1][0] if steps else 0
        steps.append((last, _defined("clipdrift/final/", record.result.numbers())))
    return steps


def _defined(prefix: str, numbers: dict[str, float | None]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in numbers.items() if value is not None}


class Tracking:
    """Told of a study's events; logs each run that ends, in the background, until it is closed.

    A tracker that fails is told of once, as a `prepare` event, and is not asked again: the study
    goes on, and its records hold every number.
    """

    def __init__(self, kind: str | None, folder: StudyFolder, on_event: Any) -> None:
        """kind: None logs nothing.

        Raises:
            SpecError: if there is no such tracker, or its package is not installed.
        """
        if kind is not None:
            _require(kind)
        self.kind, self.folder, self.on_event = kind, folder, on_event
        self.background, self.failed = ThreadPoolExecutor(1), False

    def close(self) -> None:
        """Wait until all runs are logged."""
        self.background.shutdown()

    def __call__(self, event: dict[str, Any]) -> None:
        self.on_event(event)
        if self.kind is not None and event["event"] == "measured":
            self.background.submit(self._log, self.kind, event["key"])

    def _log(self, kind: str, run_id: str) -> None:
        if self.failed:
            return
        try:
            log_record(read_record(self.folder.record_path(run_id)), kind, self.folder.path)
        except Exception as error:  # of a stranger's package, a server or a full disk
            self.failed = True
            text = f"{kind} failed ({type(error).__name__}: {error}); no more runs go there"
            self.on_event({"event": "prepare", "text": text})


def log_record(record: RunRecord, kind: str, folder: Path) -> None:
    """Write one record to a tracker as a run named by its run id, in the project of its study.

    Args:
        folder: TensorBoard's and W&B's files go to its `trackers`; the others have their own place.
    """
    tracker = _tracker(kind, record, folder / "trackers")
    tracker.start()
    try:
        if kind in ("wandb", "mlflow"):  # in TensorBoard it would be a run of its own
            tracker.store_init_configuration(_described(record))
        for epoch, values in scalars(record):
            tracker.log(values, step=epoch)
    finally:
        tracker.finish()


def _tracker(kind: str, record: RunRecord, place: Path) -> GeneralTracker:
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # logging needs no GPU
    project, name = record.study, record.run_id
    if kind == "tensorboard":
        return tracking.TensorBoardTracker(name, logging_dir=place / kind)
    if kind == "mlflow":
        return tracking.MLflowTracker(project, run_name=name)
    if kind == "trackio":
        alone = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        return tracking.TrackioTracker(project, name=name, config=_described(record), **alone)
    place.mkdir(parents=True, exist_ok=True)
    quiet = {"silent": True, "console": "off"}  # the terminal is the study's
    return tracking.WandBTracker(project, name=name, dir=place, group=record.target, settings=quiet)


def _described(record: RunRecord) -> dict[str, Any]:
    """Which run it is."""
    return {key: getattr(record, key) for key in KEYS}


def _require(kind: str) -> None:
    if kind not in KINDS:
        known = f"one of {', '.join(KINDS)}"
        raise SpecError(Fault("--track", known, repr(kind), "Choose one of them"))
    if find_spec(kind) is None:
        step = "pip install 'clipdrift[trackers]', or the package alone"
        raise SpecError(Fault("--track", f"{kind} to be installed", "no such package", step))
