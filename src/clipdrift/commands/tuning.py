"""From a folder of images to a model: look, propose, race, read what can be made, choose, confirm.

A composition of what the other commands do, each part of which goes on where it was interrupted.
What chose the model, seeds and validation images, has no part in the figures that are told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clipdrift.analysis.choose import Choice
from clipdrift.analysis.questions.budget import budget as floors_of
from clipdrift.analysis.questions.candidates import AS_TRAINED, INTERPOLATED
from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.checkpoint.find import ORIGIN_FILE, read_json
from clipdrift.commands.models import after, export_model
from clipdrift.commands.proposing import proposed, text_of, with_rates
from clipdrift.commands.racing import race
from clipdrift.commands.reading import analyze, choose
from clipdrift.commands.tuned import Tuned, told_of
from clipdrift.errors import Fault, RecordError, SpecError
from clipdrift.executors import Executor
from clipdrift.finished.classifier import MODEL
from clipdrift.machine.devices import choose_device
from clipdrift.machine.energy import Meter
from clipdrift.racing.limit import Limit, limit
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.after import AfterReading, readings
from clipdrift.report import write_report
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.measure import run_study
from clipdrift.study.missing_runs import OnEvent

SEARCH, CONFIRMATION, STUDY = "search", "confirmation", "study.yaml"
FRESH_SEEDS = [101, 103, 107]
"""None of the race's; what is told of the model comes from them."""
OTHER_DRAW, MORE_IMAGES = 1, 4
"""Added to the seed that draws a transfer set's images; and how many times as many are read."""
FINALISTS = 2
SOUPS, SCALES = (1.0, 0.75, 0.5, 0.25), (1.25,)
LARGEST_KEPT = 1000
SEARCH_SHARE = 0.7
"""Of a time limit; the rest is left for what is made of finalists, and for confirmation."""

Say = Callable[[str], None]


class Made(NamedTuple):
    """The weights that were chosen: of a cell, as trained or made after training."""

    method: str
    learning_rate: float
    kind: str
    alpha: float = 1.0
    scale: float = 1.0

    @property
    def soup(self) -> bool:
        return self.kind == "soup"


@dataclass(frozen=True)
class Asked:
    """What a user asks of a model, as floors in percent, and what it may cost."""

    keep: float | None = None
    min_accuracy: float | None = None
    budget: str = "40%"

    @property
    def floors(self) -> dict[str, Any]:
        return {"min_retention": self.keep, "min_accuracy": self.min_accuracy}

    def race_limit(self) -> str:
        """What the race may spend of the budget."""
        found = limit(self.budget, "--budget")
        if found.unit != "h":
            return found.words
        return Limit(SEARCH_SHARE * found.value, "h").words


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
    if keep is not None and not 1 < keep <= LARGEST_KEPT:
        step = f"Write {100 * keep:g}" if 0 < keep <= 1 else "Give percent such as 98"
        rule = "percent of the untouched accuracy, above 1"
        raise SpecError(Fault("--keep", rule, f"{keep:g}", step))
    asked = Asked(keep, min_accuracy, budget)
    floors_of(min_accuracy=min_accuracy)
    limit_words, device = asked.race_limit(), choose_device(device)
    place, meter = Path(out), Meter()
    study = _study(Path(images), place, backbone, transfers, cache_dir, device, say)
    rest: dict[str, Any] = {
        "executor": executor,
        "workers": workers,
        "cache_dir": cache_dir,
        "on_event": on_event,
    }
    search = StudyFolder(place / SEARCH)
    _, log = race(study, search.path, limit_words, **asked.floors, **rest)
    say("reading soups and rescalings of the finalists")
    found = choose(search, top=None, **asked.floors)
    after(
        search,
        alphas=SOUPS,
        scales=SCALES,
        cells=finalists(found),
        cache_dir=cache_dir,
        device=device,
        say=say,
    )
    found = choose(search, top=None, **asked.floors)
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
    _export(runs, made, place / MODEL, say)
    say("reading the written model back on the test images")
    tuned = told_of(
        place,
        best=best,
        log=log,
        confirmed=confirmed,
        shipped=reading or runs[0],
        prefix=_prefix(made),
        n_candidates=len(found.rows),
        search=search,
        keep=keep,
        min_accuracy=min_accuracy,
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
    say(f"learning rates to try: {', '.join(f'{rate:g}' for rate in spec.learning_rates)}")
    StudyFolder(place).path.mkdir(parents=True, exist_ok=True)
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


def chosen(best: Candidacy, search: StudyFolder) -> Made:
    """The first candidate of a choice, as what is to be made again of fresh seeds.

    Raises:
        RecordError: if nothing can be chosen.
    """
    if best.method is None or best.learning_rate is None or best.weights is None:
        step = "Raise the budget, or name a transfer set that the model knows"
        raise RecordError(Fault(str(search.path), "a candidate", str(best.reason), step))
    cell = (best.method, best.learning_rate)
    if best.weights == AS_TRAINED:
        return Made(*cell, "trained")
    if best.weights == INTERPOLATED:
        return Made(*cell, "interpolated", alpha=best.alpha or 0.0)
    read, _ = readings(search, search.records()[0])
    one = next(r for r in read if (r.method, r.learning_rate, r.weights) == (*cell, best.weights))
    if one.kind == "soup":
        return Made(*cell, "soup", alpha=1.0 if one.alpha is None else one.alpha)
    return Made(*cell, one.kind, scale=1.0 if one.scale is None else one.scale)


def confirmation(study: StudySpec, made: Made) -> StudySpec:
    """The study of the chosen cell alone: fresh seeds, other images of the transfer sets."""
    body = study.model_dump(mode="json", exclude_none=True)
    (method,) = [m for m in body["methods"] if m["name"] == made.method]
    method.update(role="matched")
    method.pop("learning_rates", None)
    body |= {
        "name": f"{study.name}-confirmation",
        "methods": [method],
        "learning_rates": [made.learning_rate],
        "seeds": FRESH_SEEDS,
        "transfers": [_drawn_anew(one) for one in body["transfers"]],
    }
    body["evaluation"] |= {
        "in_full": True,
        "epoch_transfer_images": 0,
        "interpolation": [made.alpha] if made.kind == "interpolated" else [],
    }
    return StudySpec.model_validate(body)


def _drawn_anew(transfer: dict[str, Any]) -> dict[str, Any]:
    drawn = {"seed": transfer.get("seed", 0) + OTHER_DRAW}
    if n := transfer.get("n_images"):
        drawn |= {"n_images": MORE_IMAGES * n, "too_few": "all"}
    return {**transfer, **drawn}


def shipped(folder: StudyFolder, made: Made) -> tuple[list[RunRecord], AfterReading | None]:
    """The runs whose weights are shipped, and the reading of what was made of them, if it was.

    Of single runs that with the highest accuracy on validation images: test images have no say.

    Raises:
        RecordError: if fresh seeds did not finish.
    """
    records = [r for r in folder.records()[0] if r.status == "finished"]
    read = [one for one in readings(folder, records)[0] if one.kind == made.kind]
    if not records or (made.kind in ("soup", "scaled") and not read):
        got = "none of the fresh seeds finished, or what is made of them could not be read"
        step = "Run the same command again, or choose another budget"
        raise RecordError(Fault(str(folder.path), "finished runs", got, step))
    if made.soup:
        return records, read[0]
    if made.kind == "scaled":
        best = max(read, key=lambda one: one.result.val_accuracy or 0.0)
        return [r for r in records if r.run_id in best.runs], best
    name = f"{_prefix(made)}val_accuracy".removeprefix("extra.")

    def accuracy(record: RunRecord) -> float:
        own = record.result.val_accuracy
        return (own if made.kind == "trained" else record.result.extra.get(name)) or 0.0

    return [max(records, key=accuracy)], None


def _prefix(made: Made) -> str:
    """What the names of an interpolated model's readings begin with in a record."""
    return f"extra.interpolation.{made.alpha:g}." if made.kind == "interpolated" else ""


def _export(runs: Sequence[RunRecord], made: Made, out: Path, say: Say) -> None:
    """Write the model; one that was written of the same runs stays.

    Raises:
        RecordError: if another lies there.
    """
    names = [record.run_id for record in runs]
    if (out / ORIGIN_FILE).is_file():
        origin = read_json(out / ORIGIN_FILE)
        there = origin.get("made") or {"runs": [origin.get("run_id")], "alpha": 1.0, "scale": 1.0}
        if there == {"runs": names, "alpha": made.alpha, "scale": made.scale}:
            return
        step = f"Move {out} away"
        raise RecordError(Fault(str(out), f"a model of {names}", f"one of {there}", step))
    say(f"writing {out}")
    folder = StudyFolder(out.parent / CONFIRMATION)
    paths = [folder.run_path(name) for name in names]
    export_model(paths, out, alpha=made.alpha, scale=made.scale)


__all__ = ["Tuned", "preview", "tune"]
