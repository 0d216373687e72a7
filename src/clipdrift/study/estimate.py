"""What a study will cost on this machine: a few real steps, extrapolated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipdrift.data.cache import default_cache_dir
from clipdrift.errors import ClipdriftError, MethodError
from clipdrift.machine.devices import choose_device, cpu_shares, crowded, supports_bfloat16
from clipdrift.materials import load_materials
from clipdrift.reading.post_hoc import ENDS
from clipdrift.spec import RunConfig, StudySpec, expand
from clipdrift.spec.parts import interpolation_paths
from clipdrift.study.plan import require_fit
from clipdrift.study.remembered import Sizes, Speed, Trials, key_of, remember, remembered
from clipdrift.study.trial import tried


@dataclass(frozen=True)
class Estimate:
    """Wall seconds and bytes of disk; None with a reason where they cannot be known here.

    copies: target -> what its sets share, in words; None likewise.
    """

    seconds: float | None
    disk_bytes: int | None
    machine: str
    reason: str | None = None
    copies: dict[str, list[str]] | None = None


def estimate(spec: StudySpec, *, device: str, cache_dir: Path | None) -> Estimate:
    """Time of a study, from a trial of each method; trials of the last day are not made again.

    Data are prepared on the way. A backbone or dataset that is not at hand gives a reason.

    Raises:
        MethodError: with all methods that do not fit the backbone.
    """
    device = choose_device(device)
    on_gpu = device != "cpu"
    workers, threads = cpu_shares(1 if on_gpu else None)
    machine = "this GPU" if on_gpu else f"{workers * threads} cores"
    cache_dir = cache_dir or default_cache_dir()
    runs = expand(spec, precision="bfloat16" if supports_bfloat16(device) else "float32")
    try:
        trials = _trials(spec, runs, device, threads, cache_dir)
    except MethodError:
        raise
    except ClipdriftError as error:
        return Estimate(None, None, machine, str(error.faults[0]))
    seconds = sum(_run_seconds(r, trials.speeds[r.method.name], trials.sizes) for r in runs)
    disk = sum(trials.speeds[run.method.name].saved_bytes for run in runs)
    return Estimate(seconds / workers, disk, machine, copies=trials.copies)


def _trials(
    spec: StudySpec, runs: list[RunConfig], device: str, threads: int, cache_dir: Path
) -> Trials:
    key = key_of(spec, runs, device, threads)
    if key is not None and (known := remembered(cache_dir, key)) is not None:
        return known
    materials = load_materials(spec, cache_dir=cache_dir, device=device)
    require_fit(spec, materials.backbone)
    trials = tried(runs, materials, device, threads)
    if key is not None and crowded() is None:  # what a busy machine took is no measure of it
        remember(cache_dir, key, trials)
    return trials


def _run_seconds(run: RunConfig, speed: Speed, sizes: Sizes) -> float:
    own, asked, epochs = sizes.targets[run.target.name], run.evaluation, run.schedule.epochs
    scored = epochs * (own["val"] + sizes.transfer_epoch) + own["test"]
    if run.checkpoint == "paper_test_selected":
        scored += epochs * own["test"]
    # of a head that is probed first each image once, or twice with its mirror
    scored += own["train"] * min(run.method.probe_epochs, 2)
    scored += sizes.transfer + _between(run, own["val"] + own["test"], sizes.transfer)
    scored += own["corrupted"]
    scored += len(asked.corruptions) * len(asked.corruption_severities) * own["test"]
    return (
        epochs * own["train"] * speed.train
        + own["train"] * speed.once
        + (epochs + 1) * own["probe"] * speed.probe
        + scored * speed.score
    )


def _between(run: RunConfig, own: int, transfer: int) -> int:
    """Images scored on all paths of interpolated weights: own ones and those of transfer sets."""
    alphas = run.evaluation.interpolation
    inside = sum(alpha not in ENDS for alpha in alphas)
    images = {
        "encoder": len(alphas) * (own + transfer),
        "with_head": len(alphas) * own,
        "factors": inside * (own + transfer),
    }
    return sum(images[path] for path in interpolation_paths(run.evaluation, run.method))
