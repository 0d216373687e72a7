"""From a folder of images to a model: look, propose, race, read what can be made, choose, confirm.

A composition of what the other commands do, each part of which goes on where it was interrupted.
What chose the model, seeds and validation images, has no part in the figures that are told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipdrift.analysis.choose import Choice
from clipdrift.analysis.questions.budget import budget as budget_of
from clipdrift.commands.confirming import chosen, confirmation, export_made, shipped
from clipdrift.commands.models import after
from clipdrift.commands.proposing import proposed, text_of, with_rates
from clipdrift.commands.racing import race
from clipdrift.commands.reading import analyze, choose
from clipdrift.commands.tuned import Tuned, told_of
from clipdrift.errors import Fault, SpecError
from clipdrift.executors import Executor
from clipdrift.finished.classifier import MODEL
from clipdrift.machine.devices import choose_device
from clipdrift.machine.energy import Meter
from clipdrift.racing.limit import Limit, limit
from clipdrift.records import StudyFolder, atomic_write
from clipdrift.records.writing import writing_to
from clipdrift.report import write_report
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.measure import run_study
from clipdrift.study.missing_runs import OnEvent

SEARCH, CONFIRMATION, STUDY = "search", "confirmation", "study.yaml"
FINALISTS = 2
SOUPS, SCALES = (1.0, 0.75, 0.5, 0.25), (1.25,)
SEARCH_SHARE = 0.7
"""Of a time limit; the rest is left for what is made of finalists, and for confirmation."""

Say = Callable[[str], None]


def tune(
    images: str | Path,
    out: str | Path,
    *,
    keep: float | None = None,
    min_accuracy: float | None = None,
    transfers: Sequence[str] = (),
    backbone: str | None = None,
    budget: str = "40%",
    executor: Executor | None = None,
    workers: int = 2,
    device: str = "auto",
    cache_dir: Path | None = None,
    say: Say = lambda text: None,
    on_event: OnEvent = lambda event: None,
) -> Tuned:
    """Make the model to ship from a folder of images, and tell what it keeps.

    Args:
        images: class folders, train/ and test/ of them, or a table, as `init` takes them.
        out: new folder, or one that an earlier call left: it goes on. `study.yaml` in it may be
            changed in between.
        keep: floor on retention on every transfer set, percent of the untouched accuracy.
        min_accuracy: floor on accuracy, percent; with neither, the most retention within a point of
            the best accuracy.
        transfers: as `init`; default one that the backbone knows.
        backbone: hub id or folder.
        budget: what the race may spend: "2h", "40%" of the grid, "60 runs".
        executor: where runs are measured, as `run_study`.
        workers: runs at once.
        say: told what is begun and what was seen.

    Raises:
        ClipdriftError: if images, backbone or folder cannot be used, or the budget is too small.
    """
    floors: dict[str, Any] = {"min_retention": keep, "min_accuracy": min_accuracy}
    budget_of(**floors, retention_option="--keep")  # refused before anything is looked at
    most, device = _race_limit(budget), choose_device(device)
    place, meter = Path(out), Meter()
    study = _study(Path(images), place, backbone, transfers, cache_dir, device, say)
    rest: dict[str, Any] = {
        "executor": executor,
        "workers": workers,
        "cache_dir": cache_dir,
        "on_event": on_event,
    }
    search = StudyFolder(place / SEARCH)
    _, log = race(study, search.path, most, **floors, **rest)
    say("reading soups and rescalings of the finalists")
    found = choose(search, top=None, **floors)
    after(
        search,
        alphas=SOUPS,
        scales=SCALES,
        cells=finalists(found),
        cache_dir=cache_dir,
        device=device,
        say=say,
    )
    found = choose(search, top=None, **floors)
    best = found.rows[0]
    made = chosen(best, search)
    say(f"confirming {best.name} with seeds and images that had no part in the choice")
    confirmed = StudyFolder(place / CONFIRMATION)
    run_study(confirmation(study, made), confirmed.path, **rest)
    if made.kind in ("soup", "scaled"):
        asked_of: dict[str, Any] = (
            {"alphas": [made.alpha]} if made.soup else {"scales": [made.scale]}
        )
        after(confirmed, cache_dir=cache_dir, device=device, say=say, **asked_of)
    runs, reading = shipped(confirmed, made)
    export_made(confirmed, runs, made, place / MODEL, say)
    say("reading the written model back on the test images")
    tuned = told_of(
        place,
        best=best,
        log=log,
        confirmed=confirmed,
        shipped=reading or runs[0],
        prefix=made.prefix,
        search=search,
        cache_dir=cache_dir,
        device=device,
        energy=lambda seconds: meter.so_far(seconds, on_gpu=device != "cpu"),
    )
    tuned.write()
    say("writing the report of the search")
    analyze(search)
    write_report(search)
    return tuned


def preview(
    images: str | Path,
    *,
    transfers: Sequence[str] = (),
    backbone: str | None = None,
    cache_dir: Path | None = None,
    say: Say = lambda text: None,
) -> StudySpec:
    """What `tune` would run, rates aside, which a ramp finds; writes nothing but the cache.

    Raises:
        ClipdriftError: as `tune`.
    """
    found = proposed(
        Path(images), backbone=backbone, transfers=transfers, cache_dir=cache_dir, say=say
    )
    for line in found.seen:
        say(line)
    return found.spec


def _race_limit(budget: str) -> str:
    """What the race may spend of the budget."""
    found = limit(budget, "--budget")
    return Limit(SEARCH_SHARE * found.value, "h").words if found.unit == "h" else found.words


def _study(
    images: Path,
    place: Path,
    backbone: str | None,
    transfers: Sequence[str],
    cache_dir: Path | None,
    device: str,
    say: Say,
) -> StudySpec:
    """The study of the folder, or a new one, written there."""
    path = place / STUDY
    if path.exists():
        spec = load_spec(path)
        _require_same(spec, images, path)
        say(f"going on with {path}")
        return spec
    if place.exists() and any(place.iterdir()):
        step = "Choose another --out"
        raise SpecError(Fault(str(place), "a new folder", "one with something in it", step))
    found = proposed(images, backbone=backbone, transfers=transfers, cache_dir=cache_dir, say=say)
    for line in found.seen:
        say(line)
    spec = with_rates(found, device, say)
    for method in spec.methods:
        rates = method.learning_rates or spec.learning_rates
        say(f"{method.name}: learning rates {', '.join(f'{rate:g}' for rate in rates)}")
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text_of(spec))
    return spec


def _require_same(spec: StudySpec, images: Path, path: Path) -> None:
    target = spec.targets[0]
    own = {target.folder, target.files.train if target.files else None}
    if len(spec.targets) != 1 or str(images.resolve()) not in own:
        got = f"a study of {', '.join(sorted(map(str, own - {None})))}"
        step = "Choose another --out for other images"
        raise SpecError(Fault(str(path), f"a study of {images}", got, step))


def finalists(found: Choice) -> list[tuple[str, float]]:
    """The first cells of a choice that have seeds enough to be averaged."""
    cells = [
        (one.method, one.learning_rate)
        for one in found.rows
        if one.method is not None and one.learning_rate is not None and one.n > 1
    ]
    return list(dict.fromkeys(cells))[:FINALISTS]


__all__ = ["Tuned", "preview", "tune"]
