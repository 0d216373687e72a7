"""Reload a saved run from its files alone and measure it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from clipdrift.data.cache import default_cache_dir
from clipdrift.errors import Fault, RecordError
from clipdrift.machine.devices import choose_device, strict_float32
from clipdrift.materials import Materials, load_materials
from clipdrift.methods.adapted import reload
from clipdrift.methods.interpolate import starts
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import main_numbers
from clipdrift.reading.post_hoc import read_post_hoc
from clipdrift.reading.start import model_at_start
from clipdrift.reading.target import read_result
from clipdrift.records import RunRecord, StudyFolder, read_record
from clipdrift.records.readings import TARGET_ZERO_SHOT, Result
from clipdrift.records.transfer import RETRIEVAL_NUMBERS
from clipdrift.run.conditions import plugins_of
from clipdrift.run.files import file_hashes, require_own_files
from clipdrift.spec import RunConfig
from clipdrift.spec.parts import interpolation_paths

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Another batch size, thread count or device changes float32 sums; drift is a small difference of
large sums, and accuracies move by whole images."""


@dataclass(frozen=True)
class Compared:
    """One number of the record against the same measured now."""

    name: str
    recorded: float | None
    measured: float | None
    agrees: bool


def evaluate_run(
    run_dir: Path, *, cache_dir: Path | None = None, device: str = "auto"
) -> list[Compared]:
    """Every number of a run's result, recorded and measured again from its saved weights.

    Raises:
        RecordError: if the record, its study or its weights are not there, or data have changed.
        AdapterInactiveError: if the reloaded encoder is not the adapted one.
    """
    device = choose_device(device)
    run_dir = run_dir.resolve()
    record, config = finished_run(run_dir)
    folder = StudyFolder(run_dir.parent.parent)
    spec = folder.read_spec()
    if spec is None:
        raise RecordError(
            Fault(str(folder.spec_path), "the study of the run", "nothing there", "Restore it")
        )
    strict_float32()
    materials = load_materials(spec, cache_dir=cache_dir or default_cache_dir(), device=device)
    require_same_content(record, materials)
    measured = dict(_flat(_measure(config, materials, folder, run_dir, device)))
    return [_compare(name, was, measured.get(name)) for name, was in _flat(record.result)]


def finished_run(run_dir: Path) -> tuple[RunRecord, RunConfig]:
    """Record and configuration of a run whose weights were kept.

    Raises:
        RecordError: if there is no record, the run is not one that was finished here, or its
            weights are not those that were recorded.
        StudyFolderError: if a link leads out of its folder.
    """
    require_own_files(run_dir)
    record = read_record(run_dir / "record.json")
    if record.status != "finished" or record.config is None:
        state = "an imported one" if record.status == "finished" else record.status
        raise RecordError(
            Fault(str(run_dir), "a finished run", state, "Choose a run that has weights")
        )
    _require_same_files(run_dir, record)
    config = RunConfig.model_validate(record.config)
    _require_same_plugins(run_dir, record, config)
    return record, config


def _require_same_plugins(run_dir: Path, record: RunRecord, config: RunConfig) -> None:
    """Another version of a package may read saved weights otherwise."""
    was = record.provenance.get("plugins", {})
    faults = [
        Fault(f"{run_dir} {name}", f"{was.get(name)}, as recorded", origin, "Install that version")
        for name, origin in plugins_of(config).items()
        if was.get(name) != origin
    ]
    if faults:
        raise RecordError(faults)


def _require_same_files(run_dir: Path, record: RunRecord) -> None:
    """Weights and readings image by image are the record's, each with its hash, and no others."""
    now = file_hashes(run_dir)
    faults = [
        Fault(
            str(run_dir / name),
            f"a file as it was saved, with SHA-256 {record.files.get(name, 'none')}, as recorded",
            now.get(name, "nothing there"),
            "Restore the file, or remove the run's folder and run the study again",
        )
        for name in sorted({*record.files, *now})
        if now.get(name) != record.files.get(name)
    ]
    if faults:
        raise RecordError(faults)


def require_same_content(record: RunRecord, materials: Materials) -> None:
    """Weights, images and prompts are those that were recorded.

    Raises:
        RecordError: naming each that is not.
    """
    target, recorded = record.target, record.provenance
    parts = {"data": materials.content(target), "prompts": materials.prompt_hashes(target)}
    faults = [
        Fault(
            f"{record.run_id} {part}, {name}",
            f"content {was}, as recorded",
            sha,
            "Restore what was used",
        )
        for part, now in parts.items()
        for name, sha in now.items()
        if (was := recorded.get(part, {}).get(name)) != sha
    ]
    if faults:
        raise RecordError(faults)


def _measure(
    config: RunConfig, materials: Materials, folder: StudyFolder, run_dir: Path, device: str
) -> Result:
    gauge = Gauge.of_run(config, materials, folder)
    prompts = gauge.target.prompts
    model = reload(gauge.backbone, config.method, len(prompts), run_dir, prompts=prompts).to(device)
    gauge.require_adapted(model)
    start = {}
    if set(interpolation_paths(config.evaluation, config.method)) - {"encoder"}:
        start = starts(model_at_start(gauge, config, device))
    extra = read_post_hoc(gauge, model, config.evaluation, start)
    found = read_result(gauge, model)
    return found.model_copy(update={"extra": {**found.extra, **extra.numbers}})


def _flat(result: Result) -> list[tuple[str, float | None]]:
    own = (
        ("val_score", "test_score")
        if result.score_name != "accuracy"
        else ("val_accuracy", "test_accuracy")
    )
    rows: list[tuple[str, float | None]] = [
        (name, getattr(result, name)) for name in (*own, "test_loss")
    ]
    if (found := result.test_retrieval) is not None:
        rows += [(f"test_retrieval.{name}", getattr(found, name)) for name in RETRIEVAL_NUMBERS]
    if result.target_zero_shot is not None:
        read = result.target_zero_shot
        rows += [
            (f"{TARGET_ZERO_SHOT}.{field}", getattr(read, field))
            for field in (f"baseline_{read.score_name}", read.score_name)
        ]
    rows += main_numbers(result.transfer).items()
    for name, reading in result.transfer.items():
        rows += [(f"transfer.{name}.{field}", value) for field, value in reading.in_full.items()]
    for group in ("levels", "drift", "extra"):
        rows += [(f"{group}.{name}", value) for name, value in getattr(result, group).items()]
    return rows


def _compare(name: str, was: float | None, now: float | None) -> Compared:
    if was is None or now is None:
        return Compared(name, was, now, was is now)
    return Compared(name, was, now, math.isclose(was, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE))
